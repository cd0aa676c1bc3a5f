"""The fleet: what becomes of readings, Nodes and the wishes in GPUNodes; with fakes on both sides."""

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from gpudiag_api.kinds import GPUNodeStatus
from gpudiag_api.times import to_rfc3339
from gpudiag_api.vocabulary import BreakerState, Health, NotRead
from gpudiag_api.wire import GPU, AgentInfo, Report
from gpudiag_operator.counted import CountedAPI
from gpudiag_operator.domain import BreakerSnapshot, Failure, NodeInfo, NodeState, Reading, Target
from gpudiag_operator.fleet import Fleet
from gpudiag_operator.gpunodes import GPUNodeFeed, Seen
from gpudiag_operator.kube.api import KubeAPI
from gpudiag_operator.publish.recall import recall
from gpudiag_operator.store import MemoryNodeStore

NOW = 1_800_000_000.0


def report(node: str, *, gpus: int = 1) -> Report:
    made = tuple(
        GPU(index=index, uuid=f"GPU-{node}-{index}", pci=f"0000:{index:02x}:00.0", health=Health.HEALTHY)
        for index in range(gpus)
    )
    return Report(
        version="1.0",
        agent=AgentInfo(version="0.1.0", node_name=node),
        sampled_at=to_rfc3339(NOW),
        health=Health.HEALTHY,
        gpus=made,
    )


def reading(node: str, *, gpus: int = 1) -> Reading:
    return Reading(target=Target(node=node), report=report(node, gpus=gpus), read_at=NOW)


def unread(node: str, reason: NotRead, *, breaker: BreakerState = BreakerState.CLOSED) -> Reading:
    failure = Failure(reason=reason, message="no answer", since=NOW)
    return Reading(target=Target(node=node), failure=failure, breaker=BreakerSnapshot(state=breaker))


class Rig:
    """A fleet between a collector and discovery that do as told, and a publisher that writes down."""

    def __init__(self) -> None:
        self.now = NOW
        self.calls: list[tuple[object, ...]] = []
        self.readings: dict[str, Reading] = {}
        self.nodes: dict[str, NodeInfo] = {}
        self.targets: dict[str, Target] = {}
        self.submitted: list[NodeState] = []
        self.rejected = 0
        self.store = MemoryNodeStore()
        self.fleet = Fleet(self.store, self, rejected=self.reject, wall=lambda: self.now)
        collector = SimpleNamespace(
            reading=self.readings.get,
            restore=lambda *given: self.calls.append(("restore", *given)),
            set_override=lambda *given: self.calls.append(("override", *given)),
            reset=lambda *given: self.calls.append(("reset", *given)),
            fetch_fresh=self.fetch_fresh,
            set_target=lambda target: self.calls.append(("target", target.node)),
        )
        discovery = SimpleNamespace(
            node=self.nodes.get,
            is_gpu_node=lambda name: name in self.nodes and self.nodes[name].gpu,
            targets=self.targets,
            start=lambda: self.calls.append(("start",)),
        )
        self.fleet.connect(collector=cast("Any", collector), discovery=cast("Any", discovery))

    def add(self, name: str, *, gpu: bool = True, **labels: str) -> None:
        self.nodes[name] = NodeInfo(name=name, uid=f"uid-{name}", ready=True, labels=labels, gpu=gpu)
        self.targets[name] = Target(node=name)

    def hear(self, heard: Reading) -> None:
        self.readings[heard.target.node] = heard
        self.fleet.on_reading(heard)

    def reject(self) -> None:
        self.rejected += 1

    async def fetch_fresh(
        self, names: Sequence[str], *, deadline: float, run_id: str, full: bool
    ) -> dict[str, Reading]:
        self.calls.append(("fresh", tuple(names), deadline, run_id))
        return {name: self.readings[name] for name in names}

    # NodePublisher

    def restore(self, name: str, gpunode: Mapping[str, Any]) -> NodeState | None:
        status = gpunode.get("status")
        return recall(name, GPUNodeStatus.model_validate(status)) if status else None

    def deleted(self, name: str) -> None:
        self.calls.append(("deleted", name))

    def submit(self, state: NodeState) -> None:
        self.submitted.append(state)

    def remove(self, name: str) -> None:
        self.calls.append(("removed", name))

    def unfilled(self) -> Collection[str]:
        return ("n1", "gone")


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_a_reading_becomes_a_state_in_store_and_publisher(rig: Rig) -> None:
    rig.add("n1", pool="a")
    rig.hear(reading("n1"))
    state = rig.store.get("n1")
    assert state is not None
    assert (state.health, state.node_uid, state.labels) == (Health.HEALTHY, "uid-n1", {"pool": "a"})
    assert rig.submitted == [state]
    rig.hear(reading("n1"))
    assert len(rig.submitted) == 1, "the same again is no news"


