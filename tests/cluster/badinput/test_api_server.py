"""An API server that refuses, forgets, delays and goes away: the same state in the end, in the same process."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import pytest
from tests.cluster.badinput.proxy import CYCLES, FaultyProxy
from tests.cluster.badinput.world import World, t4

if TYPE_CHECKING:
    from tests.cluster.badinput.conftest import MakeWorld
    from tests.cluster.operator.conftest import OperatorProcess

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

HEALTHY = ("Healthy", "AllHealthy")
LOST = ("Unhealthy", "GPULost")
NAMES = tuple(f"api-{number}" for number in range(1, 13))
WORTH_MEETING = {f"{kind} {what}" for kind in ("PATCH", "POST", "GET", "WATCH") for what in CYCLES[kind] if what}


class Scene(NamedTuple):
    world: World
    proxy: FaultyProxy
    operator: "OperatorProcess"


@pytest.fixture(scope="module")
def scene(make_world: "MakeWorld") -> Iterator[Scene]:
    """The operator behind the proxy, whose bad day begins before the operator's first request."""
    world = make_world(t4(*NAMES))
    proxy = FaultyProxy(world.rig.plane, world.rig.folder)
    world.do(proxy.open())
    proxy.faulty = True
    world.rig.diagnostic("fleet", interval="5s")
    operator = world.start("--kubeconfig", str(proxy.kubeconfig), ready=False)
    yield Scene(world, proxy, operator)
    operator.stop()
    world.do(proxy.end())


def test_it_works_through_every_fault_and_ends_in_the_right_state(scene: Scene) -> None:
    world, proxy, operator = scene
    world.until_said(dict.fromkeys(NAMES, HEALTHY), seconds=60)
    world.until_verdict("fleet", "Healthy", seconds=30)
    world.fault("api-1", "xid-79")
    world.fault("api-2", "wrong-version")
    world.until_said({"api-1": LOST, "api-2": ("Unknown", "AgentVersionSkew")}, seconds=30)
    world.until_verdict("fleet", "Unhealthy", seconds=30)
    world.remove_node("api-3")
    world.rig.diagnostic("check", mode="Once", deadline="15s")
    status = world.until_complete("check", seconds=45)
    assert {row["name"] for row in status["nodes"]} >= {"api-1", "api-2"}

    world.until(
        lambda: WORTH_MEETING - set(proxy.delivered),
        lambda left: not left,
        what=f"every fault is met: {proxy.delivered}",
    )
    world.until(
        lambda: world.diagnostic("fleet")["summary"]["nodes"],
        lambda nodes: (nodes["targeted"], nodes["reporting"]) == (len(NAMES) - 1, len(NAMES) - 2),
        seconds=40,
        what="the fleet without the node that is gone",
    )
    assert operator.process.poll() is None
    assert proxy.impatient == []


def test_what_is_told_is_told_once_although_answers_were_lost(scene: Scene) -> None:
    told = Counter(event["reason"] for event in scene.world.events("api-1"))
    assert told == {"GPUUnhealthy": 1, "GPULost": 1, "XID79": 1}
    everything = scene.world.get("/api/v1/events", fieldSelector="source=gpudiag-operator")["items"]
    ours = [event for event in everything if event["involvedObject"]["name"] in ("fleet", "check", *NAMES)]
    assert [(event["metadata"]["name"], event["reason"], event["count"]) for event in ours if event["count"] > 1] == []


def test_what_changed_while_it_was_cut_off_is_found_afterwards(scene: Scene) -> None:
    world, proxy, operator = scene
    proxy.faulty = False
    world.until_said({"api-5": HEALTHY, "api-6": HEALTHY})
    world.rig.diagnostic("short-lived")
    world.until_verdict("short-lived", "Unhealthy")
    world.do(proxy.close())
    world.heal("api-1")
    world.fault("api-5", "ecc")
    world.remove_node("api-6")
    world.rig.kubectl("delete", "gpud", "short-lived", "-n", world.rig.namespace)
    world.rig.diagnostic("late", target={"nodeNames": ["api-7"]})
    world.until(
        lambda: operator.metric('gpudiag_node_health{node="api-5"}'), lambda health: health == 3, what="it sees api-5"
    )
    assert operator.get("/healthz")[0] == 200
    proxy.forget()
    world.do(proxy.open())
    world.until_said({"api-1": HEALTHY, "api-5": ("Unhealthy", "UncorrectableErrors"), "api-7": HEALTHY}, seconds=40)
    world.until_verdict("late", "Healthy", seconds=40)
    world.until(
        lambda: world.diagnostic("fleet")["summary"]["nodes"]["targeted"],
        lambda targeted: targeted == len(NAMES) - 2,
        seconds=40,
        what="the node that went meanwhile is out of the fleet",
    )
    assert operator.process.poll() is None


def test_a_fresh_process_finds_nothing_to_change(scene: Scene) -> None:
    world, _, operator = scene
    world.until_quiet(operator)
    operator.stop()
    before = world.versions("fleet", "late", "check")
    fresh = world.start()
    world.until(
        lambda: fresh.metric('gpudiag_fleet_nodes{health="Healthy"}'),
        lambda nodes: nodes == len(NAMES) - 4,
        what="it has read all",
    )
    world.until_quiet(fresh)
    world.rig.steadily(lambda: fresh.metric("gpudiag_operator_writes_total") == 0, 2)
    assert world.versions("fleet", "late", "check") == before
