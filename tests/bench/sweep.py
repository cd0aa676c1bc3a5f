"""One sweep over all agents: the operator's whole path, against a bare client that fetches and parses the same bytes.

Both on the same kind of loop, with the same parallelism and kept connections, in turns.
"""

import asyncio
import statistics

import uvloop
from tests.bench import go
from tests.bench.canned import served
from tests.bench.context import Context, progress
from tests.bench.engine import Bare, Engine, staged, timed
from tests.bench.result import Result, spread

from gpudiag_operator.collect.resources import calm_garbage_collector, raise_open_files
from gpudiag_operator.domain import Target

_TARGETS = {"changed": 2.0, "unchanged": 1.5}
_SAYS = {"changed": "every body different", "unchanged": "nothing changed (304)"}


def run(context: Context) -> list[Result]:
    """Measure."""
    raise_open_files()
    nodes, rounds = context.pick(5000, 200), context.pick(11, 5)
    calm_garbage_collector()
    with served(nodes) as targets, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        results = runner.run(_compare(targets, rounds))
        return [*results, *_go(targets, rounds)]


async def _compare(targets: list[Target], rounds: int) -> list[Result]:
    engine, bare = Engine(targets), Bare(targets)
    results = []
    for sweep in (bare.changed, engine.changed):  # connections, caches, and the first fill
        await sweep()
        await sweep()
    for kind in ("changed", "unchanged"):
        walls: dict[str, list[float]] = {"bare": [], "operator": []}
        cpus: dict[str, list[float]] = {"bare": [], "operator": []}
        for number in range(rounds):
            progress(f"{kind}: round {number + 1} of {rounds}")
            for name, client in (("bare", bare), ("operator", engine)):
                wall, cpu = await timed(getattr(client, kind))
                walls[name].append(wall)
                cpus[name].append(cpu)
        assert engine.read == len(targets), f"{engine.read} of {len(targets)} nodes were read"
        stages = await _stages(engine) if kind == "changed" else {}
        results += [
            _ratio(what, kind, values, len(targets), stages) for what, values in (("client CPU", cpus), ("wall", walls))
        ]
    await engine.close()
    await bare.close()
    return results


async def _stages(engine: Engine) -> dict[str, float]:
    """CPU seconds of one sweep by stage."""
    with staged(engine) as spent:
        _, whole = await timed(engine.changed)
    stages = {"fetch": whole - sum(spent.values()), **spent}
    progress("CPU by stage: " + ", ".join(f"{stage} {1000 * cpu:.0f} ms" for stage, cpu in stages.items()))
    return stages


def _ratio(what: str, kind: str, values: dict[str, list[float]], nodes: int, stages: dict[str, float]) -> Result:
    pairs = [ours / theirs for ours, theirs in zip(values["operator"], values["bare"], strict=True)]
    ours, theirs = (spread(values[name])["median"] for name in ("operator", "bare"))
    return Result(
        name=f"sweep of {nodes}, {_SAYS[kind]}: {what}",
        measured=statistics.median(pairs),
        unit="x",
        target=_TARGETS[kind],
        reference=f"bare aiohttp {1000 * theirs:.0f} ms, ours {1000 * ours:.0f} ms",
        gates=True,
        details={
            "seconds": {name: spread(each) for name, each in values.items()},
            "ratios": spread(pairs),
            "cpu seconds by stage": stages,
        },
    )


def _go(targets: list[Target], rounds: int) -> list[Result]:
    measured = go.sweep(targets, workers=10, rounds=rounds)
    if measured is None:
        progress("no Go toolchain on the PATH: its client is not reported")
        return []
    return [
        Result(
            name=f"sweep of {len(targets)}, Go client with 10 workers, {_SAYS[kind]}: {what}",
            measured=1000 * statistics.median(measured[kind][what]),
            unit="ms",
            details=spread(measured[kind][what]),
        )
        for kind in ("changed", "unchanged")
        for what in ("wall", "cpu")
    ]