async def test_nodes_that_wait_for_their_first_write_are_told_with_their_labels(rig: Rig) -> None:
    rig.add("n1", pool="a")
    rig.add("n2")
    assert rig.fleet.unwritten() == {"n1": {"pool": "a"}}


async def test_a_node_that_is_gone_is_forgotten(rig: Rig) -> None:
    rig.add("n1")
    rig.hear(reading("n1"))
    rig.hear(unread("n1", NotRead.NODE_GONE))
    assert list(rig.store.all()) == []
    assert ("removed", "n1") in rig.calls


async def test_an_agent_on_a_node_without_gpus_is_no_gpu_node(rig: Rig) -> None:
    rig.add("n1", gpu=False)
    rig.hear(reading("n1", gpus=0))
    assert list(rig.store.all()) == []
    assert rig.fleet.pending() == 0
    rig.hear(reading("n1", gpus=2))
    assert len(rig.store) == 1


async def test_pending_are_those_that_were_not_heard_of(rig: Rig) -> None:
    rig.add("n1")
    rig.add("n2")
    assert rig.fleet.pending() == 0, "they are nobody's of ours yet"
    rig.fleet.own(0)
    assert rig.fleet.pending() == 2
    rig.hear(reading("n1"))
    rig.hear(unread("n2", NotRead.AGENT_MISSING))
    assert rig.fleet.pending() == 0


async def test_new_labels_are_in_the_state_at_once(rig: Rig) -> None:
    rig.add("n1", pool="a")
    rig.hear(reading("n1"))
    rig.add("n1", pool="b")
    rig.fleet.upsert("n1", rig.nodes["n1"])
    state = rig.store.get("n1")
    assert state is not None
    assert state.labels == {"pool": "b"}


async def test_what_an_earlier_process_knew_is_used_until_the_agent_speaks(rig: Rig) -> None:
    rig.add("n1")
    breaker = {"state": "Open", "failures": 3, "openedAt": to_rfc3339(NOW - 5), "openFor": "30s"}
    gpus = [{"index": 0, "uuid": "GPU-old", "health": "Unknown"}]
    conditions = [
        {
            "type": "AgentReachable",
            "status": "False",
            "reason": "Timeout",
            "message": "no answer",
            "lastTransitionTime": to_rfc3339(NOW - 60),
        }
    ]
    status = {
        "health": "Unknown",
        "reason": "Timeout",
        "gpus": gpus,
        "breaker": breaker,
        "conditions": conditions,
    }
    rig.fleet.gpunode_changed("n1", {"metadata": {"name": "n1"}, "status": status})
    rig.fleet.start()
    rig.fleet.own(0)
    restored = next(call for call in rig.calls if call[0] == "restore")
    assert isinstance(restored[2], BreakerSnapshot)
    assert restored[2].state is BreakerState.OPEN
    assert rig.calls.index(restored) < rig.calls.index(("target", "n1"))
    rig.hear(unread("n1", NotRead.TIMEOUT))
    state = rig.store.get("n1")
    assert state is not None
    assert [gpu.uuid for gpu in state.gpus] == ["GPU-old"]
    rig.hear(reading("n1"))
    rig.fleet.gpunode_changed("n1", {"metadata": {"name": "n1"}, "status": status})
    assert sum(call[0] == "restore" for call in rig.calls) == 1, "our own writes come back as events"


async def test_wishes_reach_the_breaker_once(rig: Rig) -> None:
    rig.add("n1")
    body = {"metadata": {"name": "n1"}, "spec": {"circuitBreaker": "ForceOpen", "resetCircuitBreaker": "now"}}
    rig.fleet.gpunode_changed("n1", body)
    rig.fleet.gpunode_changed("n1", body)
    assert rig.calls == [("override", "n1", "ForceOpen"), ("reset", "n1", "now")]
    rig.fleet.gpunode_deleted("n1")
    assert rig.calls[2:] == [("deleted", "n1"), ("override", "n1", "Auto")]


