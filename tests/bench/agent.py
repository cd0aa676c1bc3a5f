"""One agent over the stand-in for NVML: the report under load, and the memory of both processes.

PSS, since parent and child share pages of the interpreter and its libraries.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
from tests.bench.result import Result, percentile, spread
from tests.cluster.operator.conftest import free_port

from gpudiag_cli.nvmlfake import Machine, build

RATE = 50
SECONDS = 20
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpudiag" / "nvmlfake"


def run() -> list[Result]:
    """Measure."""
    with tempfile.TemporaryDirectory() as folder, _agent(Path(folder)) as (url, pid):
        taken = asyncio.run(_load(url))
        memory = _pss_bytes(pid) + sum(_pss_bytes(child) for child in _children(pid))
    return [
        Result(
            name=f"/v1/report at {RATE} requests/s, p99",
            measured=1000 * percentile(taken, 0.99),
            unit="ms",
            target=10,
            details=spread(1000 * one for one in taken),
        ),
        Result(name="agent, both processes, 8 GPUs, PSS", measured=memory / 1e6, unit="MB", target=60),
    ]


@contextmanager
def _agent(folder: Path) -> Iterator[tuple[str, int]]:
    port = free_port()
    (folder / "kmsg").touch()
    (folder / "pci").mkdir()
    fake = Machine.create("h100-8", folder / "state")
    command = [
        sys.executable,
        "-m",
        "gpudiag_agent",
        "--node-name",
        "bench",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--kmsg", str(folder / "kmsg"), "--sysfs-pci", str(folder / "pci")]
    environment = {**os.environ, **fake.environment(build(_CACHE))}
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log, env=environment) as process:
        try:
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.terminate()


async def _load(url: str) -> list[float]:
    """Requests at a fixed rate, each timed from when it was sent."""
    taken: list[float] = []
    async with aiohttp.ClientSession() as session:
        async with asyncio.timeout(20):
            while not await _ready(session, url):
                await asyncio.sleep(0.1)

        async def one() -> None:
            sent = time.monotonic()
            async with session.get(f"{url}/v1/report") as response:
                assert response.status == 200
                await response.read()
            taken.append(time.monotonic() - sent)

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(RATE * SECONDS):
                await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
                group.create_task(one())
    return taken


async def _ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


def _pss_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
