"""Agents that are slow, and agents that hang: what a sweep costs then."""

import asyncio
from collections.abc import Awaitable, Callable

import uvloop
from tests.bench.context import Context, progress
from tests.bench.engine import Bare, Engine, timed
from tests.bench.fleet_process import FleetProcess, simulated
from tests.bench.result import Result, spread

from gpudiag_api.vocabulary import BreakerState
from gpudiag_operator.collect.resources import calm_garbage_collector, raise_open_files
from gpudiag_operator.collect.settings import CollectSettings

LATENCY = 0.05
WORKERS = 10
_ROUNDS = 5
_TURNS = 15


def run(context: Context) -> list[Result]:
    """Measure."""
    raise_open_files()
    calm_garbage_collector()
    nodes = context.pick(1000, 100)
    results = []
    if "pool" in context.rows:
        with simulated(nodes, latency=LATENCY) as fleet:
            results += _run(lambda: _pool(fleet))
    if "hang" in context.rows:
        with simulated(nodes) as fleet, simulated(nodes) as healthy:
            results += _run(lambda: _hang(fleet, healthy))
    return results


def _run(work: Callable[[], Awaitable[list[Result]]]) -> list[Result]:
    async def main() -> list[Result]:
        return await work()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


async def _pool(fleet: FleetProcess) -> list[Result]:
    targets = fleet.targets()
    engine, bare = Engine(targets), Bare(targets)
    await engine.changed()
    await bare.changed()
    walls: dict[str, list[float]] = {"pool": [], "operator": []}
    for number in range(_ROUNDS):
        progress(f"agents of 50 ms: round {number + 1} of {_ROUNDS}")
        walls["pool"].append((await timed(lambda: bare.pool(WORKERS)))[0])
        walls["operator"].append((await timed(engine.changed))[0])
    await engine.close()
    await bare.close()
    ours, theirs = (spread(walls[name])["median"] for name in ("operator", "pool"))
    return [
        Result(
            name=f"{len(targets)} agents that each take 50 ms: times faster",
            measured=theirs / ours,
            unit="x",
            target=8,
            at_least=True,
            reference=f"fixed pool of {WORKERS} workers {theirs:.2f} s, ours {ours:.2f} s",
            gates=True,
            details={name: spread(values) for name, values in walls.items()},
        )
    ]


async def _hang(fleet: FleetProcess, healthy: FleetProcess) -> list[Result]:
    """A fleet in which a tenth hangs, and one in which nobody does: by turns, as a machine's pace changes."""
    timeout = CollectSettings().node_timeout
    engine, reference = Engine(fleet.targets()), Engine(healthy.targets())
    await engine.changed()
    await reference.changed()
    hanging = fleet.names[::10]
    await asyncio.to_thread(fleet.set, dict.fromkeys(hanging, "hang"))
    progress(f"{len(hanging)} of {len(fleet.names)} agents hang")
    first, _ = await timed(engine.changed)
    await engine.changed()
    await engine.changed()
    opened = sum(record.breaker.state is BreakerState.OPEN for record in engine.records)
    assert opened == len(hanging), f"{opened} of {len(hanging)} breakers are open"
    ratios: dict[str, list[float]] = {"client CPU": [], "wall": []}
    walls: list[float] = []
    for _ in range(_TURNS):
        wall, cpu = await _sweep(engine, len(fleet.names) - opened)
        wall_healthy, cpu_healthy = await _sweep(reference, len(healthy.names))
        ratios["client CPU"].append(cpu / cpu_healthy)
        ratios["wall"].append(wall / wall_healthy)
        walls.append(wall_healthy)
    await engine.close()
    await reference.close()
    return [
        Result(
            name=f"{len(hanging)} of {len(fleet.names)} agents hang: first sweep",
            measured=first,
            unit="s",
            target=1.2 * timeout,
            reference=f"node timeout {timeout:g} s",
            gates=True,
        ),
        *(
            Result(
                name=f"{len(hanging)} of {len(fleet.names)} agents hang, breakers open: {what}",
                measured=spread(values)["median"],
                unit="x",
                target=1.1,
                reference=f"all healthy, by turns with it, {1000 * spread(walls)['median']:.0f} ms",
                gates=True,
                details=spread(values),
            )
            for what, values in ratios.items()
        ),
    ]


async def _sweep(engine: Engine, read: int) -> tuple[float, float]:
    """Wall and CPU seconds of one sweep that reads so many nodes."""
    taken = await timed(engine.changed)
    assert engine.read == read, f"{engine.read} nodes were read, not {read}"
    return taken