async def test_a_wish_of_a_newer_kind_is_ignored_with_a_warning(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.fleet.gpunode_changed("n1", {"metadata": {"name": "n1"}, "spec": {"circuitBreaker": "Maybe"}})
    assert rig.calls == []
    assert "spec is ignored" in caplog.text


async def test_maintenance_begins_and_ends_by_the_clock(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.add("n1")
    rig.hear(reading("n1"))
    timers: list[tuple[float, Any]] = []

    def call_later(delay: float, callback: Any, *arguments: Any) -> Any:
        timers.append((delay, lambda: callback(*arguments)))
        return SimpleNamespace(cancel=lambda: None)

    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", call_later)
    until = to_rfc3339(NOW + 3600)
    rig.fleet.gpunode_changed("n1", {"metadata": {"name": "n1"}, "spec": {"maintenance": {"until": until}}})
    state = rig.store.get("n1")
    assert state is not None
    assert state.maintenance
    for seconds in (1800.0, 1800.0):
        rig.now += seconds
        timers.pop(0)[1]()
    state = rig.store.get("n1")
    assert state is not None
    assert not state.maintenance
    assert timers == []


async def test_a_gpunode_that_was_deleted_is_submitted_again(rig: Rig) -> None:
    rig.add("n1")
    rig.hear(reading("n1"))
    rig.submitted.clear()
    rig.fleet.gpunode_deleted("n1")
    assert [state.name for state in rig.submitted] == ["n1"]


async def test_fresh_reads_are_assessed_and_change_nothing(rig: Rig) -> None:
    rig.add("n1")
    rig.add("n2")
    rig.readings["n1"] = reading("n1")
    rig.readings["n2"] = unread("n2", NotRead.CIRCUIT_OPEN, breaker=BreakerState.OPEN)
    found = await rig.fleet.read_fresh(["n2", "n1"], 5.0, "run")
    assert {name: state.health for name, state in found.items()} == {"n1": Health.HEALTHY, "n2": Health.UNKNOWN}
    assert rig.rejected == 1
    assert len(rig.store) == 0
    assert rig.submitted == []


class TestGPUNodeFeed:
    def make(self) -> tuple[GPUNodeFeed, list[tuple[object, ...]]]:
        told: list[tuple[object, ...]] = []
        discovery = SimpleNamespace(
            upsert=lambda name, has: told.append(("gpus", name, has)), delete=lambda name: told.append(("gone", name))
        )
        feed = GPUNodeFeed(
            cast("Any", discovery),
            changed=lambda name, body: told.append(("changed", name, body["metadata"]["resourceVersion"])),
            deleted=lambda name: told.append(("deleted", name)),
        )
        return feed, told

    def raw(self, version: str) -> msgspec.Raw:
        status = {"gpus": [{"index": 0}]}
        return msgspec.Raw(
            json.dumps({"metadata": {"name": "n1", "resourceVersion": version}, "status": status}).encode()
        )

    def test_the_object_is_handed_on_once_per_version(self) -> None:
        feed, told = self.make()
        seen = feed.project(self.raw("1"))
        assert seen == Seen("1", has_gpus=True)
        feed.upsert("n1", seen)
        feed.project(self.raw("1"))
        feed.upsert("n1", seen)
        assert told == [("changed", "n1", "1"), ("gpus", "n1", True), ("gpus", "n1", True)]

    def test_a_deletion_is_told_to_both(self) -> None:
        feed, told = self.make()
        feed.upsert("n1", feed.project(self.raw("1")))
        told.clear()
        feed.delete("n1")
        assert told == [("deleted", "n1"), ("gone", "n1")]


async def test_accepted_writes_are_counted_by_resource_and_verb() -> None:
    class API:
        async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
            return {}

        async def patch(self, path: str, body: Mapping[str, Any], *, resource_version: str | None) -> dict[str, Any]:
            return {}

        patch_status = patch

        async def delete(self, path: str, *, uid: str | None, resource_version: str | None) -> None:
            raise PermissionError

    counted: list[tuple[str, str]] = []
    api: KubeAPI = CountedAPI(cast("KubeAPI", API()), lambda *given: counted.append(given))
    await api.create("/api/v1/namespaces/default/events", {})
    await api.patch_status("/apis/gpudiag.dev/v1alpha1/gpunodes/n1", {})
    await api.patch("/apis/gpudiag.dev/v1alpha1/namespaces/ns/gpudiagnostics/a", {})
    with pytest.raises(PermissionError):
        await api.delete("/api/v1/nodes/n1")
    assert counted == [("events", "create"), ("gpunodes", "patch"), ("gpudiagnostics", "patch")]
