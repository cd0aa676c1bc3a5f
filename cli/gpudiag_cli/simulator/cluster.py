"""Nodes and agent Pods for agents that listen on loopback addresses: what a kubelet and a DaemonSet would make.

The operator finds simulated agents as it finds real ones. Only an API server without kubelets, scheduler and node
life-cycle controller, such as the embedded one, keeps these objects as they are.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from gpudiag_api.times import to_rfc3339
from gpudiag_cli.kubeapi import APIError, KubeAPI
from gpudiag_cli.simulator.faults import Fault
from gpudiag_cli.simulator.node import SimulatedNode

NAMESPACE = "gpudiag-system"
AGENT_LABELS = {"app.kubernetes.io/name": "gpudiag-agent"}
_SIMULATED = {"app.kubernetes.io/managed-by": "gpudiag-simulator"}
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """A node and where its agent listens, whoever serves it."""

    name: str
    address: str
    """Becomes the Pod's ``status.podIP``."""
    gpus: int
    model: str
    port: int = 9810
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, node: SimulatedNode) -> "Member":
        """The member that a simulated node is."""
        return cls(
            name=node.name,
            address=node.address,
            port=node.port,
            gpus=node.machine.gpu_count,
            model=node.machine.model,
            labels=node.spec.labels,
        )

    @property
    def pod(self) -> str:
        """Name of the agent's Pod."""
        return f"gpudiag-agent-{self.name}"


