"""An API server that is really away, for any length of time: survived in the same process, ending in the same state."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cluster.badinput.world import World, t4
from tests.cluster.operator.conftest import LONG_LEASES, Rig

from gpudiag_cli.controlplane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

HEALTHY = ("Healthy", "AllHealthy")
NAMES = tuple(f"out-{number}" for number in range(1, 6))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """On a control plane of its own, which the test takes away."""
    with ControlPlane.start(tmp_path / "plane", controller_manager=False) as plane:
        rig = Rig(plane, plane.client(), tmp_path)
        rig.install()
        made = World(rig, t4(*NAMES))
        try:
            yield made
        finally:
            made.close()


OUTAGES: dict[str, tuple[Callable[[ControlPlane], None], Callable[[ControlPlane], None]]] = {
    "refuses": (ControlPlane.stop_apiserver, ControlPlane.start_apiserver),
    "hangs": (ControlPlane.pause_apiserver, ControlPlane.resume_apiserver),
}


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        pytest.param("refuses", 10, id="refuses-10s"),
        pytest.param("refuses", 90, id="refuses-90s"),
        pytest.param("hangs", 90, id="hangs-90s"),
    ],
)
def test_it_survives_and_ends_in_the_same_state(world: World, kind: str, seconds: float) -> None:
    begin, end = OUTAGES[kind]
    world.fault("out-1", "xid-79")
    world.fault("out-2", "wrong-version")
    world.rig.diagnostic("fleet", interval="5s")
    operator = world.start(*LONG_LEASES)
    world.until_said({"out-1": ("Unhealthy", "GPULost"), "out-2": ("Unknown", "AgentVersionSkew"), "out-3": HEALTHY})
    world.until_verdict("fleet", "Unhealthy")

    begin(world.rig.plane)
    began = time.monotonic()
    world.heal("out-1")
    world.fault("out-3", "ecc")
    world.fault("out-4", "html")
    for node, health in {"out-1": 0, "out-3": 3, "out-4": 2}.items():
        world.until(
            lambda node=node: operator.metric(f'gpudiag_node_health{{node="{node}"}}'),  # type: ignore[misc]
            lambda seen, health=health: seen == health,  # type: ignore[misc]
            what=f"the operator goes on reading agents: {node}",
        )
    world.rig.steadily(lambda: operator.get("/healthz")[0] == 200, max(0.0, began + seconds - time.monotonic()))
    end(world.rig.plane)

    wanted = {
        "out-1": HEALTHY,
        "out-2": ("Unknown", "AgentVersionSkew"),
        "out-3": ("Unhealthy", "UncorrectableErrors"),
        "out-4": ("Unknown", "NotJSON"),
        "out-5": HEALTHY,
    }
    world.until_said(wanted, seconds=60)
    world.rig.diagnostic("later", target={"nodeNames": ["out-1"]})
    world.until_verdict("later", "Healthy", seconds=60)
    world.until(
        lambda: world.diagnostic("fleet")["summary"]["nodes"],
        lambda nodes: (nodes["targeted"], nodes["reporting"]) == (5, 3),
        what="the fleet is judged anew",
    )
    assert operator.process.poll() is None
    assert [line for line in operator.records() if line["level"] == "critical"] == []
