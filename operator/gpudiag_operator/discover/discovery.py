"""Discovery: the targets kept up to date by events, one node at a time.

An event costs the work of one node, never of the fleet: 5,000 targets computed for each of 5,000 events of an agent
roll-out would be 25 million. What comes out is what :func:`.targets.targets` gives for the same objects (tested).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

from gpudiag_operator.discover.targets import target_of
from gpudiag_operator.domain import AgentPod, NodeInfo, Target
from gpudiag_operator.kube.reflector import Listener

T = TypeVar("T")


class TargetListener(Protocol):
    """Told of each change of a target."""

    def set_target(self, target: Target) -> None:
        """A node is to be read, or the way or the reason why not changed."""
        ...

    def remove_target(self, node: str) -> None:
        """The node is gone, or there is nothing on it to read."""
        ...


@dataclass(frozen=True)
class _Feed(Generic[T]):
    """A Listener made of two methods of Discovery."""

    upsert: Callable[[str, T], None]
    delete: Callable[[str], None]


class Discovery:
    """Targets from three feeds: connect ``nodes``, ``pods`` and ``gpunodes`` as listeners to their reflectors.

    Nothing is told before ``start``: while the first lists arrive one after the other, every node would be
    AgentMissing for a moment.
    """

    def __init__(self, listener: TargetListener) -> None:
        self._listener = listener
        self._nodes: dict[str, NodeInfo] = {}
        self._pods: dict[str, AgentPod] = {}
        self._pods_of: dict[str, dict[str, AgentPod]] = {}
        self._with_gpus: set[str] = set()
        self._targets: dict[str, Target] = {}
        self._started = False
        self.nodes: Listener[NodeInfo] = _Feed(self._node_upsert, self._node_delete)
        self.pods: Listener[AgentPod] = _Feed(self._pod_upsert, self._pod_delete)
        self.gpunodes: Listener[bool] = _Feed(self._gpunode_upsert, self._gpunode_delete)
        """Whether the GPUNode of that name lists GPUs."""

    @property
    def targets(self) -> Mapping[str, Target]:
        """The targets by node name. A live, read-only view."""
        return MappingProxyType(self._targets)

    def node(self, name: str) -> NodeInfo | None:
        """What is known of a Node; None when there is none."""
        return self._nodes.get(name)

    def node_names(self) -> Iterable[str]:
        """Names of all Nodes, GPU or not."""
        return self._nodes.keys()

    def is_gpu_node(self, name: str) -> bool:
        """Whether anything but an agent shows that the node has NVIDIA GPUs (design, section 4.2).

        A target that is none, and whose report lists no GPUs, is no GPU node.
        """
        node = self._nodes.get(name)
        return node is not None and (node.gpu or name in self._with_gpus)

    def start(self) -> None:
        """The first lists are complete: tell all targets, and from now on every change."""
        self._started = True
        for name in self._nodes:
            self._refresh(name)

    def _refresh(self, name: str) -> None:
        if not self._started:
            return
        pods = self._pods_of.get(name, {}).values()
        target = target_of(self._nodes.get(name), pods, gpu=self.is_gpu_node(name))
        if target == self._targets.get(name):
            return
        if target is None:
            del self._targets[name]
            self._listener.remove_target(name)
        else:
            self._targets[name] = target
            self._listener.set_target(target)

    def _node_upsert(self, name: str, node: NodeInfo) -> None:
        self._nodes[name] = node
        self._refresh(name)

    def _node_delete(self, name: str) -> None:
        self._nodes.pop(name, None)
        self._refresh(name)

    def _pod_upsert(self, name: str, pod: AgentPod) -> None:
        before = self._pods.get(name)
        if before is not None and before.node != pod.node:  # deleted and made again between two lists
            self._pod_delete(name)
        self._pods[name] = pod
        self._pods_of.setdefault(pod.node, {})[name] = pod
        self._refresh(pod.node)

    def _pod_delete(self, name: str) -> None:
        pod = self._pods.pop(name, None)
        if pod is None:
            return
        others = self._pods_of[pod.node]
        del others[name]
        if not others:
            del self._pods_of[pod.node]
        self._refresh(pod.node)

    def _gpunode_upsert(self, name: str, has_gpus: bool) -> None:  # noqa: FBT001  (the Listener's signature)
        if has_gpus:
            self._with_gpus.add(name)
        else:
            self._with_gpus.discard(name)
        self._refresh(name)

    def _gpunode_delete(self, name: str) -> None:
        self._with_gpus.discard(name)
        self._refresh(name)
