"""Every way in which an agent can misbehave, all at once: one reason each, and every other node right."""

from typing import TYPE_CHECKING, NamedTuple

import pytest
from tests.cluster.badinput.world import World, memory, t4

if TYPE_CHECKING:
    from tests.cluster.badinput.conftest import MakeWorld
    from tests.cluster.operator.conftest import OperatorProcess

pytestmark = pytest.mark.cluster

REASONS = {
    "refuse": "ConnectionRefused",
    "hang": "Timeout",
    "hang-body": "BodyTimeout",
    "close-early": "ConnectionClosed",
    "disconnect": "ConnectionClosed",
    "error-500": "ServerError",
    "unauthorized": "Unauthorized",
    "html": "NotJSON",
    "huge": "ResponseTooLarge",
    "gzip-bomb": "ResponseTooLarge",
    "wrong-version": "AgentVersionSkew",
    "wrong-node": "IdentityMismatch",
    "duplicate-gpu": "BadResponse",
    "not-a-report": "BadResponse",
    "stale": "StaleSample",
}
"""What the operator makes of each misbehaviour of the simulator."""
BAD = {f"bad-{fault}": ("Unknown", reason) for fault, reason in REASONS.items()}
HEALTHY = ("Healthy", "AllHealthy")
GOOD = dict.fromkeys(("good-1", "good-2", "good-3"), HEALTHY)
SICK = {"sick": ("Unhealthy", "GPULost")}
SLOW = {f"bad-{fault}" for fault in ("hang", "stale")}
"""Silence inside a long poll shows only when the poll's time is up: these are so before the operator first asks."""
MOST_GROWTH = 40 * 1024
"""KiB. One body of 100 MB that was kept would show, and so would ten of 1 MB per agent."""


class Scene(NamedTuple):
    world: World
    operator: "OperatorProcess"
    memory: int
    """VmRSS in KiB, when all agents were well."""


@pytest.fixture(scope="module")
def scene(make_world: "MakeWorld") -> Scene:
    """Most are well at first; then each agent misbehaves in its way. No breaker opens: every read meets the fault."""
    world = make_world(t4(*BAD, *GOOD, *SICK))
    for name in SLOW:
        world.fault(name, name.removeprefix("bad-"))
    operator = world.start("--breaker-failures", "1000", "--breaker-min-calls", "10000")
    world.until_said(dict.fromkeys((BAD.keys() | GOOD.keys() | SICK.keys()) - SLOW, HEALTHY))
    world.until_quiet(operator)
    before = memory(operator.process.pid, "VmRSS")
    for name in BAD.keys() - SLOW:
        world.fault(name, name.removeprefix("bad-"))
    world.fault("sick", "xid-79")
    return Scene(world, operator, before)


def test_each_is_unknown_for_its_own_reason_and_the_others_are_right(scene: Scene) -> None:
    scene.world.until_said({**BAD, **GOOD, **SICK})
    for name, item in scene.world.gpunodes().items():
        conditions = {each["type"]: (each["status"], each["reason"]) for each in item["status"]["conditions"]}
        expected = ("False", BAD[name][1]) if name in BAD else ("True", "Reachable")
        assert conditions["AgentReachable"] == expected, name
        assert conditions["Ready"][0] == ("False" if name in BAD else "True"), name


@pytest.fixture(scope="module")
def everything(scene: Scene) -> str:
    """A run over all, under way while other tests go on: its name. Those that hang take it 10 s."""
    scene.world.until_said(BAD)
    scene.world.rig.diagnostic("all", mode="Once", deadline="25s")
    return "all"


def test_the_verdict_is_about_what_was_targeted(scene: Scene, everything: str) -> None:
    world = scene.world
    assert everything == "all"
    world.rig.diagnostic("some", mode="Once", deadline="20s", target={"nodeNames": [*GOOD, "bad-html"]})
    world.rig.diagnostic("good", mode="Once", deadline="20s", target={"nodeNames": list(GOOD)})
    good = world.until_complete("good", seconds=10)
    assert (good["verdict"], good["summary"]["nodes"]["reporting"]) == ("Healthy", 3)
    mixed = world.until_complete("some", seconds=10)
    assert (mixed["verdict"], mixed["summary"]["nodes"]["reporting"]) == ("Unknown", 3)


def test_no_memory_growth_however_often_they_are_asked(scene: Scene) -> None:
    world = scene.world
    loud = [world.fleet[f"bad-{fault}"] for fault in ("huge", "gzip-bomb", "html", "not-a-report")]
    for number in range(6):
        asked = [node.requests for node in loud]
        world.rig.diagnostic("loud", mode="Once", trigger=str(number), target={"nodeNames": [n.name for n in loud]})
        world.until(
            lambda: world.diagnostic("loud").get("lastHandledTrigger"),
            lambda handled, number=number: handled == str(number),  # type: ignore[misc]
            what=f"run {number} of all that is too large",
        )
        assert all(node.requests > before for node, before in zip(loud, asked, strict=True))
    pid = scene.operator.process.pid
    assert memory(pid, "VmRSS") - scene.memory < MOST_GROWTH
    assert memory(pid, "VmHWM") - scene.memory < MOST_GROWTH


def test_once_over_all_ends_within_its_deadline_and_lists_each(scene: Scene, everything: str) -> None:
    world = scene.world
    status = world.until_complete(everything, seconds=30)
    assert world.condition(everything, "Complete")["reason"] == "Succeeded"
    rows = {row["name"]: (row["health"], row["reason"]) for row in status["nodes"]}
    assert {name: rows.get(name) for name in (*BAD, *SICK)} == {**BAD, **SICK}
    assert {rows.get(name, HEALTHY) for name in GOOD} == {HEALTHY}
    nodes = status["summary"]["nodes"]
    assert (nodes["targeted"], nodes["reporting"]) == (len(BAD) + 4, 4)
    assert nodes["failed"] + nodes["skipped"] == len(BAD)
    assert status["verdict"] == "Unhealthy"


@pytest.mark.slow
def test_all_are_well_again_in_the_same_process(scene: Scene) -> None:
    world = scene.world
    world.until_said(BAD)
    world.heal(*BAD, *SICK)
    world.until_said(dict.fromkeys((*BAD, *GOOD, *SICK), HEALTHY), seconds=60)
    assert scene.operator.process.poll() is None
    assert not [line for line in scene.operator.records() if line["level"] in ("error", "critical")]
