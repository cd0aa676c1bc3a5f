"""Publishing against a real API server: what it accepts, what it owns, what it refuses."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from tests.unit.operator.fleet import CRITICAL, NOW, finding, node_of, spec_of, with_counts, xid

from gpudiag_api.vocabulary import NotRead
from gpudiag_cli.controlplane import ControlPlane, Kubectl
from gpudiag_operator.aggregate import budget
from gpudiag_operator.aggregate.status import Aggregation, aggregate
from gpudiag_operator.domain import NodeState
from gpudiag_operator.kube.access import load_access
from gpudiag_operator.kube.client import KubeClient
from gpudiag_operator.kube.errors import ApiError
from gpudiag_operator.publish.diagnostic import DiagnosticPublisher, DiagnosticRef
from gpudiag_operator.publish.events import EventSpec, ObjectRef, emit
from gpudiag_operator.publish.publisher import Pace, Publisher

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds")]

GPUNODES = "/apis/gpudiag.dev/v1alpha1/gpunodes"


@pytest.fixture
async def api(control_plane: ControlPlane) -> AsyncIterator[KubeClient]:
    access = await load_access(kubeconfig=str(control_plane.kubeconfig))
    async with KubeClient(access, user_agent="a test") as client:
        yield client


@pytest.fixture
def node(kubectl: Kubectl) -> Any:
    """A Node of its own; gives name and uid."""
    name = f"gpu-{uuid4().hex[:8]}"
    kubectl.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"pool": "a"}}})
    yield name, kubectl.json("get", "node", name)["metadata"]["uid"]
    kubectl("delete", "node", name, "--ignore-not-found")
    kubectl("delete", "gpunode", name, "--ignore-not-found")


def state_of(node: tuple[str, str], **fields: Any) -> NodeState:
    name, uid = node
    return msgspec.structs.replace(node_of(name, labels={"pool": "a"}, **fields), node_uid=uid)


async def settle(publisher: Publisher) -> None:
    while await publisher.step() == 0:
        pass


def eventually(check: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.2)
    return False


async def test_a_gpunode_is_written_whole_and_found_by_health(
    api: KubeClient, kubectl: Kubectl, node: tuple[str, str]
) -> None:
    publisher = Publisher(api, mirror_labels=("pool",))
    publisher.submit(state_of(node, gpus=8, findings=(finding(CRITICAL, 3, node[0]),), xids=(xid(node=node[0]),)))
    await settle(publisher)
    stored = kubectl.json("get", "gpunode", node[0])
    assert stored["metadata"]["labels"] == {"pool": "a"}
    assert stored["status"]["gpuCounts"] == {"total": 8, "healthy": 7, "degraded": 0, "unhealthy": 1, "unknown": 0}
    assert stored["status"]["findings"][0]["evidence"] == []
    found = kubectl("get", "gn", "--field-selector", "status.health=Unhealthy", "--output=name").stdout
    assert f"gpunode.gpudiag.dev/{node[0]}" in found
    kubectl("wait", "--for=condition=Ready", "--timeout=5s", f"gpunode/{node[0]}")


async def test_a_second_status_removes_what_has_no_value_any_more(
    api: KubeClient, kubectl: Kubectl, node: tuple[str, str]
) -> None:
    publisher = Publisher(api)
    publisher.submit(state_of(node))
    await settle(publisher)
    publisher.submit(state_of(node, unseen=True, failure=NotRead.TIMEOUT))
    await settle(publisher)
    status = kubectl.json("get", "gpunode", node[0])["status"]
    assert "driverVersion" not in status
    assert (status["health"], status["gpus"]) == ("Unknown", [])


async def test_a_restart_writes_nothing(api: KubeClient, kubectl: Kubectl, node: tuple[str, str]) -> None:
    state = state_of(node, findings=(finding(CRITICAL, 0, node[0]),), xids=(xid(node=node[0]),))
    publisher = Publisher(api)
    publisher.submit(state)
    await settle(publisher)
    before = kubectl.json("get", "gpunode", node[0])
    again = Publisher(api)
    again.restore(node[0], before)
    again.submit(with_counts(state, 5))
    assert len(again) == 0
    assert (
        kubectl.json("get", "gpunode", node[0])["metadata"]["resourceVersion"]
        == (before["metadata"]["resourceVersion"])
    )


async def test_it_is_collected_with_its_node(api: KubeClient, kubectl: Kubectl, node: tuple[str, str]) -> None:
    publisher = Publisher(api)
    publisher.submit(state_of(node))
    await settle(publisher)
    kubectl("delete", "node", node[0])
    assert eventually(lambda: not kubectl("get", "gpunode", node[0], "--ignore-not-found").stdout)


async def test_one_made_by_people_is_adopted(api: KubeClient, kubectl: Kubectl, node: tuple[str, str]) -> None:
    kubectl.apply(
        {
            "apiVersion": "gpudiag.dev/v1alpha1",
            "kind": "GPUNode",
            "metadata": {"name": node[0], "labels": {"mine": "stays"}},
            "spec": {"circuitBreaker": "ForceOpen"},
        }
    )
    publisher = Publisher(api, mirror_labels=("pool",))
    publisher.submit(state_of(node))
    await settle(publisher)
    stored = kubectl.json("get", "gpunode", node[0])
    assert stored["metadata"]["labels"] == {"mine": "stays", "pool": "a"}
    assert [one["uid"] for one in stored["metadata"]["ownerReferences"]] == [node[1]]
    assert stored["spec"] == {"circuitBreaker": "ForceOpen"}
    assert stored["status"]["health"] == "Healthy"


async def test_a_namesake_made_since_is_adopted_after_the_next_write(
    api: KubeClient, kubectl: Kubectl, node: tuple[str, str]
) -> None:
    publisher = Publisher(api, pace=Pace(interval=0.1))
    publisher.submit(state_of(node))
    await settle(publisher)
    kubectl("delete", "gpunode", node[0])
    kubectl.apply({"apiVersion": "gpudiag.dev/v1alpha1", "kind": "GPUNode", "metadata": {"name": node[0]}})
    publisher.submit(state_of(node, findings=(finding(CRITICAL, 0, node[0]),)))
    while len(publisher):
        await asyncio.sleep(await publisher.step() or 0)
    stored = kubectl.json("get", "gpunode", node[0])
    assert stored["status"]["health"] == "Unhealthy"
    assert [one["uid"] for one in stored["metadata"]["ownerReferences"]] == [node[1]]


async def test_a_uid_is_no_precondition_of_a_status_patch(
    api: KubeClient, kubectl: Kubectl, node: tuple[str, str]
) -> None:
    """Were it one, the publisher could refuse namesakes beforehand; this tells when that becomes possible."""
    kubectl.apply({"apiVersion": "gpudiag.dev/v1alpha1", "kind": "GPUNode", "metadata": {"name": node[0]}})
    body = {"metadata": {"uid": str(uuid4())}, "status": {"health": "Healthy"}}
    answer = await api.patch_status(f"{GPUNODES}/{node[0]}", body)
    assert answer["metadata"]["uid"] != body["metadata"]["uid"]
    with pytest.raises(ApiError) as refused:
        await api.patch_status(f"{GPUNODES}/{node[0]}", {"status": {"health": "Unknown"}}, resource_version="1")
    assert refused.value.conflict


async def test_events_are_counted_not_doubled(api: KubeClient, kubectl: Kubectl, node: tuple[str, str]) -> None:
    ref = ObjectRef(kind="GPUNode", name=node[0], uid=str(uuid4()))
    event = EventSpec(reason="GPUUnhealthy", message="it is", origin="then")
    for _ in range(3):
        await emit(api, ref, event, now=NOW)
    found = kubectl.json("get", "events", "-n", "default", f"--field-selector=involvedObject.name={node[0]}")["items"]
    assert [(one["reason"], one["count"], one["type"]) for one in found] == [("GPUUnhealthy", 3, "Warning")]


async def test_a_diagnostics_status_is_taken_and_changes_nothing_else(
    api: KubeClient, kubectl: Kubectl, namespace: str
) -> None:
    body = {
        "apiVersion": "gpudiag.dev/v1alpha1",
        "kind": "GPUDiagnostic",
        "metadata": {"name": "d", "namespace": namespace},
        "spec": {"mode": "Once"},
    }
    kubectl.apply(body)
    before = kubectl.json("get", "gpud", "d", "-n", namespace)
    states = [node_of("a"), node_of("b", findings=(finding(node="b"),)), node_of("c", failure=NotRead.TIMEOUT)]
    status = aggregate(
        Aggregation(
            spec=spec_of(mode="Once"),
            generation=1,
            states=states,
            missing=("ghost",),
            run_id="r",
            started_at=NOW,
            now=NOW,
        )
    )
    ref = DiagnosticRef(namespace=namespace, name="d", uid=before["metadata"]["uid"])
    publisher = DiagnosticPublisher(api)
    assert await publisher.publish(ref, previous=None, status=status)
    after = kubectl.json("get", "gpud", "d", "-n", namespace)
    assert after["status"] == budget.dump(status)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == 1
    for condition in ("Ready", "Complete"):
        kubectl("wait", f"--for=condition={condition}", "--timeout=5s", "gpud/d", "-n", namespace)
    events = kubectl.json("get", "events", "-n", namespace)["items"]
    assert [one["reason"] for one in events] == ["VerdictUnhealthy"]
    assert not await publisher.publish(
        DiagnosticRef(namespace=namespace, name="d", uid="another"), previous=status, status=status
    )
