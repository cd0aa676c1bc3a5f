"""The reflector, discovery and the API client against a real API server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gpudiag_api.vocabulary import NotRead
from gpudiag_cli.controlplane import ControlPlane, Kubectl
from gpudiag_operator.discover.discovery import Discovery
from gpudiag_operator.discover.projections import node_projection, project_pod
from gpudiag_operator.domain import AgentPod, NodeInfo, Target
from gpudiag_operator.kube.access import load_access
from gpudiag_operator.kube.client import KubeClient
from gpudiag_operator.kube.errors import ApiError
from gpudiag_operator.kube.reflector import Reflector

pytestmark = pytest.mark.cluster

SELECTOR = "app.kubernetes.io/name=gpudiag-agent"


@pytest.fixture
async def api(control_plane: ControlPlane) -> AsyncIterator[KubeClient]:
    access = await load_access(kubeconfig=str(control_plane.kubeconfig))
    async with KubeClient(access, user_agent="a test") as client:
        yield client


class Copy:
    """A TargetListener that keeps what it was told, and lets a test wait for it."""

    def __init__(self) -> None:
        self.targets: dict[str, Target] = {}
        self.changed = asyncio.Condition()
        self._background: set[asyncio.Task[None]] = set()

    def set_target(self, target: Target) -> None:
        self.targets[target.node] = target
        self._notify()

    def remove_target(self, node: str) -> None:
        del self.targets[node]
        self._notify()

    def _notify(self) -> None:
        async def notify() -> None:
            async with self.changed:
                self.changed.notify_all()

        task = asyncio.create_task(notify())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def until(self, node: str, blocked: NotRead | None) -> Target:
        def reached() -> bool:
            return node in self.targets and self.targets[node].blocked is blocked

        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(reached)
        return self.targets[node]


def a_node(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.present": "true"}},
    }


def an_agent(namespace: str, node: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"agent-{node}",
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "gpudiag-agent"},
        },
        "spec": {
            "nodeName": node,
            "containers": [{"name": "a", "image": "a", "ports": [{"name": "http", "containerPort": 9810}]}],
        },
    }


READY = {"status": {"podIP": "127.1.2.3", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}


async def test_targets_follow_the_cluster(api: KubeClient, namespace: str) -> None:
    nodes: Reflector[NodeInfo] = Reflector(api, "/api/v1/nodes", node_projection(), page=2)
    pods_path = f"/api/v1/namespaces/{namespace}/pods"
    pods: Reflector[AgentPod] = Reflector(api, pods_path, project_pod, label_selector=SELECTOR)
    copy = Copy()
    discovery = Discovery(copy)
    nodes.add_listener(discovery.nodes)
    pods.add_listener(discovery.pods)
    names = [f"{namespace}-{number}" for number in range(5)]
    for name in names:
        await api.create("/api/v1/nodes", a_node(name))
    tasks = [asyncio.create_task(nodes.run()), asyncio.create_task(pods.run())]
    try:
        async with asyncio.timeout(20):
            await asyncio.gather(nodes.synced.wait(), pods.synced.wait())
        discovery.start()
        assert {copy.targets[name].blocked for name in names} == {NotRead.AGENT_MISSING}
        first = names[0]
        await api.create(pods_path, an_agent(namespace, first))
        await copy.until(first, NotRead.AGENT_NOT_READY)
        await api.patch_status(f"{pods_path}/agent-{first}", READY)
        target = await copy.until(first, None)
        assert target.pod is not None
        assert (target.pod.ip, target.pod.port) == ("127.1.2.3", 9810)
        await api.delete(f"{pods_path}/agent-{first}?gracePeriodSeconds=0")
        await copy.until(first, NotRead.AGENT_MISSING)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for name in names:
            with contextlib.suppress(ApiError):
                await api.delete(f"/api/v1/nodes/{name}")


async def test_watches_that_end_go_on_where_they_were(api: KubeClient, namespace: str) -> None:
    listed: list[int] = []
    faults: list[str] = []

    class Metrics:
        def listed(self, resource: str, count: int) -> None:
            listed.append(count)

        def watch_failed(self, resource: str, reason: str) -> None:
            faults.append(reason)

    path = f"/api/v1/namespaces/{namespace}/configmaps"
    reflector: Reflector[bytes] = Reflector(api, path, bytes, watch_seconds=2, metrics=Metrics())
    running = asyncio.create_task(reflector.run())
    try:
        async with asyncio.timeout(20):
            await reflector.synced.wait()
            for number in range(4):
                await asyncio.sleep(1.5)
                await api.create(path, {"metadata": {"name": f"c{number}"}})
            while f"c{number}" not in reflector.items:
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert {f"c{number}" for number in range(4)} <= set(reflector.items)
    assert len(listed) == 1
    assert not faults


async def test_conditional_writes(api: KubeClient, namespace: str, kubectl: Kubectl) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    made = await api.create(path, {"metadata": {"name": "x"}, "data": {"a": "1"}})
    version = made["metadata"]["resourceVersion"]
    await api.patch(f"{path}/x", {"data": {"a": "2"}}, resource_version=version)
    with pytest.raises(ApiError) as caught:
        await api.patch(f"{path}/x", {"data": {"a": "3"}}, resource_version=version)
    assert caught.value.conflict
    with pytest.raises(ApiError) as caught:
        await api.create(path, {"metadata": {"name": "x"}})
    assert caught.value.already_exists
    assert kubectl.json("get", "configmap", "x", "-n", namespace)["data"] == {"a": "2"}
    with pytest.raises(ApiError) as caught:
        await api.get(f"{path}/y")
    assert caught.value.not_found
