"""One operator, 5,000 nodes, a real API server: first fill, restart, hours in which nothing happens, a bad minute.

The rows share a fleet, in this order, since each leaves the state that the next one starts from.
"""

import asyncio
import time

from tests.bench.context import Context, progress
from tests.bench.opens import ActiveOpens
from tests.bench.result import Result
from tests.bench.stage import Stage, failures, show, stage

_BUCKET_PER_SECOND = 20
_BUCKET_BURST = 10
_FLIP_SECONDS = 60


def run(context: Context) -> list[Result]:
    """Measure."""
    return asyncio.run(_run(context))


async def _run(context: Context) -> list[Result]:
    results = []
    async with stage(context.pick(5000, 200)) as made:
        results += await _install(made)
        if "restart" in context.rows:
            results += await restart(made)
        if "steady" in context.rows:
            results += await _steady(made, context.pick(600, 60))
        if "flip" in context.rows:
            results += await _flip(made)
    return results


async def _install(made: Stage) -> list[Result]:
    """No GPUNode exists yet."""
    nodes = len(made.fleet.members)
    operator = made.start()
    said = set[str]()
    filling = asyncio.create_task(made.filled(seconds=600))
    while not filling.done():
        await asyncio.sleep(0.5)
        if made.watcher.fleet:
            said.add(made.watcher.fleet[-1].status.says("Ready"))
    await filling
    taken = time.monotonic() - operator.started
    counted = sum("nodes written" in text for text in said) > 1
    progress(f"all {nodes} written after {taken:.1f} s; the status said meanwhile: {show(sorted(said)[:3])}")
    return [
        Result(
            name=f"first install, {nodes} nodes: all GPUNodes written",
            measured=taken,
            unit="s",
            target=150,
            details={"peak MB": operator.memory("VmHWM"), "cpu seconds": operator.cpu(), "said": sorted(said)[:5]},
        ),
        Result(
            name=f"first install, {nodes} nodes: status says n of m written",
            measured=float(not counted),
            unit="missing",
            target=0,
            gates=True,
        ),
    ]


async def restart(made: Stage) -> list[Result]:
    """GPUNodes are there; the operator starts anew, and is asked by a GPUDiagnostic that has no status yet."""
    nodes = len(made.fleet.members)
    if made.operator is not None:
        await made.quiet(seconds=120)
        made.operator.stop()
    await made.ask_fleet()
    made.watcher.fleet.clear()
    async with ActiveOpens() as opens:
        operator = made.start()
        await made.until(
            lambda: any(seen.status.condition("Ready") == "True" for seen in made.watcher.fleet),
            seconds=180,
            what="GPUDiagnostic/fleet is Ready",
        )
        taken, cpu = time.monotonic() - operator.started, operator.cpu()
        await asyncio.sleep(5)
    peak = opens.most_in_a_second()
    progress(f"Ready after {taken:.1f} s, {cpu:.1f} CPU s, at most {peak:.0f} connections/s")
    name = f"restart, {nodes} nodes: "
    return [
        Result(
            name=f"{name}GPUDiagnostic/fleet Ready",
            measured=taken,
            unit="s",
            target=20,
            details={"cpu seconds": cpu},
        ),
        Result(name=f"{name}CPU until then", measured=cpu, unit="s"),
        Result(name=f"{name}peak memory", measured=operator.memory("VmHWM"), unit="MB", target=350, gates=True),
        Result(name=f"{name}new connections, most in a second", measured=peak, unit="/s", target=500, gates=True),
    ]


async def _steady(made: Stage, seconds: int) -> list[Result]:
    nodes, operator = len(made.fleet.members), made.operator
    assert operator is not None
    await made.quiet(seconds=180)
    before, cpu = await made.writes(), operator.cpu()
    connections = await asyncio.to_thread(made.fleet.connections)
    began = time.monotonic()
    while (left := began + seconds - time.monotonic()) > 0:
        progress(f"at rest, {left:.0f} s left, {operator.memory('VmRSS'):.0f} MB")
        await asyncio.sleep(min(60, left))
    lasted = time.monotonic() - began
    writes = await made.writes()
    writes.subtract(before)
    opened = await asyncio.to_thread(made.fleet.connections) - connections
    failed = {key: value for key, value in (await failures(operator)).items() if value}
    progress(f"{opened} connections were opened; calls that failed since the start: {show(failed)}")
    name = f"steady state, {nodes} nodes, {seconds} s: "
    return [
        Result(name=f"{name}writes of gpunodes", measured=writes["gpunodes"], unit="", target=0, gates=True),
        Result(name=f"{name}writes of events", measured=writes["events"], unit="", target=0, gates=True),
        Result(
            name=f"{name}writes of gpudiagnostics",
            measured=writes["gpudiagnostics"],
            unit="",
            target=max(1, seconds // 300),
            gates=True,
        ),
        Result(name=f"{name}CPU", measured=(operator.cpu() - cpu) / lasted, unit="cores", target=0.25),
        Result(name=f"{name}memory", measured=operator.memory("VmRSS"), unit="MB", target=300, gates=True),
        Result(
            name=f"{name}new connections per node and hour",
            measured=3600 * opened / lasted / nodes,
            unit="",
            target=1,
            gates=True,
            details={"opened": opened, "failed calls": failed},
        ),
    ]


async def _flip(made: Stage) -> list[Result]:
    """A tenth of the fleet within a second: one in five Unhealthy, the others Degraded, mixed."""
    names = made.fleet.names[:: max(1, len(made.fleet.names) // 500)][:500]
    wanted = {name: "Unhealthy" if number % 5 == 0 else "Degraded" for number, name in enumerate(names)}
    faults = {"Unhealthy": "ecc", "Degraded": "hot"}
    await made.quiet(seconds=180)
    made.watcher.log.clear()
    before, began = await made.writes(), time.monotonic()
    done = await asyncio.to_thread(made.fleet.set, {name: faults[health] for name, health in wanted.items()})

    def converged() -> bool:
        return all(made.watcher.seen[name].status.health == health for name, health in wanted.items())

    await made.until(converged, seconds=240, what="every flipped node shows its health")
    taken = time.monotonic() - began
    writes = await made.writes()
    writes.subtract(before)
    count = writes["gpunodes"] + writes["events"]
    order = [seen.status.health for seen in made.watcher.log if seen.name in wanted]
    worst = max(index for index, health in enumerate(order) if health == "Unhealthy")
    progress(f"{len(wanted)} nodes flipped within {done - began:.2f} s, shown after {taken:.1f} s, {count} writes")
    allowed = _BUCKET_BURST + _BUCKET_PER_SECOND * taken
    name = f"{len(wanted)} nodes flip within a second: "
    return [
        Result(name=f"{name}converged", measured=taken, unit="s", target=_FLIP_SECONDS, details=dict(writes)),
        Result(
            name=f"{name}writes, as a share of the bucket",
            measured=count / allowed,
            unit="",
            target=1.05,
            reference=f"{count} writes, {allowed:.0f} allowed",
            gates=True,
        ),
        Result(
            name=f"{name}others written before the last of the worst",
            measured=order[:worst].count("Degraded"),
            unit="nodes",
            # Those that were written while the worst were still being reported.
            target=2 * _BUCKET_PER_SECOND,
            reference=f"of {list(wanted.values()).count('Degraded')}; any order would give nearly all",
            gates=True,
        ),
    ]
