"""From what is known of one node to its target: read this Pod, or cannot be read because of that. Pure."""

from collections.abc import Collection, Iterable, Mapping

from gpudiag_api.vocabulary import NotRead
from gpudiag_operator.domain import AgentPod, NodeInfo, Target


def target_of(node: NodeInfo | None, pods: Collection[AgentPod], *, gpu: bool) -> Target | None:
    """The target of one node.

    Args:
        node: None when there is no such Node (any more).
        pods: all agent Pods that are bound to it, terminating ones included.
        gpu: something shows that it has NVIDIA GPUs: its labels or capacity, or a GPUNode that lists GPUs.

    Returns:
        None when there is nothing to read. Without any sign of GPUs only a ready agent makes a target: its report
        decides, and a missing or starting agent on a node without GPUs is nobody's trouble.
    """
    if node is None:
        return None
    live = [pod for pod in pods if not pod.terminating]
    if not gpu:
        only = live[0] if len(live) == 1 else None
        return Target(node=node.name, pod=only) if only and node.ready and _answers(only) else None
    return _of_gpu_node(node, live, leaving=len(pods) > len(live))


def targets(
    nodes: Iterable[NodeInfo], pods: Iterable[AgentPod], nodes_with_gpus: Collection[str]
) -> Mapping[str, Target]:
    """The targets of a whole cluster, by node name: what the incremental discovery must agree with.

    Args:
        nodes: all Nodes.
        pods: all agent Pods.
        nodes_with_gpus: names of GPUNodes whose status lists GPUs.
    """
    by_node: dict[str, list[AgentPod]] = {}
    for pod in pods:
        by_node.setdefault(pod.node, []).append(pod)
    found = (
        target_of(node, by_node.get(node.name, ()), gpu=node.gpu or node.name in nodes_with_gpus) for node in nodes
    )
    return {target.node: target for target in found if target is not None}


def _of_gpu_node(node: NodeInfo, live: list[AgentPod], *, leaving: bool) -> Target:
    if not node.ready:
        # First, because it explains whatever is wrong with the agent.
        return _blocked(
            node,
            live[0] if len(live) == 1 else None,
            NotRead.NODE_NOT_READY,
            "the Node is not Ready; see its conditions with kubectl describe node",
        )
    if not live:
        why = "the agent's Pod is terminating and no other has started" if leaving else "no agent Pod runs on this node"
        return _blocked(
            node,
            None,
            NotRead.AGENT_MISSING,
            f"{why}; check the DaemonSet's node selector and tolerations, and --agent-selector",
        )
    if len(live) > 1:
        names = ", ".join(sorted(pod.name for pod in live)[:3])
        return _blocked(
            node,
            None,
            NotRead.AGENT_DUPLICATE,
            f"{len(live)} agent Pods run on this node ({names}); leave one DaemonSet that matches --agent-selector",
        )
    pod = live[0]
    if not _answers(pod):
        what = "is not Ready" if pod.ip else "has no IP address yet"
        return _blocked(
            node, pod, NotRead.AGENT_NOT_READY, f"agent Pod {pod.name} {what}; see kubectl describe pod and its log"
        )
    return Target(node=node.name, pod=pod)


def _answers(pod: AgentPod) -> bool:
    return pod.ready and bool(pod.ip)


def _blocked(node: NodeInfo, pod: AgentPod | None, reason: NotRead, message: str) -> Target:
    return Target(node=node.name, pod=pod, blocked=reason, message=message)
