"""SIGKILL at any moment, and again: the next process ends in the same state, and nothing is told twice."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from tests.cluster.badinput.world import World, t4

if TYPE_CHECKING:
    from tests.cluster.badinput.conftest import MakeWorld
    from tests.cluster.operator.conftest import OperatorProcess

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

HEALTHY = ("Healthy", "AllHealthy")
LOST = ("Unhealthy", "GPULost")
NAMES = tuple(f"kill-{number:02}" for number in range(1, 25))
# Slow to fill, so that it can be killed in the middle.
FLAGS = ("--first-fill-rate", "20")


@pytest.fixture(scope="module")
def world(make_world: "MakeWorld") -> World:
    return make_world(t4(*NAMES))


def running(world: World) -> "OperatorProcess":
    """The operator; started where it does not run."""
    last = world.rig.operators[-1] if world.rig.operators else None
    return last if last is not None and last.process.poll() is None else world.start(*FLAGS)


def told(world: World, node: str) -> Counter[str]:
    """How often each Event about a node counts, by reason; two Events of one reason are a failure."""
    events = world.events(node)
    found = Counter({event["reason"]: event["count"] for event in events})
    assert len(found) == len(events), f"told twice: {[(e['metadata']['name'], e['message']) for e in events]}"
    return found


def test_killed_while_it_fills_a_new_fleet(world: World) -> None:
    world.fault("kill-01", "xid-79")
    world.fault("kill-02", "wrong-version")
    world.rig.diagnostic("fleet", interval="5s")
    for _ in range(2):
        written = len(world.said())
        first = running(world)
        seen = world.until(world.said, lambda said, n=written: len(said) > n, what="some are written")  # type: ignore[misc]
        first.kill()
        assert len(seen) < len(NAMES), "it filled the fleet too fast to be killed in the middle"
    second = running(world)
    world.until_said({"kill-01": LOST, "kill-02": ("Unknown", "AgentVersionSkew"), **dict.fromkeys(NAMES[2:], HEALTHY)})
    status = world.until_verdict("fleet", "Unhealthy")
    assert status["summary"]["nodes"]["targeted"] == len(NAMES)
    world.until_quiet(second)
    assert told(world, "kill-01").keys() == {"GPUUnhealthy", "GPULost", "XID79"}
    assert told(world, "kill-03") == {}


def test_killed_idle_it_finds_the_same_and_writes_nothing(world: World) -> None:
    first = running(world)
    world.until_verdict("fleet", "Unhealthy")
    world.until_quiet(first)
    before = world.versions("fleet"), world.statuses("fleet"), [told(world, name) for name in NAMES[:3]]
    first.kill()
    second = running(world)
    world.until(
        lambda: second.metric('gpudiag_fleet_nodes{health="Healthy"}'),
        lambda nodes: nodes == len(NAMES) - 2,
        what="it has read all",
    )
    world.until_quiet(second)
    world.rig.steadily(lambda: second.metric("gpudiag_operator_writes_total") == 0, 2)
    assert (world.versions("fleet"), world.statuses("fleet"), [told(world, name) for name in NAMES[:3]]) == before


def _asked(world: World, node: str) -> Callable[[], bool]:
    before = world.fleet[node].requests
    return lambda: world.fleet[node].requests > before


MOMENTS: dict[str, Callable[[World, str], Callable[[], bool]]] = {
    "at once": lambda _, __: lambda: True,
    "when the agent has told": _asked,
    "when the first Event is there": lambda world, node: lambda: bool(world.events(node)),
    "when the status is there": lambda world, node: lambda: world.said().get(node) == LOST,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_just_after_a_fault(world: World, moment: str) -> None:
    node = NAMES[10 + list(MOMENTS).index(moment)]
    first = running(world)
    world.until_said({node: HEALTHY})
    world.until_quiet(first)
    reached = MOMENTS[moment](world, node)
    world.fault(node, "xid-79")
    world.until(reached, bool, what=moment)
    first.kill()
    second = running(world)
    world.until_said({node: LOST})
    world.until_quiet(second)
    counts = told(world, node)
    assert counts.keys() == {"GPUUnhealthy", "GPULost", "XID79"}
    # Told before the status was: then, and only then, the next process meets its own Event and counts it once more.
    assert set(counts.values()) <= ({1} if moment in ("at once", "when the status is there") else {1, 2})
    world.until(
        lambda: world.diagnostic("fleet")["summary"]["gpus"],
        lambda gpus: gpus["unhealthy"] == 2 + list(MOMENTS).index(moment),
        what="the fleet counts it",
    )
