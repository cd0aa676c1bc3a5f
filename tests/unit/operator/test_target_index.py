"""Which diagnostics a node's change concerns, and which nodes a diagnostic is about: Pods above all."""

from typing import Any

import msgspec
import pytest
from tests.unit.operator.fleet import CRITICAL, finding, node_of

from gpudiag_api import wire
from gpudiag_api.kinds import GPUDiagnosticSpec
from gpudiag_api.vocabulary import Health
from gpudiag_operator.diagnostics.registry import Diagnostic, Key
from gpudiag_operator.diagnostics.targets import TargetIndex, scope_of
from gpudiag_operator.domain import NodeState
from gpudiag_operator.store import MemoryNodeStore

JOB, FLEET = Key("ml", "job"), Key("gpudiag-system", "fleet")


def diagnostic(key: Key, **target: Any) -> Diagnostic:
    spec = GPUDiagnosticSpec.model_validate({"target": target or None})
    return Diagnostic(key=key, uid="u", generation=1, resource_version="1", spec=spec)


def held(node: str, *, index: int, namespace: str = "ml", pod: str = "train-0", **fields: Any) -> NodeState:
    state = node_of(node, gpus=2, **fields)
    uuid = state.gpus[index].uuid
    return msgspec.structs.replace(
        state, allocations=(wire.Allocation(gpu_uuid=uuid, namespace=namespace, pod=pod, container="c"),)
    )


@pytest.fixture
def store() -> MemoryNodeStore:
    return MemoryNodeStore()


@pytest.fixture
def index(store: MemoryNodeStore) -> TargetIndex:
    made = TargetIndex(store)
    made.assign(JOB, scope_of(diagnostic(JOB, podRef={"name": "train-0"})))
    return made


class TestPods:
    def test_it_is_about_the_nodes_whose_gpus_the_pod_holds(self, index: TargetIndex, store: MemoryNodeStore) -> None:
        for state in (held("n1", index=0), held("n2", index=0, namespace="other"), node_of("n3")):
            store.put(state)
        states, missing = index.states(JOB)
        assert ([state.name for state in states], missing) == (["n1"], [])
        assert [gpu.index for gpu in states[0].gpus] == [0]

    def test_it_is_told_when_the_pod_gets_a_gpu_and_when_it_lets_go(
        self, index: TargetIndex, store: MemoryNodeStore
    ) -> None:
        store.put(node_of("n1"))
        assert index.concerned("n1") == set()
        store.put(held("n1", index=1))
        assert index.concerned("n1") == {JOB}
        store.put(node_of("n1"))
        assert index.concerned("n1") == {JOB}, "it held one until now"
        assert index.concerned("n1") == set()

    def test_a_node_that_is_gone_concerns_those_who_held_its_gpus(
        self, index: TargetIndex, store: MemoryNodeStore
    ) -> None:
        store.put(held("n1", index=1))
        index.concerned("n1")
        store.remove("n1")
        assert index.concerned("n1") == {JOB}

    def test_another_pods_gpus_do_not_concern_it(self, index: TargetIndex, store: MemoryNodeStore) -> None:
        store.put(held("n1", index=1, pod="train-1"))
        assert index.concerned("n1") == set()

    def test_what_a_run_read_is_narrowed_too(self, index: TargetIndex) -> None:
        read = held("n1", index=0, health=Health.UNHEALTHY, findings=(finding(CRITICAL, index=1),))
        (state,) = index.narrowed(JOB, [read])
        assert (state.health, len(state.gpus)) == (Health.HEALTHY, 1)

    def test_a_diagnostic_that_changed_its_mind_is_left_alone(self, index: TargetIndex, store: MemoryNodeStore) -> None:
        index.assign(JOB, scope_of(diagnostic(JOB, nodeNames=["n9"])))
        store.put(held("n1", index=1))
        assert index.concerned("n1") == set()
        index.remove(JOB)
        assert index.concerned("n9") == set()


def test_every_node_concerns_a_diagnostic_without_a_target(store: MemoryNodeStore) -> None:
    index = TargetIndex(store)
    index.assign(FLEET, scope_of(diagnostic(FLEET)))
    store.put(node_of("n1"))
    assert index.concerned("n1") == {FLEET}
    assert index.narrowed(FLEET, [node_of("n1")]) == [node_of("n1")]
