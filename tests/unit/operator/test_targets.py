"""From Nodes, agent Pods and GPUNodes to targets: projections, the pure rules, and the incremental way to them."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_api.vocabulary import NotRead
from gpudiag_operator.discover.discovery import Discovery
from gpudiag_operator.discover.projections import node_projection, project_gpunode, project_pod
from gpudiag_operator.discover.targets import target_of, targets
from gpudiag_operator.domain import AgentPod, NodeInfo, Target
from gpudiag_operator.kube.selectors import parse


def a_node(name: str = "n1", *, ready: bool = True, gpu: bool = True) -> NodeInfo:
    return NodeInfo(name=name, uid=f"uid-{name}", ready=ready, labels={}, gpu=gpu)


def a_pod(
    name: str = "agent-a", node: str = "n1", *, ip: str = "10.0.0.1", ready: bool = True, terminating: bool = False
) -> AgentPod:
    return AgentPod(name=name, uid=f"uid-{name}", node=node, ip=ip, ready=ready, terminating=terminating)


def raw_node(labels: dict[str, str] | None = None, capacity: dict[str, str] | None = None, **status: Any) -> bytes:
    metadata = {"name": "n1", "uid": "u1", "labels": labels, "managedFields": [{"any": "thing"}]}
    return json.dumps({"metadata": metadata, "status": {"capacity": capacity or {}, **status}}).encode()


def raw_pod(**changed: Any) -> bytes:
    status = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    pod: dict[str, Any] = {
        "metadata": {"name": "agent-a", "uid": "u1"},
        "spec": {"nodeName": "n1", "containers": [{"name": "agent"}]},
        "status": status,
    }
    for part, values in changed.items():
        pod[part] = {**pod[part], **values}
    return json.dumps(pod).encode()


@pytest.mark.parametrize(
    ("raw", "gpu"),
    [
        (raw_node(), False),
        (raw_node({"nvidia.com/gpu.present": "true"}), True),
        (raw_node({"nvidia.com/gpu.present": "false"}), False),
        (raw_node({"feature.node.kubernetes.io/pci-10de.present": "true"}), True),
        (raw_node(capacity={"nvidia.com/gpu": "8", "cpu": "4"}), True),
        (raw_node(capacity={"nvidia.com/mig-1g.10gb": "7"}), True),
        (raw_node(capacity={"nvidia.com/gpu": "0"}), False),
        (raw_node(capacity={"amd.com/gpu": "8"}), False),
        (raw_node({"pool": "gpu"}), True),
    ],
)
def test_what_shows_that_a_node_has_gpus(raw: bytes, gpu: bool) -> None:
    assert node_projection(parse("pool=gpu"))(raw).gpu is gpu


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        (None, True),
        ([{"type": "DiskPressure", "status": "True"}], True),
        ([{"type": "Ready", "status": "True"}], True),
        ([{"type": "Ready", "status": "False"}], False),
        ([{"type": "Ready", "status": "Unknown"}], False),
    ],
)
def test_node_readiness(conditions: list[dict[str, str]] | None, ready: bool) -> None:
    assert node_projection()(raw_node(conditions=conditions)).ready is ready


def test_labels_are_shared_between_nodes() -> None:
    project = node_projection()
    first, second = (project(raw_node({"example.com/pool": "some-pool"})).labels for _ in range(2))
    assert first["example.com/pool"] is second["example.com/pool"]


def test_heartbeats_do_not_change_a_node() -> None:
    project = node_projection()
    beat = [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]
    later = [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:05:00Z"}]
    assert project(raw_node(conditions=beat)) == project(raw_node(conditions=later))


def test_a_pod() -> None:
    expected = AgentPod(name="agent-a", uid="u1", node="n1", ip="10.0.0.1", ready=True)
    assert project_pod(raw_pod()) == expected


def test_a_pods_port_address_and_end() -> None:
    ports = [{"name": "metrics", "containerPort": 1}, {"name": "http", "containerPort": 9999}]
    pod = project_pod(
        raw_pod(
            spec={"containers": [{"name": "sidecar"}, {"name": "agent", "ports": ports}]},
            status={"podIP": "fd00::1"},
            metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"},
        )
    )
    assert pod is not None
    assert (pod.port, pod.ip, pod.terminating) == (9999, "fd00::1", True)


@pytest.mark.parametrize("part", [{"spec": {"nodeName": ""}}, {"status": {"phase": "Failed"}}])
def test_pods_without_a_node_or_a_life_are_no_agents(part: dict[str, Any]) -> None:
    assert project_pod(raw_pod(**part)) is None


def test_what_is_no_pod_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        project_pod(b'{"metadata": 3}')


def test_gpunodes() -> None:
    assert project_gpunode(b'{"status": {"gpus": [{"index": 0}]}}')
    assert not project_gpunode(b'{"status": {"gpus": []}}')
    assert not project_gpunode(b'{"metadata": {"name": "n1"}}')


@pytest.mark.parametrize(
    ("node", "pods", "reason"),
    [
        (a_node(), [a_pod()], None),
        (a_node(ready=False), [a_pod()], NotRead.NODE_NOT_READY),
        (a_node(ready=False), [], NotRead.NODE_NOT_READY),
        (a_node(), [], NotRead.AGENT_MISSING),
        (a_node(), [a_pod(terminating=True)], NotRead.AGENT_MISSING),
        (a_node(), [a_pod(ready=False)], NotRead.AGENT_NOT_READY),
        (a_node(), [a_pod(ip="")], NotRead.AGENT_NOT_READY),
        (a_node(), [a_pod("a"), a_pod("b")], NotRead.AGENT_DUPLICATE),
        (a_node(), [a_pod("a", terminating=True), a_pod("b")], None),
    ],
)
def test_targets_of_gpu_nodes(node: NodeInfo, pods: list[AgentPod], reason: NotRead | None) -> None:
    target = target_of(node, pods, gpu=True)
    assert target is not None
    assert target.blocked is reason
    assert bool(target.message) is (reason is not None)
    if reason is None:
        assert target.pod == pods[-1]


@pytest.mark.parametrize(
    ("pods", "target"),
    [
        ([], None),
        ([a_pod()], Target(node="n1", pod=a_pod())),
        ([a_pod(ready=False)], None),
        ([a_pod("a"), a_pod("b")], None),
    ],
)
def test_without_a_sign_of_gpus_only_a_ready_agent_makes_a_target(pods: list[AgentPod], target: Target | None) -> None:
    assert target_of(a_node(gpu=False), pods, gpu=False) == target


def test_a_gpunode_with_gpus_makes_a_gpu_node() -> None:
    found = targets([a_node(gpu=False)], [], {"n1"})
    assert found["n1"].blocked is NotRead.AGENT_MISSING


def test_no_node_no_target() -> None:
    assert target_of(None, [a_pod()], gpu=True) is None
    assert targets([], [a_pod()], {"n1"}) == {}


class Copy:
    """A listener that keeps what it was told, and how often."""

    def __init__(self) -> None:
        self.targets: dict[str, Target] = {}
        self.calls = 0

    def set_target(self, target: Target) -> None:
        assert self.targets.get(target.node) != target, "told without a change"
        self.targets[target.node] = target
        self.calls += 1

    def remove_target(self, node: str) -> None:
        del self.targets[node]
        self.calls += 1


names = st.sampled_from(["n1", "n2", "n3"])
pod_names = st.sampled_from(["p1", "p2", "p3", "p4"])
pods = st.builds(
    lambda name, node, ready, terminating: a_pod(name, node, ready=ready, terminating=terminating),
    pod_names,
    names,
    st.booleans(),
    st.booleans(),
)
nodes = st.builds(lambda name, ready, gpu: a_node(name, ready=ready, gpu=gpu), names, st.booleans(), st.booleans())
events = st.one_of(
    nodes.map(lambda node: ("nodes", node.name, node)),
    pods.map(lambda pod: ("pods", pod.name, pod)),
    st.tuples(st.just("gpunodes"), names, st.booleans()),
    st.tuples(st.sampled_from(["nodes", "gpunodes"]), names, st.none()),
    st.tuples(st.just("pods"), pod_names, st.none()),
    st.just(("start", "", None)),
)


class Cluster:
    """The objects there are, told to a discovery event by event."""

    def __init__(self) -> None:
        self.copy = Copy()
        self.discovery = Discovery(self.copy)
        self.objects: dict[str, dict[str, Any]] = {"nodes": {}, "pods": {}, "gpunodes": {}}
        self.started = False

    def take(self, what: str, name: str, item: Any) -> None:
        if what == "start":
            self.discovery.start()
            self.started = True
            return
        feed = getattr(self.discovery, what)
        if item is not None:
            self.objects[what][name] = item
            feed.upsert(name, item)
        elif self.objects[what].pop(name, None) is not None:
            feed.delete(name)

    def expected(self) -> Mapping[str, Target]:
        with_gpus = {name for name, has in self.objects["gpunodes"].items() if has}
        whole = targets(self.objects["nodes"].values(), self.objects["pods"].values(), with_gpus)
        return whole if self.started else {}


@given(st.lists(events, max_size=40))
def test_incremental_discovery_agrees_with_the_whole(sequence: list[tuple[str, str, Any]]) -> None:
    cluster = Cluster()
    for event in sequence:
        cluster.take(*event)
        assert cluster.copy.targets == cluster.expected()
        assert cluster.discovery.targets == cluster.copy.targets


def test_an_event_touches_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[NodeInfo | None] = []

    def counted(node: NodeInfo | None, pods: Collection[AgentPod], *, gpu: bool) -> Target | None:
        touched.append(node)
        return target_of(node, pods, gpu=gpu)

    monkeypatch.setattr("gpudiag_operator.discover.discovery.target_of", counted)
    discovery = Discovery(Copy())
    for number in range(1000):
        discovery.nodes.upsert(f"n{number}", a_node(f"n{number}"))
    discovery.start()
    touched.clear()
    discovery.pods.upsert("p", a_pod("p", "n7"))
    assert len(touched) == 1
