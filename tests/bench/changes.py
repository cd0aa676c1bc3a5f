"""How soon a change of an agent's report is in GPUNode.status, at ten changes a second over 1,000 nodes.

A quarter of the changes makes a node Unhealthy (a PATCH and two Events), a quarter makes one well again (a PATCH and an
Event), half of them change what an agent can do and leave health alone (a PATCH): 17.5 writes a second, within the
bucket of 20. Each node changes once.
"""

import asyncio
import time
from collections.abc import Callable

from tests.bench.context import Context, progress
from tests.bench.result import Result, spread
from tests.bench.stage import Stage, stage
from tests.bench.watch import Seen, Status

RATE = 10
_SETTLE_SECONDS = 15
"""Longer than the ten seconds that a GPUNode rests after a write."""
_WORSE = "UncorrectableErrors"
_ORDER = ("worse", "other", "better", "other")
_KINDS: dict[str, tuple[str | None, Callable[[Status], bool]]] = {
    "worse": ("ecc", lambda status: _WORSE in status.reasons),
    "better": (None, lambda status: status.health == "Healthy"),
    "other": ("no-kernel-log", lambda status: "NoKernelLog" in status.gaps),
}


def run(context: Context) -> list[Result]:
    """Measure."""
    return asyncio.run(_run(context.pick(1000, 100), context.pick(60, 6)))


async def _run(nodes: int, seconds: int) -> list[Result]:
    async with stage(nodes) as made:
        made.start()
        await made.filled(seconds=300)
        names = made.fleet.names[: RATE * seconds]
        kinds = {name: _ORDER[number % 4] for number, name in enumerate(names)}
        sick = [name for name, kind in kinds.items() if kind == "better"]
        progress(f"{len(sick)} nodes fall ill beforehand")
        await asyncio.to_thread(made.fleet.set, dict.fromkeys(sick, "hot"))
        await made.quiet(seconds=300)
        await asyncio.sleep(_SETTLE_SECONDS)
        return await _change(made, kinds)


async def _change(made: Stage, kinds: dict[str, str]) -> list[Result]:
    made.watcher.log.clear()
    made.watcher.fleet.clear()
    before = await made.writes()
    at: dict[str, float] = {}
    began = time.monotonic()
    for number, (name, kind) in enumerate(kinds.items()):
        await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
        at[name] = await asyncio.to_thread(made.fleet.set, {name: _KINDS[kind][0]})
    progress(f"{len(kinds)} changes in {time.monotonic() - began:.0f} s")

    def shown() -> bool:
        return all(_KINDS[kind][1](made.watcher.seen[name].status) for name, kind in kinds.items())

    worse = [name for name, kind in kinds.items() if kind == "worse"]
    await made.until(shown, seconds=120, what="every change is in GPUNode.status")
    await made.until(
        lambda: _counted(made.watcher.fleet[-1:], _WORSE) >= len(worse),
        seconds=60,
        what="every worsening is in GPUDiagnostic.status",
    )
    await asyncio.sleep(1)
    writes = await made.writes()
    writes.subtract(before)
    taken = {name: _first(made.watcher.log, name, _KINDS[kind][1]) - at[name] for name, kind in kinds.items()}
    by_kind = {kind: spread(taken[name] for name, mine in kinds.items() if mine == kind) for kind in _KINDS}
    all_taken = spread(taken.values())
    verdicts = spread(_verdicts(made.watcher.fleet, [at[name] for name in worse]))
    name = f"report change → GPUNode.status, {RATE}/s over {len(made.fleet.members)} nodes: "
    details = {"by kind": by_kind, "writes": dict(writes)}
    return [
        Result(name=f"{name}p50", measured=all_taken["median"], unit="s", target=0.5, details=details),
        Result(name=f"{name}p99", measured=all_taken["p99"], unit="s", target=2.5, details=all_taken),
        Result(
            name="worsening report change → GPUDiagnostic.status: p99",
            measured=verdicts["p99"],
            unit="s",
            target=5,
            details=verdicts,
        ),
    ]


def _first(log: list[Seen], name: str, wanted: Callable[[Status], bool]) -> float:
    return next(seen.at for seen in log if seen.name == name and wanted(seen.status))


def _counted(seen: list[Seen], reason: str) -> int:
    """How many findings of that reason the newest status of a GPUDiagnostic counts."""
    return sum(group.count for each in seen for group in each.status.findings if group.reason == reason)


def _verdicts(fleet: list[Seen], at: list[float]) -> list[float]:
    """For the n-th worsening: until the status counted n of them."""
    taken, index = [], 0
    for number, moment in enumerate(at, start=1):
        while _counted(fleet[index : index + 1], _WORSE) < number:
            index += 1
        taken.append(max(0.0, fleet[index].at - moment))
    return taken
