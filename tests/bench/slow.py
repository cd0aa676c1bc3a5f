"""Agents that are slow, and agents that hang: what a sweep costs then."""

import asyncio
import statistics
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
_HEALTHY_ROUNDS = 15


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
        with simulated(nodes) as fleet:
            results += _run(lambda: _hang(fleet))
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


async def _hang(fleet: FleetProcess) -> list[Result]:
    targets, timeout = fleet.targets(), CollectSettings().node_timeout
    engine = Engine(targets)
    await engine.changed()
    healthy = await _sweeps(engine, len(targets))
    hanging = fleet.names[::10]
    await asyncio.to_thread(fleet.set, dict.fromkeys(hanging, "hang"))
    progress(f"{len(hanging)} of {len(targets)} agents hang")
    first, _ = await timed(engine.changed)
    await engine.changed()
    await engine.changed()
    opened = sum(record.breaker.state is BreakerState.OPEN for record in engine.records)
    assert opened == len(hanging), f"{opened} of {len(hanging)} breakers are open"
    rest = await _sweeps(engine, len(targets) - opened)
    await engine.close()
    ratio = {what: rest[what]["median"] / healthy[what]["median"] for what in healthy}
    details = {"all healthy": healthy, "breakers open": rest}
    return [
        Result(
            name=f"{len(hanging)} of {len(targets)} agents hang: first sweep",
            measured=first,
            unit="s",
            target=1.2 * timeout,
            reference=f"node timeout {timeout:g} s",
            gates=True,
        ),
        *(
            Result(
                name=f"{len(hanging)} of {len(targets)} agents hang, breakers open: {what}",
                measured=ratio[what],
                unit="x",
                target=1.1,
                reference=f"all healthy {1000 * healthy[what]['median']:.0f} ms",
                gates=True,
                details=details,
            )
            for what in ratio
        ),
    ]


async def _sweeps(engine: Engine, read: int) -> dict[str, dict[str, float]]:
    taken = []
    for _ in range(_HEALTHY_ROUNDS):
        taken.append(await timed(engine.changed))
        assert engine.read == read, f"{engine.read} nodes were read, not {read}"
    assert statistics.median(wall for wall, _ in taken) > 0
    return {"client CPU": spread(cpu for _, cpu in taken), "wall": spread(wall for wall, _ in taken)}
