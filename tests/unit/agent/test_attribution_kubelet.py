"""The kubelet's socket: a real gRPC server, and every way in which there is none."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from gpudiag_agent import listening, options
from gpudiag_agent.attribution import http2
from gpudiag_agent.attribution.kubelet import UnavailableError, ask
from gpudiag_agent.attribution.model import Device, PodDevices
from gpudiag_agent.run import Agent
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api.wire import decode

from . import pod_resources_bytes as wire
from .test_attribution_pod_resources import GO_ALLOCATABLE, GO_LIST, A

SERVER = Path(__file__).parent / "pod_resources_server.py"
Serve = Callable[..., Path]
Session = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Listen = Callable[[Session], Awaitable[Path]]
SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
UNKNOWN = bytes((0, 0, 0, 99, 0, 0, 0, 0, 0))


class TwoGPUs:
    """A source for the agent as a whole."""

    async def sample(self) -> Sample:
        return Sample(
            taken_at=time.time(), gpus=(GPUSample(index=0, uuid=f"GPU-{A}"), GPUSample(index=1, uuid="GPU-second"))
        )

    async def close(self) -> None:
        pass


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts grpcio in the kubelet's place: `serve(listed=…, allocatable=…)`, bytes or the name of a status."""
    started = []

    def start(*, listed: bytes | str, allocatable: bytes | str = GO_ALLOCATABLE) -> Path:
        path = tmp_path / "kubelet.sock"
        process = subprocess.Popen(
            [sys.executable, str(SERVER), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        script = {"List": listed, "GetAllocatableResources": allocatable}
        assert process.stdin is not None
        assert process.stdout is not None
        print(
            json.dumps({k: v.hex() if isinstance(v, bytes) else v for k, v in script.items()}),
            file=process.stdin,
            flush=True,
        )
        assert process.stdout.readline() == "ready\n"
        return path

    yield start
    for process in started:
        process.communicate("\n", timeout=20)


@pytest.fixture
async def listen(tmp_path: Path) -> AsyncIterator[Listen]:
    """Listens in the kubelet's place with a session of the test's own."""
    servers = []

    async def start(session: Session) -> Path:
        path = tmp_path / "odd.sock"

        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await session(reader, writer)
            except ConnectionError:
                pass
            finally:
                writer.close()

        servers.append(await asyncio.start_unix_server(run, path))
        return path

    yield start
    for server in servers:
        server.close()


async def refused(path: Path, *, deadline: float = 5.0) -> str:
    with pytest.raises(UnavailableError) as caught:
        await ask(path, deadline=deadline)
    return str(caught.value)


class TestARealServer:
    async def test_is_understood(self, serve: Serve) -> None:
        found = await ask(serve(listed=GO_LIST))
        assert [(one.pod, one.device) for one in found.held] == [
            ("train", Device(gpu_uuid=f"GPU-{A}")),
            ("train", Device(index=1)),
        ]
        assert found.allocatable_gpus == 2

    async def test_may_have_no_pods(self, serve: Serve) -> None:
        assert await ask(serve(listed=b"", allocatable=b"")) == PodDevices(allocatable_gpus=0)

    async def test_may_answer_with_megabytes(self, serve: Serve) -> None:
        pods = [wire.pod("n", f"pod-{number}", wire.field(1, "x" * 253)) for number in range(40_000)]
        last = wire.pod("n", "last", wire.container("c", wire.devices("nvidia.com/gpu", f"GPU-{A}")))
        listed = wire.listed(*pods, last)
        assert 8 << 20 < len(listed) < http2.MAX_ANSWER
        found = await ask(serve(listed=listed))
        assert [one.pod for one in found.held] == ["last"]

    async def test_with_more_than_the_bound_is_refused(self, serve: Serve) -> None:
        path = serve(listed=wire.field(9, bytes(http2.MAX_ANSWER)))
        assert await refused(path) == f"The kubelet at {path} sent more than 16777216 bytes."

    async def test_that_refuses_is_quoted(self, serve: Serve) -> None:
        path = serve(listed="RESOURCE_EXHAUSTED")
        said = await refused(path)
        assert said == f"The kubelet at {path} refused: RESOURCE_EXHAUSTED, not today, 100 % sure: ~{{\\}}~ ä."

    async def test_without_the_second_call_still_says_who_holds_what(self, serve: Serve) -> None:
        found = await ask(serve(listed=GO_LIST, allocatable="UNIMPLEMENTED"))
        assert len(found.held) == 2
        assert found.allocatable_gpus is None

    async def test_that_answers_nonsense_is_not_believed(self, serve: Serve) -> None:
        assert "answered nonsense" in await refused(serve(listed=b"\x0a\x05abc"))


class TestNoServer:
    async def test_no_socket(self, tmp_path: Path) -> None:
        assert "is not there: mount its folder, or name it with --pod-resources" in await refused(tmp_path / "none")
        (tmp_path / "file").touch()
        assert "is not there" in await refused(tmp_path / "file" / "below")

    async def test_a_file_that_is_no_socket(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert "Nobody listens" in await refused(tmp_path / "file")

    async def test_a_socket_that_nobody_serves(self, listen: Listen, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(tmp_path / "left.sock"))
        assert "Nobody listens" in await refused(tmp_path / "left.sock")

    async def test_a_path_that_is_too_long(self, tmp_path: Path) -> None:
        assert "could not be asked" in await refused(tmp_path / ("x" * 200))

    async def test_no_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async def denied(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", denied)
        assert "may not be opened: run as root" in await refused(tmp_path / "x")


class TestAnOddServer:
    async def test_one_that_says_nothing_is_left_at_the_deadline(self, listen: Listen) -> None:
        async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            while await reader.read(4096):
                pass

        path = await listen(silent)
        async with asyncio.timeout(2):
            assert "gave no answer within 0.1 s" in await refused(path, deadline=0.1)

    async def test_one_that_hangs_up(self, listen: Listen) -> None:
        async def gone(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read(4096)

        assert "hung up without an answer" in await refused(await listen(gone))

    async def test_one_that_speaks_http_1(self, listen: Listen) -> None:
        async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(4096)
            writer.write(b"HTTP/1.1 505 HTTP Version Not Supported\r\n\r\n")
            await writer.drain()

        assert "does not speak HTTP/2" in await refused(await listen(old))

    async def test_one_that_never_stops_talking_is_cut_off(self, listen: Listen) -> None:
        async def talker(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(SETTINGS)
            while True:
                writer.write(UNKNOWN * 500)
                await writer.drain()

        assert "sent more than 20000 frames" in await refused(await listen(talker))

    async def test_one_that_always_has_more_to_say_keeps_nobody_else_waiting(
        self, listen: Listen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        async def at_once(*_: object) -> bytes:
            return SETTINGS * 100

        async def nothing(*_: object) -> None:
            pass

        monkeypatch.setattr(asyncio.get_running_loop(), "sock_recv", at_once)
        monkeypatch.setattr(asyncio.get_running_loop(), "sock_sendall", nothing)
        beside = asyncio.create_task(others())
        assert "sent more than 20000 frames" in await refused(await listen(lambda *_: asyncio.sleep(0)))
        beside.cancel()
        assert turns >= 200


async def test_the_agents_first_report_says_which_pod_holds_which_gpu(serve: Serve, tmp_path: Path) -> None:
    path = serve(listed=GO_LIST)
    asked = options.parse(
        [
            "--pod-resources",
            str(path),
            "--node-name",
            "n",
            "--sysfs-pci",
            str(tmp_path),
            "--kmsg",
            str(tmp_path / "log"),
        ]
    )
    with listening.listen("127.0.0.1", 0) as sock:
        agent = Agent(asked, source=TwoGPUs())
        running = asyncio.create_task(agent.run(sock))
        try:
            async with aiohttp.ClientSession() as client, asyncio.timeout(10):
                while (await client.get(f"{listening.url(sock)}/readyz")).status != 200:
                    await asyncio.sleep(0.005)
                report = decode(await (await client.get(f"{listening.url(sock)}/v1/report")).read())
        finally:
            agent.stop()
            await running
    assert [(one.gpu_uuid, one.namespace, one.pod, one.container) for one in report.allocations] == [
        (f"GPU-{A}", "ml", "train", "main"),
        ("GPU-second", "ml", "train", "main"),
    ]
    assert "NoPodResources" not in [gap.reason for gap in report.capabilities]
