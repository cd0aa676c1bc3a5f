"""What happens when the leader goes, second by second: killed, and stopped.

A node falls ill in the moment the leader goes, so that there is something to write. ``python -m tests.bench.failover``
writes the timelines to ``docs/failover.md``.
"""

import asyncio
import json
import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench.context import Context, progress
from tests.bench.result import Result
from tests.bench.stage import NAMESPACE, Operator, Stage, stage

from gpudiag_api.times import from_rfc3339

_LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/gpudiag-operator"
_PAGE = Path(__file__).resolve().parents[2] / "docs" / "failover.md"
_NODES = 1000
_KILLED, _STOPPED = "SIGKILL to the leader", "SIGTERM to the leader"
_LIMITS = {_KILLED: 20.0, _STOPPED: 2.0}
_HEADS = {_KILLED: "The leader is killed", _STOPPED: "The leader is stopped"}

Timeline = list[tuple[float, str]]
"""(seconds since the leader was told to go, or since it was killed, what happened)."""


def run(context: Context) -> list[Result]:
    """Measure."""
    timelines = asyncio.run(_run(context.pick(_NODES, 50)))
    return [
        Result(
            name=f"{ended}: a standby holds its Lease",
            measured=next(at for at, what in timeline if what.startswith("The standby holds")),
            unit="s",
            target=_LIMITS[ended],
            gates=True,
            details={"timeline": timeline},
        )
        for ended, timeline in timelines.items()
    ]


async def _run(nodes: int) -> dict[str, Timeline]:
    async with stage(nodes) as made:
        leader = made.start()
        await made.filled(seconds=300)
        await made.quiet(seconds=120)
        found = {}
        for ended, sick in ((_KILLED, made.fleet.names[0]), (_STOPPED, made.fleet.names[1])):
            standby = Operator(made.plane, made.folder, name="standby " + ended)
            made.operator = standby
            await made.until(partial(_stands_by, standby), seconds=30, what="a standby stands by")
            await asyncio.sleep(7)  # as long as nothing happens
            found[ended] = await _go(made, leader, standby, ended, sick)
            progress(f"{ended}: " + "; ".join(f"{at:+.1f} s {what}" for at, what in found[ended]))
            leader.stop()
            leader = standby
    return found


@dataclass
class _Moments:
    """Events on one scale."""

    began: float
    """Unix seconds."""

    def __post_init__(self) -> None:
        self.found: Timeline = []

    def note(self, at: float, what: str) -> None:
        """``at``: Unix seconds."""
        self.found.append((round(at - self.began, 2), what))


async def _go(made: Stage, leader: Operator, standby: Operator, ended: str, sick: str) -> Timeline:
    made.watcher.log.clear()
    made.watcher.fleet.clear()
    lease = (await made.api.get(_LEASE))["spec"]
    moments = _Moments(time.time())
    leader.process.send_signal(signal.SIGKILL if ended == _KILLED else signal.SIGTERM)
    await asyncio.to_thread(made.fleet.set, {sick: "ecc"})
    gone = asyncio.create_task(asyncio.to_thread(leader.process.wait, 60))
    moments.note(moments.began, f"{ended}; in the same moment a GPU of one node falls ill.")
    if ended == _KILLED:
        renewed = from_rfc3339(lease["renewTime"])
        moments.note(renewed, "The leader renewed its Lease for the last time.")
        moments.note(renewed + lease["leaseDurationSeconds"], "By the Lease's own words it may be taken from now on.")
    await made.until(
        lambda: any(one.name == sick and one.status.health == "Unhealthy" for one in made.watcher.log),
        seconds=60,
        what="the GPUNode of the sick node",
    )
    fallen = list(_LIMITS).index(ended) + 1

    def told() -> bool:
        return any(sum(group.count for group in one.status.findings) == fallen for one in made.watcher.fleet)

    await made.until(told, seconds=60, what="the finding in GPUDiagnostic/fleet")
    await gone
    _tell(moments, made, leader, standby, ended)
    return sorted(moments.found)


def _tell(moments: _Moments, made: Stage, leader: Operator, standby: Operator, ended: str) -> None:
    """What logs and watches saw."""
    if ended == _STOPPED:
        moments.note(leader.said("gave up Lease"), "The leader has stopped writing and gives up its Lease.")
        moments.note(leader.said("stopped", exactly=True), "The old leader has ended.")
    moments.note(standby.said("holding Lease"), "The standby holds the Lease; it may write, and begins to read agents.")
    moments.note(standby.said("nodes are known; judging"), f"All {len(made.fleet.names)} agents have answered it.")
    offset = time.time() - time.monotonic()
    first = made.watcher.log[0]
    moments.note(first.at + offset, "The first write: the GPUNode of the sick node says Unhealthy.")
    moments.note(made.watcher.fleet[-1].at + offset, "GPUDiagnostic/fleet tells of it.")


def _stands_by(operator: Operator) -> bool:
    return operator.said("standing by") > 0


def _page(results: list[Result]) -> str:
    lines = [
        "# A failover, second by second",
        "",
        "Made by `python -m tests.bench.failover` (two replicas with the settings they ship with, a real API server,",
        f"{_NODES:,} simulated nodes): everything below was seen by a watch of the API server or said in a log.",
        "Lease 15 s, renewed every 2 s; a leader that cannot renew stops writing after 10 s. A standby waits 15 s from",
        "when *it* saw the last renewal, so it may be some tenths later than the Lease says, never earlier.",
        "While nobody leads nothing is lost: agents keep what they have seen, and the new leader reads them all.",
    ]
    for result in results:
        ended = result.name.partition(":")[0]
        lines += ["", f"## {_HEADS[ended]}", "", "| Seconds | |", "|---:|---|"]
        lines += [f"| {at:+.1f} | {what} |" for at, what in result.details["timeline"]]
        lines += ["", f"Taken over after {result.measured:.1f} s; the limit is {result.target:g} s."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    quick = "--quick" in sys.argv
    measured = run(Context(quick=quick, rows=frozenset({"failover"})))
    print(json.dumps([result.details for result in measured], indent=1))
    if not quick:
        _PAGE.write_text(_page(measured))
    sys.exit(0 if all(result.met for result in measured) else 1)
