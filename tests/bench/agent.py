"""One agent over the stand-in for NVML: the report under load, the memory of both processes, and what a look costs.

PSS, since parent and child share pages of the interpreter and its libraries.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
from tests.bench.context import Context
from tests.bench.result import Result, percentile, spread
from tests.cluster.operator.conftest import free_port

from gpudiag_cli.nvmlfake import Machine, build

RATE = 100
SECONDS = 20
SETTLED_SECONDS = 20
INTERVAL_SECONDS = 10.0
"""What the share of a core is of: the agent's default."""
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpudiag" / "nvmlfake"
_FLOOR_SERVER = """
import pydantic, subprocess, sys
from aiohttp import web
child = subprocess.Popen([sys.executable, "-c", "import pynvml, sys; print(flush=True); sys.stdin.read()"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
class Model(pydantic.BaseModel):
    name: str
async def answer(_):
    return web.Response(text="{}")
async def ready(_):
    print(flush=True)
app = web.Application()
app.router.add_get("/v1/report", answer)
app.on_startup.append(ready)
web.run_app(app, host="127.0.0.1", port=0, print=None)
"""
"""What an agent cannot well do without: a server, models, a child with NVML's binding."""


def run(context: Context) -> list[Result]:
    """Measure."""
    seconds = context.pick(SECONDS, 3)
    floor = _floor()
    with tempfile.TemporaryDirectory() as folder, _agent(Path(folder)) as (url, pid):
        asyncio.run(_until_ready(url))
        began, spent = time.monotonic(), _cpu_seconds(pid)
        time.sleep(context.pick(SETTLED_SECONDS, 3))
        looks = time.monotonic() - began  # One a second.
        per_look = (_cpu_seconds(pid) - spent) / looks
        memory = _both(pid)
        taken = asyncio.run(_load(url, seconds))
        loaded = _both(pid)
    return [
        Result(
            name=f"/v1/report at {RATE} requests/s, p99",
            measured=1000 * percentile(taken, 0.99),
            unit="ms",
            target=5,
            details=spread(1000 * one for one in taken),
        ),
        Result(
            name="agent, both processes, 8 GPUs, PSS",
            measured=memory / 1e6,
            unit="MB",
            target=55,
            reference=f"empty aiohttp server with pydantic, and a pynvml child: {floor / 1e6:.1f} MB",
            details={"floor_megabytes": floor / 1e6, "under_load_megabytes": loaded / 1e6},
        ),
        Result(
            name="agent, CPU time at a look every 10 s (of looks every second)",
            measured=100 * per_look / INTERVAL_SECONDS,
            unit="% of a core",
            target=0.5,
            details={"milliseconds_per_look": 1000 * per_look, "looks": looks},
        ),
        *_instructions(context),
    ]


def _floor() -> int:
    with subprocess.Popen([sys.executable, "-c", _FLOOR_SERVER], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            return _both(process.pid)
        finally:
            # The group of both: the child would outlive a server that is killed.
            for child in _children(process.pid):
                os.kill(child, signal.SIGTERM)
            process.terminate()


def _instructions(context: Context) -> Iterator[Result]:
    """One look in instructions, against what an empty loop does in ten seconds; independent of the machine's load."""
    if shutil.which("valgrind") is None:
        return
    few, many = 2, context.pick(12, 4)
    look = (_counted(str(many)) - _counted(str(few))) / (many - few)
    loops = 2_000_000
    began = time.process_time()
    for _ in range(loops):
        pass
    seconds = time.process_time() - began
    # Both counted with and without the loop, so that Python's start is not part of it.
    empty = _counted("--empty", str(loops)) - _counted("--empty", "0")
    per_second = empty / seconds
    yield Result(
        name="agent, instructions of a look every 10 s",
        measured=100 * look / (per_second * INTERVAL_SECONDS),
        unit="% of a core",
        target=0.5,
        reference=f"an empty loop: {per_second / 1e9:.2f} G instructions/s",
        details={"instructions_per_look": look, "empty_loop_per_second": per_second},
    )


def _counted(*arguments: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        fake = Machine.create("h100-8", Path(folder) / "state")
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", sys.executable, "-m"]
        done = subprocess.run(
            [*command, "tests.bench.look", *arguments],
            env={**os.environ, **fake.environment(build(_CACHE)), "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=True,
        )
    return int(re.findall(r"Collected : (\d+)", done.stderr)[-1])


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
    command += [
        "--kmsg",
        str(folder / "kmsg"),
        "--interval",
        "1s",
        "--pod-resources",
        "none",
        "--sysfs-pci",
        str(folder / "pci"),
    ]
    environment = {**os.environ, **fake.environment(build(_CACHE))}
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log, env=environment) as process:
        try:
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.terminate()


async def _until_ready(url: str) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        while not await _ready(session, url):
            await asyncio.sleep(0.1)


async def _load(url: str, seconds: int) -> list[float]:
    """Requests at a fixed rate, each timed from when it was sent."""
    taken: list[float] = []
    async with aiohttp.ClientSession() as session:

        async def one() -> None:
            sent = time.monotonic()
            async with session.get(f"{url}/v1/report") as response:
                assert response.status == 200
                await response.read()
            taken.append(time.monotonic() - sent)

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(RATE * seconds):
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


def _both(pid: int) -> int:
    return _pss_bytes(pid) + sum(_pss_bytes(child) for child in _children(pid))


def _cpu_seconds(pid: int) -> float:
    """Of a process and its children, user and system."""
    ticks = 0
    for one in (pid, *_children(pid)):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
