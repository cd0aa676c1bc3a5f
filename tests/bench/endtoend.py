"""From what happens on a node to GPUNode.status, with a real agent process over the stand-in for NVML.

Named apart, since they take different ways: a kernel line is read as it is written, NVML when the next sample is taken.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.agent import _CACHE
from tests.bench.context import Context, progress
from tests.bench.result import Result, spread
from tests.bench.stage import Stage, stage
from tests.bench.watch import Status

from gpudiag_cli.controlplane.ports import free_port
from gpudiag_cli.nvmlfake import Machine, build
from gpudiag_cli.simulator import MACHINES, Member

_NODE = "real"
_REST_SECONDS = 10.6
"""A GPUNode that does not get worse rests for ten seconds after a write."""
_LOST = "NVRM: Xid (PCI:{pci}): 79, GPU has fallen off the bus."
_BACK = "NVRM: Xid (PCI:{pci}): 154, GPU recovery action changed from 0x2 (Node Reboot Required) to 0x0 (None)"
_SAMPLING_SECONDS = 10


def run(context: Context) -> list[Result]:
    """Measure."""
    return asyncio.run(_run(context.pick(10, 2)))


async def _run(changes: int) -> list[Result]:
    async with stage(2) as made:
        with _agent(made.folder) as (machine, kmsg, port):
            model = MACHINES["h100-8"].model
            await made.cluster.add([Member(name=_NODE, address="127.0.0.1", port=port, gpus=8, model=model)])
            made.start()
            await made.until(lambda: _is(made, "Healthy"), seconds=60, what="the real node is Healthy")
            lines = [await _line(made, kmsg, machine, number) for number in range(changes)]
            nvml = [await _nvml(made, machine, number) for number in range(changes)]
    return [
        Result(name="kernel line → GPUNode.status: p50", measured=spread(lines)["median"], unit="s", target=0.5),
        Result(
            name="kernel line → GPUNode.status: p99",
            measured=spread(lines)["p99"],
            unit="s",
            target=2.5,
            details=spread(lines),
        ),
        Result(
            name="NVML change → GPUNode.status: p50",
            measured=spread(nvml)["median"],
            unit="s",
            reference=f"a sample every {_SAMPLING_SECONDS} s",
        ),
        Result(
            name="NVML change → GPUNode.status: p99",
            measured=spread(nvml)["p99"],
            unit="s",
            target=_SAMPLING_SECONDS + 2.5,
            details=spread(nvml),
        ),
    ]


@contextmanager
def _agent(folder: Path) -> Iterator[tuple[Machine, Path, int]]:
    kmsg, pci, port = folder / "kmsg", folder / "pci", free_port()
    kmsg.touch()
    pci.mkdir()
    machine = Machine.create("h100-8", folder / "state")
    command = [sys.executable, "-m", "gpudiag_agent", "--node-name", _NODE, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--kmsg", str(kmsg), "--sysfs-pci", str(pci)]
    environment = {**os.environ, **machine.environment(build(_CACHE))}
    with (folder / "agent.log").open("wb") as log, subprocess.Popen(command, stderr=log, env=environment) as process:
        try:
            yield machine, kmsg, port
        finally:
            process.terminate()


def _is(made: Stage, health: str) -> bool:
    seen = made.watcher.seen.get(_NODE)
    return seen is not None and seen.status.health == health


async def _line(made: Stage, kmsg: Path, machine: Machine, number: int) -> float:
    pci = (machine.get("gpu.2.pci") or "0000:52:00.0").rpartition(".")[0]
    worse = number % 2 == 0
    text, wanted = (_LOST, "Unhealthy") if worse else (_BACK, "Healthy")

    def write() -> None:
        with kmsg.open("a") as log:
            log.write(text.format(pci=pci) + "\n")

    return await _measure(made, write, lambda status: status.health == wanted, f"kernel line {number + 1}")


async def _nvml(made: Stage, machine: Machine, number: int) -> float:
    worse = number % 2 == 0
    # Not in step with the agent's samples.
    await asyncio.sleep(number * 0.37 % 1 * _SAMPLING_SECONDS / 2)
    wanted = "Degraded" if worse else "Healthy"

    def write() -> None:
        machine.set({"gpu.3.rows.pending": worse})

    return await _measure(made, write, lambda status: status.health == wanted, f"NVML change {number + 1}")


async def _measure(made: Stage, act: Callable[[], None], shown: Callable[[Status], bool], what: str) -> float:
    await asyncio.sleep(_REST_SECONDS)
    made.watcher.log.clear()
    began = time.monotonic()
    await asyncio.to_thread(act)
    await made.until(
        lambda: any(seen.name == _NODE and shown(seen.status) for seen in made.watcher.log), seconds=60, what=what
    )
    taken = next(seen.at for seen in made.watcher.log if seen.name == _NODE and shown(seen.status)) - began
    progress(f"{what}: {taken:.2f} s")
    return taken
