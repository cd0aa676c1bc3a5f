"""Which pod holds which GPU, and whose fault a pod's failure is."""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gpudiag_mcp.answers import untrusted
from gpudiag_mcp.answers.models import AllocationAnswer
from gpudiag_mcp.answers.rows import AllocationRow
from gpudiag_mcp.objects.node import Allocation, GPUNode
from gpudiag_mcp.objects.parts import GPU
from gpudiag_mcp.questions.fleet import badness, health_word, listed, plural, unread

ROWS = 50
NAMESPACES = 30


def holders(node: GPUNode) -> Mapping[str, tuple[str, ...]]:
    """Pods by the UUID of the whole GPU that they hold, or hold a part of."""
    whole = {mig.uuid: gpu.uuid for gpu in node.status.gpus for mig in gpu.mig}
    found: dict[str, list[str]] = {}
    for held in node.status.allocations:
        pod = f"{untrusted.object_name(held.namespace)}/{untrusted.object_name(held.pod)}"
        pods = found.setdefault(whole.get(held.gpu_uuid, held.gpu_uuid), [])
        if pod not in pods:
            pods.append(pod)
    return {uuid: tuple(pods) for uuid, pods in found.items()}


def gpus_by_uuid(node: GPUNode) -> Mapping[str, GPU]:
    """GPUs by their UUID and by those of their MIG devices."""
    found = {gpu.uuid: gpu for gpu in node.status.gpus}
    return found | {mig.uuid: gpu for gpu in node.status.gpus for mig in gpu.mig}


class Held(NamedTuple):
    """An allocation, its node, and the GPU it is of or a part of; None when the node does not list it."""

    allocation: Allocation
    node: GPUNode
    gpu: GPU | None

    @property
    def on_bad_gpu(self) -> bool:
        """Whether that GPU is not Healthy."""
        return self.gpu is None or self.gpu.health != "Healthy"


def find(nodes: Iterable[GPUNode], *, namespace: str = "", pod: str = "") -> list[Held]:
    """All allocations of a namespace, a pod, or everybody."""
    found: list[Held] = []
    for node in nodes:
        gpus = gpus_by_uuid(node) if node.status.allocations else {}
        found += [
            Held(held, node, gpus.get(held.gpu_uuid))
            for held in node.status.allocations
            if (not namespace or held.namespace == namespace) and (not pod or held.pod == pod)
        ]
    return found


def rows(found: Iterable[Held], most: int = ROWS) -> tuple[AllocationRow, ...]:
    """The first ``most`` of them, those on bad GPUs first."""
    everything = list(found)
    bad = [held for held in everything if held.on_bad_gpu]
    # Of 8,000 allocations few are on bad GPUs: the others are ordered only where they are shown.
    chosen = heapq.nsmallest(most, bad if len(bad) >= most else everything, key=_order)
    return tuple(_row(held) for held in chosen)


def _order(held: Held) -> tuple[int, str, str, str]:
    bad = badness(held.gpu.health) if held.gpu else badness("Unknown")
    return (-bad, held.allocation.namespace, held.allocation.pod, held.node.name)


def _row(held: Held) -> AllocationRow:
    one, gpu = held.allocation, held.gpu
    return AllocationRow(
        namespace=untrusted.object_name(one.namespace),
        pod=untrusted.object_name(one.pod),
        container=untrusted.object_name(one.container),
        node=held.node.name,
        gpu=str(gpu.index) if gpu else untrusted.name(one.gpu_uuid),
        gpu_health=health_word(gpu.health) if gpu else "Unknown",
        gpu_reason=untrusted.word(gpu.reason) if gpu else "NotListed",
    )


def pod_names(found: Iterable[Held]) -> list[str]:
    """``namespace/name`` of the pods, each once, in the given order."""
    pairs = dict.fromkeys((held.allocation.namespace, held.allocation.pod) for held in found)
    return [f"{untrusted.object_name(namespace)}/{untrusted.object_name(pod)}" for namespace, pod in pairs]


def allocation(nodes: Sequence[GPUNode], *, node: str = "", namespace: str = "", pod: str = "") -> AllocationAnswer:
    """``get_pod_gpu_allocation``."""
    found = find(nodes, namespace=namespace, pod=pod)
    spaces = Counter(held.allocation.namespace for held in found).most_common(NAMESPACES)
    total = sum(one.status.gpu_counts.total for one in nodes)
    bad = pod_names(held for held in found if held.on_bad_gpu)
    where = f"on {node}" if node else f"on {plural(len(nodes), 'node')}"
    summary = f"{plural(len(found), 'GPU or MIG device')} of {plural(total, 'GPU')} {where} held by containers."
    if found:
        summary += f" Namespaces: {listed([untrusted.object_name(name) for name, _ in spaces])}."
    if bad:
        summary += f" On GPUs that are not Healthy: {listed(bad)}."
    return AllocationAnswer(
        summary=summary,
        gpus=total,
        allocated=len(found),
        by_namespace={untrusted.object_name(name): number for name, number in spaces} or None,
        rows=rows(found),
        warnings=_blind(nodes),
        truncated=len(found) > ROWS,
        narrow="Pass node, namespace or pod." if len(found) > ROWS else "",
    )


def _blind(nodes: Sequence[GPUNode]) -> tuple[str, ...]:
    """Where allocations are not known, and why that matters."""
    blind = [one.name for one in nodes if any(gap.reason == "NoPodResources" for gap in one.status.agent.capabilities)]
    warnings = [f"Allocations are not known on {listed(blind)} (NoPodResources)."] if blind else []
    return (*warnings, *unread(nodes))
