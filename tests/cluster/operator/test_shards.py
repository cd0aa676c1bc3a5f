"""Two processes that share a fleet say what one says alone, and go on when one of them dies."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from tests.cluster.badinput.world import World, normalised
from tests.cluster.operator.conftest import OperatorProcess, Rig

from gpudiag_cli.controlplane import ControlPlane, Kubectl
from gpudiag_cli.simulator import MACHINES, NodeSpec

pytestmark = pytest.mark.cluster

LEASES = ("gpudiag-aggregator", "gpudiag-shard-0", "gpudiag-shard-1")
SHARDS = ("--shards", "2", "--lease-duration", "6s", "--renew-deadline", "4s", "--retry-period", "2s")
FAULTS = ("xid-79", "ecc", "xid-31", "html", "hang", "wrong-version", "refuse")
"""One on each of the first nodes."""
SPARED = {f"share-{FAULTS.index(fault):03}" for fault in ("html", "hang", "refuse")}
"""Nodes whose circuit breaker opens."""
SOON = {"interval": "5s"}
CONTINUOUS: dict[str, dict[str, Any]] = {
    "fleet": SOON,
    "pool": SOON | {"target": {"nodeSelector": {"matchLabels": {"pool": "a"}}}},
    "strict": SOON | {"policy": {"xids": {"critical": [31]}, "expectedGPUsPerNode": 8}},
    "named": SOON | {"target": {"nodeNames": ["share-000", "share-011", "nobody"]}},
}
ONCE: dict[str, dict[str, Any]] = {
    "once": {"mode": "Once", "deadline": "60s"},
    "some": {"mode": "Once", "deadline": "60s", "target": {"nodeNames": ["share-000", "share-003", "share-012"]}},
}


def specs(number: int, machine: str) -> list[NodeSpec]:
    return [
        NodeSpec(name=f"share-{at:03}", machine=MACHINES[machine], labels={"pool": "ab"[at % 2]})
        for at in range(number)
    ]


@pytest.fixture
def make_world(
    control_plane: ControlPlane, kubectl: Kubectl, crds: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Sequence[NodeSpec]], World]]:
    made: list[World] = []

    def make(nodes: Sequence[NodeSpec]) -> World:
        made.append(World(Rig(control_plane, kubectl, tmp_path_factory.mktemp("world")), nodes))
        return made[-1]

    try:
        yield make
    finally:
        for world in made:
            world.close()


def leases(operator: OperatorProcess) -> set[str]:
    """Leases that a process holds."""
    return {name for name in LEASES if operator.metric(f'gpudiag_operator_leader{{lease="{name}"}}') == 1}


def exported(operator: OperatorProcess) -> set[str]:
    """Nodes whose series a process exports."""
    lines = operator.get("/metrics")[1].splitlines()
    return {line.split('"')[1] for line in lines if line.startswith("gpudiag_node_health{")}


def ask(world: World, questions: dict[str, dict[str, Any]]) -> None:
    for name, spec in questions.items():
        world.rig.diagnostic(name, **spec)


def answers(world: World, nodes: int, *, seconds: float) -> dict[str, Any]:
    """What is said of the fleet once everything is known, without what two processes may say differently."""
    bad = len(FAULTS)

    def settled() -> tuple[int, int]:
        known = [said for said in world.said().values() if said[0] != "Unknown"]
        return len(world.said()), nodes - len(known)

    world.until(settled, lambda seen: seen[0] == nodes and seen[1] <= bad, seconds=seconds, what="all nodes are known")
    world.until(
        lambda: {name for name, item in world.gpunodes().items() if item["status"]["breaker"]["state"] == "Open"},
        lambda spared: spared == SPARED,
        seconds=60,
        what="circuit breakers are open",
    )
    world.until(
        lambda: world.condition("fleet", "CircuitBreakersClosed").get("message", ""),
        lambda message: message.startswith(f"{len(SPARED)} circuit breakers"),
        seconds=60,
        what="who judges knows of them, and so does a Once run that looks at them",
    )
    ask(world, ONCE)
    for name in ONCE:
        world.until_complete(name, seconds=60)

    def judged() -> dict[str, Any]:
        found = {name: normalised(world.diagnostic(name)) for name in (*CONTINUOUS, *ONCE)}
        for status in found.values():
            status.pop("history", None)  # what was seen on the way is another's
        return found

    def stands(found: dict[str, Any]) -> bool:
        fleet = found["fleet"].get("summary", {}).get("nodes", {})
        return fleet.get("targeted") == nodes and all(status.get("verdict") for status in found.values())

    last: dict[str, Any] = {}
    for _ in range(60):  # until it stays the same for longer than an interval
        found = world.until(judged, stands, seconds=seconds, what="all is judged")
        if found == last:
            return found
        last = found
        world.rig.steadily(lambda: True, 7)
    raise AssertionError(f"it never settles: {last}")


def start_over(world: World) -> None:
    """Nothing is left of what one process said."""
    for one in world.rig.operators:
        if one.process.poll() is None:
            one.stop()
    world.rig.operators.clear()
    world.rig.kubectl("delete", "gpudiagnostics", "--all", "-n", world.rig.namespace)
    world.forget()


def compared(world: World, nodes: int, *, seconds: float, flags: tuple[str, ...] = ()) -> list[OperatorProcess]:
    """One process answers, then two; gives the two."""
    for at, fault in enumerate(FAULTS):
        world.fault(f"share-{at:03}", fault)
    ask(world, CONTINUOUS)
    world.start(*flags)
    alone = answers(world, nodes, seconds=seconds)
    start_over(world)
    ask(world, CONTINUOUS)
    two = [world.start(*SHARDS, *flags, ready=False) for _ in range(2)]
    together = answers(world, nodes, seconds=seconds)
    for name, status in alone.items():
        different = {
            key: (together[name].get(key), said) for key, said in status.items() if together[name].get(key) != said
        }
        assert different == {}, f"{name}: (two, one)"
    return two


def test_two_processes_share_a_fleet(make_world: Callable[[Sequence[NodeSpec]], World]) -> None:
    world = make_world(specs(8, "t4-1"))
    world.fault("share-000", "xid-79")
    ask(world, {"fleet": SOON})
    two = [world.start(*SHARDS, ready=False) for _ in range(2)]
    status = world.until_verdict("fleet", "Unhealthy")
    assert (status["summary"]["nodes"]["targeted"], status["summary"]["gpus"]["unhealthy"]) == (8, 1)
    ask(world, {"once": ONCE["once"]})
    assert world.until_complete("once", seconds=20)["summary"]["nodes"]["reporting"] == 8
    world.until(
        lambda: [leases(one) for one in two],
        lambda held: held[0] | held[1] == set(LEASES) and not held[0] & held[1],
        what="each Lease is held by one of them",
    )
    world.until(
        lambda: [exported(one) for one in two],
        lambda shown: len(shown[0] | shown[1]) == 8 and not shown[0] & shown[1],
        what="each node is read by one of them",
    )


@pytest.mark.slow
def test_two_shards_say_what_one_process_says_and_outlive_each_other(
    make_world: Callable[[Sequence[NodeSpec]], World],
) -> None:
    world = make_world(specs(60, "h100-8"))
    two = compared(world, 60, seconds=60, flags=("--breaker-open", "10m", "--breaker-open-max", "10m"))
    held = [leases(one) for one in two]
    assert held[0] | held[1] == set(LEASES)
    assert not held[0] & held[1]
    assert all(held), "they share the work"
    shown = [exported(one) for one in two]
    assert len(shown[0] | shown[1]) == 60
    assert not shown[0] & shown[1], "each node is read by one of them"

    judge = next(at for at, some in enumerate(held) if LEASES[0] in some)
    victim, heir = two[judge], two[1 - judge]
    # Of three Leases the judge may hold that one alone: then the other reads all nodes.
    lost = min((shown[judge] or shown[1 - judge]) - {f"share-{at:03}" for at in range(len(FAULTS))})
    victim.kill()
    world.fault(lost, "xid-79")
    world.until(lambda: leases(heir), lambda some: some == set(LEASES), seconds=20, what="the other has all Leases")
    world.until_said({lost: ("Unhealthy", "GPULost")})
    world.until(
        lambda: world.diagnostic("fleet")["summary"]["nodes"]["reporting"],
        lambda number: number == 60 - 4,
        seconds=30,
        what="the fleet is judged by the other",
    )
    world.until(
        lambda: [row["name"] for row in world.diagnostic("fleet")["nodes"]],
        lambda names: lost in names,
        seconds=30,
        what="the new fault is in its verdict",
    )
    world.until(lambda: len(exported(heir)), lambda number: number == 60, seconds=20, what="the other reads all nodes")


@pytest.mark.slow
def test_two_shards_over_1000_nodes_say_what_one_process_says(
    make_world: Callable[[Sequence[NodeSpec]], World],
) -> None:
    world = make_world(specs(1000, "h100-8"))
    flags: tuple[str, ...] = (
        "--lease-duration",
        "15s",
        "--renew-deadline",
        "10s",
        "--node-timeout",
        "5s",
        "--unreachable-after",
        "5s",
    )
    flags += ("--breaker-open", "10m", "--breaker-open-max", "10m")
    two = compared(world, 1000, seconds=240, flags=flags)
    assert sum(len(exported(one)) for one in two) == 1000
