"""What the operator keeps of Nodes, agent Pods and GPUNodes: projections of their JSON, decoded field by field.

Node and Pod JSON is 16 KB and more, of which a few hundred bytes matter. msgspec skips the rest without making
objects of it. Label keys and values repeat over thousands of nodes, so they are interned.
"""

import sys
from collections.abc import Callable, Mapping

import msgspec

from gpudiag_operator.domain import AgentPod, NodeInfo
from gpudiag_operator.kube.selectors import Selector

GPU_PRESENT_LABELS: Mapping[str, str] = {
    "nvidia.com/gpu.present": "true",
    "feature.node.kubernetes.io/pci-10de.present": "true",
}
"""Set by NVIDIA's feature discovery and by node feature discovery (PCI vendor 10de is NVIDIA)."""

_RESOURCE_PREFIX = "nvidia.com/"
_FINISHED = frozenset({"Succeeded", "Failed"})
PORT_NAME = "http"


class _Meta(msgspec.Struct, rename="camel"):
    name: str
    uid: str = ""
    labels: dict[str, str] | None = None
    deletion_timestamp: str | None = None


class _Condition(msgspec.Struct):
    type: str
    status: str


class _NodeStatus(msgspec.Struct):
    capacity: dict[str, str | int] | None = None
    conditions: list[_Condition] | None = None


class _Node(msgspec.Struct):
    metadata: _Meta
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)


class _Port(msgspec.Struct, rename="camel"):
    name: str = ""
    container_port: int = 0


class _Container(msgspec.Struct):
    ports: list[_Port] | None = None


class _PodSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""
    containers: list[_Container] = []


class _PodStatus(msgspec.Struct, rename="camel"):
    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    conditions: list[_Condition] | None = None


class _Pod(msgspec.Struct):
    metadata: _Meta
    spec: _PodSpec
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)


class _Inventory(msgspec.Struct):
    gpus: list[msgspec.Raw] | None = None


class _GPUNode(msgspec.Struct):
    status: _Inventory = msgspec.field(default_factory=_Inventory)


_node_decoder = msgspec.json.Decoder(_Node)
_pod_decoder = msgspec.json.Decoder(_Pod)
_gpunode_decoder = msgspec.json.Decoder(_GPUNode)


def node_projection(gpu_selector: Selector | None = None) -> Callable[[msgspec.Raw | bytes], NodeInfo]:
    """A projection of Nodes (v1).

    Args:
        gpu_selector: ``--gpu-node-selector``: nodes it matches count as GPU nodes, too. None: labels and capacity only.
            An empty selector matches every node.

    The projection raises msgspec.DecodeError for what is not a Node.
    """

    def project(raw: msgspec.Raw | bytes) -> NodeInfo:
        node = _node_decoder.decode(raw)
        labels = {sys.intern(key): sys.intern(value) for key, value in (node.metadata.labels or {}).items()}
        by_people = gpu_selector is not None and gpu_selector.matches(labels)
        return NodeInfo(
            name=node.metadata.name,
            uid=node.metadata.uid,
            ready=_ready(node.status.conditions, absent=True),
            labels=labels,
            gpu=by_people or _labelled(labels) or _has_capacity(node.status.capacity or {}),
        )

    return project


def project_pod(raw: msgspec.Raw | bytes) -> AgentPod | None:
    """A projection of agent Pods (v1). None for a Pod that is on no node yet, or that has finished.

    Raises:
        msgspec.DecodeError: not a Pod.
    """
    pod = _pod_decoder.decode(raw)
    if not pod.spec.node_name or pod.status.phase in _FINISHED:
        return None
    return AgentPod(
        name=pod.metadata.name,
        uid=pod.metadata.uid,
        node=pod.spec.node_name,
        ip=pod.status.pod_ip,
        ready=_ready(pod.status.conditions, absent=False),
        terminating=pod.metadata.deletion_timestamp is not None,
        port=_http_port(pod.spec.containers),
    )


def project_gpunode(raw: msgspec.Raw | bytes) -> bool:
    """Whether a GPUNode's status lists GPUs: then its Node is a GPU node, whatever its labels say.

    Raises:
        msgspec.DecodeError: not a GPUNode.
    """
    return bool(_gpunode_decoder.decode(raw).status.gpus)


def _ready(conditions: list[_Condition] | None, *, absent: bool) -> bool:
    return next((one.status == "True" for one in conditions or () if one.type == "Ready"), absent)


def _labelled(labels: Mapping[str, str]) -> bool:
    return any(labels.get(key) == value for key, value in GPU_PRESENT_LABELS.items())


def _has_capacity(capacity: Mapping[str, str | int]) -> bool:
    """Any ``nvidia.com/*`` resource above zero: whole GPUs, MIG profiles, shared ones.

    A zero is what a device plugin leaves behind that finds none, for example after it was moved off the node.
    """
    return any(key.startswith(_RESOURCE_PREFIX) and str(amount) != "0" for key, amount in capacity.items())


def _http_port(containers: list[_Container]) -> int | None:
    for container in containers:
        for port in container.ports or ():
            if port.name == PORT_NAME and port.container_port:
                return port.container_port
    return None
