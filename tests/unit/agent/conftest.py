"""The stand-in for NVIDIA's library, sources whose child really loads it, and a node that is served over HTTP."""

import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from tests.unit.agent.served_node import Node

from gpudiag_agent.nvml.source import NVMLSource
from gpudiag_cli import nvmlfake

ROOT = Path(__file__).resolve().parents[3]

Boot = Callable[[str], nvmlfake.Machine]
Open = Callable[..., NVMLSource]


@pytest.fixture(scope="session")
def nvml_library() -> Path:
    """The folder with the compiled stand-in."""
    return nvmlfake.build(ROOT / ".cache" / "nvmlfake")


@pytest.fixture
def boot(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Boot:
    """Makes this process's children see the machine of that name: `boot("h100-8")`."""

    def start(name: str) -> nvmlfake.Machine:
        machine = nvmlfake.Machine.create(name, tmp_path / "machine.state")
        for variable, value in machine.environment(nvml_library).items():
            monkeypatch.setenv(variable, value)
        return machine

    return start


@pytest.fixture
async def open_source() -> AsyncIterator[Open]:
    """Makes sources that are closed after the test: `open_source(deadline=0.2)`."""
    opened: list[NVMLSource] = []

    def make(**options: object) -> NVMLSource:
        source = NVMLSource(**options)  # type: ignore[arg-type]
        opened.append(source)
        return source

    yield make
    for source in opened:
        await source.close()


@pytest.fixture
async def fresh_node() -> AsyncIterator[Node]:
    node = Node()
    runner = web.AppRunner(node.application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    sock = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, sock).start()
    node.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, auto_decompress=False, skip_auto_headers=["Accept-Encoding"]
    ) as node.client:
        yield node
    await runner.cleanup()


@pytest.fixture
async def node(fresh_node: Node) -> Node:
    await fresh_node.look()
    return fresh_node
