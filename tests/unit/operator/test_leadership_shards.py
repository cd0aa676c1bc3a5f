"""Whose node is whose: the hash, the share of a process, and the fleet as GPUNodes tell it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_api.kinds import GPUNodeSpec
from gpudiag_api.kinds.gpunode import Maintenance
from gpudiag_api.times import to_rfc3339
from gpudiag_api.vocabulary import Health
from gpudiag_api.wire import GPU
from gpudiag_operator.discover.discovery import Discovery
from gpudiag_operator.domain import AgentPod, NodeInfo, NodeState, Target
from gpudiag_operator.leadership.critical import CriticalCodes, critical_codes
from gpudiag_operator.leadership.recalled import RecalledNodes
from gpudiag_operator.leadership.shards import Share, shard_of
from gpudiag_operator.store import MemoryNodeStore

NAMES = [f"gpu-{number:04}.example" for number in range(2000)]
NOW = 1_800_000_000.0
PLAIN = GPUNodeSpec()

# The hash


def test_the_hash_is_the_same_in_every_version_of_this_program() -> None:
    assert [shard_of(name, 4) for name in ("a", "b", "c", "gpu-0001")] == [0, 3, 3, 0]
    assert {shard_of(name, 1) for name in NAMES} == {0}


@pytest.mark.parametrize("shards", [2, 3, 8, 16])
def test_shards_are_about_as_large_as_each_other(shards: int) -> None:
    sizes = Counter(shard_of(name, shards) for name in NAMES)
    mean = len(NAMES) / shards
    assert len(sizes) == shards
    assert all(0.7 * mean < size < 1.3 * mean for size in sizes.values())


@given(node=st.text(min_size=1, max_size=60), shards=st.integers(1, 32))
def test_one_shard_more_moves_only_the_nodes_of_the_new_one(node: str, shards: int) -> None:
    before, after = shard_of(node, shards), shard_of(node, shards + 1)
    assert 0 <= before < shards
    assert after in (before, shards)


# The share


class Told:
    """A TargetListener."""

    def __init__(self) -> None:
        self.targets: dict[str, Target] = {}
        self.removed: list[str] = []

    def set_target(self, target: Target) -> None:
        self.targets[target.node] = target

    def remove_target(self, node: str) -> None:
        self.removed.append(node)


def test_nothing_is_read_before_a_shard_is_owned() -> None:
    told = Told()
    share = Share(told)
    share.set_target(Target(node="n1"))
    share.remove_target("n1")
    assert (told.targets, told.removed) == ({}, [])
    assert not share.owns("n1")


def test_a_shard_that_is_taken_brings_its_targets_and_their_changes() -> None:
    told = Told()
    share = Share(told, 2)
    targets = {name: Target(node=name) for name in NAMES[:20]}
    mine = {name for name in targets if shard_of(name, 2) == 1}
    share.take(1, targets)
    assert told.targets.keys() == mine
    for name in targets:
        share.remove_target(name)
    assert set(told.removed) == mine
    share.take(0, targets)
    assert told.targets.keys() == targets.keys()


# The fleet as GPUNodes tell it


class World:
    def __init__(self) -> None:
        self.now = NOW
        self.store = MemoryNodeStore()
        self.discovery = Discovery(Told())
        self.nodes = RecalledNodes(self.store, self.discovery, wall=lambda: self.now)
        self.discovery.start()

    def node(self, name: str, *, gpu: bool = True, **labels: str) -> None:
        node = NodeInfo(name=name, uid=f"uid-{name}", ready=True, labels=labels, gpu=gpu)
        self.discovery.nodes.upsert(name, node)
        self.nodes.upsert(name, node)

    def pod(self, node: str) -> None:
        self.discovery.pods.upsert(
            f"agent-{node}", AgentPod(name=f"agent-{node}", uid="u", node=node, ip="1", ready=True)
        )

    def gone(self, name: str) -> None:
        self.discovery.nodes.delete(name)
        self.nodes.delete(name)

    def told(self, name: str, state: NodeState | None, spec: GPUNodeSpec = PLAIN) -> None:
        self.nodes.told(name, state, spec)


def healthy(name: str) -> NodeState:
    gpu = GPU(index=0, uuid=f"GPU-{name}", pci="0000:00:00.0", health=Health.HEALTHY)
    return NodeState(name=name, health=Health.HEALTHY, gpus=(gpu,))


def test_a_state_is_completed_by_what_the_node_says() -> None:
    world = World()
    world.node("n1", pool="a")
    world.pod("n1")
    world.told("n1", healthy("n1"))
    state = world.store.get("n1")
    assert state is not None
    assert (state.node_uid, state.labels, state.pod and state.pod.name) == ("uid-n1", {"pool": "a"}, "agent-n1")
    world.node("n1", pool="b")
    state = world.store.get("n1")
    assert state is not None
    assert state.labels == {"pool": "b"}


def test_a_node_that_is_gone_is_gone_before_its_gpunode_is_collected() -> None:
    world = World()
    world.node("n1")
    world.told("n1", healthy("n1"))
    world.gone("n1")
    assert list(world.store.all()) == []
    world.told("n1", None)
    world.node("n1")
    assert list(world.store.all()) == [], "a namesake is unknown until its GPUNode says something"


def test_gpunodes_of_the_first_list_count_once_targets_are_known() -> None:
    store, discovery = MemoryNodeStore(), Discovery(Told())
    nodes = RecalledNodes(store, discovery, wall=lambda: NOW)
    nodes.told("n1", healthy("n1"), PLAIN)
    node = NodeInfo(name="n1", uid="uid-n1", ready=True, labels={}, gpu=True)
    discovery.nodes.upsert("n1", node)
    nodes.upsert("n1", node)
    assert list(store.all()) == []
    discovery.start()
    nodes.start()
    assert [state.name for state in store.all()] == ["n1"]


def test_pending_are_gpu_nodes_without_a_status() -> None:
    world = World()
    world.node("n1")
    world.node("n2")
    world.node("cpu", gpu=False)
    world.pod("cpu")
    assert world.nodes.pending() == 2
    assert set(world.nodes.unwritten()) == {"n1", "n2"}
    world.told("n1", healthy("n1"))
    world.told("n2", None)
    assert world.nodes.pending() == 1


def test_maintenance_ends_by_the_clock() -> None:
    world = World()
    world.node("n1")
    spec = GPUNodeSpec(maintenance=Maintenance(until=to_rfc3339(NOW + 60)))
    world.told("n1", healthy("n1"), spec)
    state = world.store.get("n1")
    assert state is not None
    assert state.maintenance
    world.now += 61
    world.nodes.refresh("n1")
    state = world.store.get("n1")
    assert state is not None
    assert not state.maintenance


# Codes that a diagnostic calls critical


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (b'{"spec":{"policy":{"xids":{"critical":[31,13]}}}}', frozenset({31, 13})),
        (b'{"spec":{"policy":{"xids":{"ignore":[31]}}}}', None),
        (b'{"spec":{"policy":{}}}', None),
        (b'{"metadata":{}}', None),
    ],
)
def test_critical_codes_of_a_diagnostic(body: bytes, codes: frozenset[int] | None) -> None:
    assert critical_codes(body) == codes


def test_the_codes_of_all_diagnostics_count() -> None:
    class Publisher:
        critical_xids: frozenset[int] = frozenset()

    publisher = Publisher()
    codes = CriticalCodes(publisher)
    codes.upsert("a/x", frozenset({31}))
    codes.upsert("b/x", frozenset({31, 13}))
    assert publisher.critical_xids == {31, 13}
    codes.delete("b/x")
    assert publisher.critical_xids == {31}