class Cluster:
    """Writes members to an API server. Every method may be repeated: it makes things so, whatever was before."""

    def __init__(self, api: KubeAPI, namespace: str = NAMESPACE, clock: Callable[[], float] = time.time) -> None:
        self._api = api
        self._namespace = namespace
        self._clock = clock

    async def add(self, members: Iterable[Member]) -> None:
        """Create Nodes and Pods, or make existing ones of the same names so; the namespace too.

        Raises:
            CommandError: the API server refuses them or does not answer.
        """
        await self._ensure_namespace()
        await _each(self._add, members)

    async def remove(self, members: Iterable[Member]) -> None:
        """Delete Pods and Nodes; what the operator keeps of them is garbage-collected with the Nodes.

        Raises:
            CommandError: the API server refuses it or does not answer.
        """
        await _each(self._remove, members)

    async def follow(self, members: Mapping[Member, frozenset[Fault]]) -> None:
        """Make Node and Pod of each member as its faults of the cluster have it; none: both are there and well.

        Raises:
            CommandError: the API server refuses it or does not answer.
        """

        async def one(member: Member) -> None:
            faults = members[member]
            if Fault.NODE_GONE in faults:
                await self._remove(member)
                return
            await self._add_node(member, ready=Fault.NODE_NOT_READY not in faults)
            if Fault.AGENT_GONE in faults:
                await self.remove_pod(member)
            else:
                await self.add_pod(member, ready=Fault.AGENT_NOT_READY not in faults)

        await _each(one, members)

    async def set_node_ready(self, member: Member, *, ready: bool) -> None:
        """Set the Node's condition Ready, as a kubelet does or, when it is gone, the node controller.

        Raises:
            CommandError: the API server refuses it or does not answer.
        """
        await self._api.apply(f"{self._node_path(member)}/status", self._node(member, ready=ready))

    async def set_pod_ready(self, member: Member, *, ready: bool) -> None:
        """Set the Pod's condition Ready, as a kubelet does after its readiness probe.

        Raises:
            CommandError: the API server refuses it or does not answer.
        """
        await self._api.apply(f"{self._pod_path(member)}/status", self._pod(member, ready=ready))

    async def add_pod(self, member: Member, *, ready: bool = True) -> None:
        """Create only the agent's Pod, or make it so.

        Raises:
            CommandError: the API server refuses it or does not answer.
        """
        path, manifest = self._pod_path(member), self._pod(member, ready=ready)
        without_status = {key: value for key, value in manifest.items() if key != "status"}
        try:
            await self._api.apply(path, without_status)
        except APIError as error:
            # A Pod's spec cannot be changed: one of this name with another port or node has to go first.
            if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            await self._api.delete(path)
            await self._api.apply(path, without_status)
        await self._api.apply(f"{path}/status", manifest)

    async def remove_pod(self, member: Member) -> None:
        """Delete only the agent's Pod.

        Raises:
            CommandError: the API server refuses it or does not answer.
        """
        await self._api.delete(self._pod_path(member))

    async def _ensure_namespace(self) -> None:
        path = f"/api/v1/namespaces/{self._namespace}"
        try:
            await self._api.get(path)
        except APIError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            labels = {"pod-security.kubernetes.io/enforce": "privileged"}
            metadata = {"name": self._namespace, "labels": labels}
            await self._api.apply(path, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    async def _add(self, member: Member) -> None:
        await self._add_node(member, ready=True)
        await self.add_pod(member)

    async def _add_node(self, member: Member, *, ready: bool) -> None:
        manifest, path = self._node(member, ready=ready), self._node_path(member)
        await self._api.apply(path, {key: value for key, value in manifest.items() if key != "status"})
        await self._api.apply(f"{path}/status", manifest)

    async def _remove(self, member: Member) -> None:
        await self._api.delete(self._pod_path(member))
        await self._api.delete(self._node_path(member))

    def _node_path(self, member: Member) -> str:
        return f"/api/v1/nodes/{member.name}"

    def _pod_path(self, member: Member) -> str:
        return f"/api/v1/namespaces/{self._namespace}/pods/{member.pod}"

    def _node(self, member: Member, *, ready: bool = True) -> dict[str, Any]:
        resources = {"cpu": "96", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": str(member.gpus)}
        reason = "KubeletReady" if ready else "KubeletNotReady"
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": member.name, "labels": _labels(member)},
            "status": {
                "capacity": resources,
                "allocatable": resources,
                "conditions": [self._condition(ready=ready, reason=reason)],
            },
        }

    def _pod(self, member: Member, *, ready: bool = True) -> dict[str, Any]:
        now = to_rfc3339(self._clock())
        container = {
            "name": "agent",
            "image": "gpudiag-agent:simulated",
            "ports": [{"name": "http", "containerPort": member.port, "protocol": "TCP"}],
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": member.pod,
                "namespace": self._namespace,
                "labels": {**AGENT_LABELS, **_SIMULATED},
            },
            "spec": {"nodeName": member.name, "containers": [container], "tolerations": [{"operator": "Exists"}]},
            "status": {
                "phase": "Running",
                "podIP": member.address,
                "podIPs": [{"ip": member.address}],
                "startTime": now,
                "conditions": [self._condition(ready=ready, reason="Simulated")],
                "containerStatuses": [
                    {
                        "name": "agent",
                        "image": container["image"],
                        "imageID": "",
                        "ready": ready,
                        "restartCount": 0,
                        "started": True,
                        "state": {"running": {"startedAt": now}},
                    }
                ],
            },
        }

    def _condition(self, *, ready: bool, reason: str) -> dict[str, Any]:
        now = to_rfc3339(self._clock())
        status = "True" if ready else "False"
        return {"type": "Ready", "status": status, "reason": reason, "lastTransitionTime": now}


def _labels(member: Member) -> dict[str, str]:
    """What GPU feature discovery would put on the Node, and what the scenario says."""
    product = member.model.removeprefix("NVIDIA ").replace(" ", "-")
    return {
        "kubernetes.io/hostname": member.name,
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.count": str(member.gpus),
        "nvidia.com/gpu.product": product,
        **_SIMULATED,
        **member.labels,
    }


async def _each(act: Callable[[Member], Awaitable[None]], members: Iterable[Member]) -> None:
    """Act on all members, some at a time; the first error ends it."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(member: Member) -> None:
        async with gate:
            await act(member)

    try:
        async with asyncio.TaskGroup() as group:
            for member in members:
                group.create_task(one(member))
    except ExceptionGroup as errors:
        # They fail alike; one sentence is for people, a tree of them is not.
        raise errors.exceptions[0] from None
