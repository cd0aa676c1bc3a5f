"""Ten times the nodes cost at most eleven times the time, CPU and memory: sweep in process, restart for real."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import uvloop
from tests.bench import scale
from tests.bench.canned import served
from tests.bench.context import Context, progress
from tests.bench.engine import Engine, timed
from tests.bench.result import Result, spread
from tests.bench.stage import stage

from gpudiag_operator.collect.resources import calm_garbage_collector, raise_open_files
from gpudiag_operator.domain import Target

_ROUNDS = 9
_MOST = 11


def run(context: Context) -> list[Result]:
    """Measure."""
    small, large = context.pick(500, 50), context.pick(5000, 500)
    sweeps = {nodes: _sweep_process(nodes) for nodes in (small, large)}
    restarts = {nodes: asyncio.run(_restart(nodes)) for nodes in (small, large)}
    name = f"growth, {small} → {large} nodes: "
    return [
        *(_ratio(f"{name}sweep, {what}", sweeps[small][what], sweeps[large][what]) for what in sweeps[small]),
        *(_ratio(f"{name}restart, {what}", restarts[small][what], restarts[large][what]) for what in restarts[small]),
    ]


def _ratio(name: str, small: float, large: float) -> Result:
    reference = f"{small:.3g} → {large:.3g}"
    return Result(name=name, measured=large / small, unit="x", target=_MOST, reference=reference, gates=True)


def _sweep_process(nodes: int) -> dict[str, float]:
    """In a process of its own, so that memory is that of this size."""
    progress(f"sweeps of {nodes}")
    command = [sys.executable, "-m", "tests.bench.growth", str(nodes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found: dict[str, float] = json.loads(done.stdout)
    return found


async def _sweep(targets: list[Target]) -> dict[str, float]:
    before = _resident()
    engine = Engine(targets)
    await engine.changed()
    await engine.changed()
    taken = [await timed(engine.changed) for _ in range(_ROUNDS)]
    memory = _resident() - before
    await engine.close()
    return {
        "wall": spread(wall for wall, _ in taken)["median"],
        "CPU": spread(cpu for _, cpu in taken)["median"],
        "memory above an empty process": memory,
    }


def _resident() -> float:
    """MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


async def _restart(nodes: int) -> dict[str, float]:
    """Seconds and CPU seconds until Ready, and the peak of memory, of an operator over GPUNodes that are there."""
    async with stage(nodes) as made:
        made.start()
        await made.filled(seconds=600)
        ready, cpu, peak, _ = await scale.restart(made)
    return {"time": ready.measured, "CPU": cpu.measured, "peak memory": peak.measured}


if __name__ == "__main__":
    raise_open_files()
    calm_garbage_collector()
    with (
        served(int(sys.argv[1])) as found,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        print(json.dumps(runner.run(_sweep(found))))
