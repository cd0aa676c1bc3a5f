"""What all questions about nodes share: finding, counting, ordering, and the row of one node."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from gpudiag_api import documentation
from gpudiag_api.times import from_rfc3339
from gpudiag_api.vocabulary import Check, Health, Severity
from gpudiag_mcp.answers import untrusted
from gpudiag_mcp.answers.refusals import not_found
from gpudiag_mcp.answers.rows import Counts, FindingRow, GPURow, NodeRow
from gpudiag_mcp.objects.node import GPUNode
from gpudiag_mcp.objects.parts import GPU, Evidence, Finding, GPUCounts

T = TypeVar("T")

EXAMPLES = 5
_BADNESS = {str(health): health.badness for health in Health}
_SEVERITY = {str(severity): severity.badness for severity in Severity}
_CHECKS = frozenset(Check)
_UNKNOWN = Health.UNKNOWN.badness


def badness(health: str) -> int:
    """Rank of a health word; a word that is not known ranks as Unknown: no data is not healthy."""
    return _BADNESS.get(health, _UNKNOWN)


def weight(severity: str) -> int:
    """Rank of a severity word; one that is not known ranks as Warning."""
    return _SEVERITY.get(severity, 1)


def health_word(health: str) -> str:
    """The word itself if it is one of the four, else Unknown."""
    return health if health in _BADNESS else "Unknown"


def one(nodes: Sequence[GPUNode], name: str, known: Callable[[], Iterable[str]]) -> GPUNode:
    """The node of that name.

    Raises:
        Refusal: there is none; with the nearest of the names in ``known``.
    """
    for node in nodes:
        if node.name == name:
            return node
    raise not_found("GPUNode", name, known(), list_with="list_gpu_nodes")


def in_maintenance(node: GPUNode, now: float) -> bool:
    """Whether people work on it now."""
    maintenance = node.spec.maintenance
    if maintenance is None:
        return False
    if not maintenance.until:
        return True
    try:
        return from_rfc3339(maintenance.until) > now
    except ValueError:
        return True


def worst_first(nodes: Iterable[GPUNode]) -> list[GPUNode]:
    """By health, then by how many GPUs are concerned, then by name."""
    return sorted(nodes, key=order)


def order(node: GPUNode) -> tuple[int, int, str]:
    """Sort key of :func:`worst_first`."""
    counts = node.status.gpu_counts
    return (-badness(node.status.health), -(counts.unhealthy + counts.unknown + counts.degraded), node.name)


def verdict(healths: Iterable[str]) -> str:
    """The worst of them; Unknown for none."""
    return health_word(max(healths, key=badness, default="Unknown"))


def count_nodes(nodes: Iterable[GPUNode]) -> Counts:
    """Nodes by health."""
    found = dict.fromkeys(_BADNESS, 0)
    for node in nodes:
        found[health_word(node.status.health)] += 1
    return Counts(
        total=sum(found.values()),
        healthy=found["Healthy"],
        degraded=found["Degraded"],
        unhealthy=found["Unhealthy"],
        unknown=found["Unknown"],
    )


def count_gpus(counted: Iterable[GPUCounts]) -> Counts:
    """GPUs by health."""
    total = healthy = degraded = unhealthy = unknown = 0
    for counts in counted:
        total += counts.total
        healthy += counts.healthy
        degraded += counts.degraded
        unhealthy += counts.unhealthy
        unknown += counts.unknown
    return Counts(total=total, healthy=healthy, degraded=degraded, unhealthy=unhealthy, unknown=unknown)


def node_row(node: GPUNode, now: float) -> NodeRow:
    """The row of a node."""
    status = node.status
    ready, agent = True, "Reachable"
    for condition in status.conditions:
        if condition.type == "Ready":
            ready = condition.status == "True"
        elif condition.type == "AgentReachable" and condition.status != "True":
            agent = untrusted.word(condition.reason)
    counts = status.gpu_counts
    return NodeRow(
        node=node.name,
        health=health_word(status.health),
        reason=untrusted.word(status.reason) if status.health != "Healthy" else "",
        action=untrusted.word(status.recommended_action),
        gpus=counts.total,
        bad_gpus=counts.total - counts.healthy,
        ready=ready and bool(status.conditions),
        agent=agent if status.conditions else "NotReadYet",
        breaker=untrusted.word(status.breaker.state),
        maintenance=in_maintenance(node, now),
    )


def gpu_row(gpu: GPU, pods: Sequence[str] = ()) -> GPURow:
    """The row of a GPU."""
    return GPURow(
        index=gpu.index,
        uuid=untrusted.name(gpu.uuid),
        pci=untrusted.name(gpu.pci),
        model=untrusted.model(gpu.model),
        serial=untrusted.name(gpu.serial),
        memory_gib=gib(gpu.memory_bytes),
        health=health_word(gpu.health),
        reason=untrusted.word(gpu.reason),
        mig=tuple(f"{untrusted.name(mig.instance)} {untrusted.name(mig.profile)}" for mig in gpu.mig),
        pods=tuple(pods),
    )


def grouped(found: Iterable[tuple[str, Finding]], *, of_one_node: bool = False) -> tuple[FindingRow, ...]:
    """Findings by check and reason, the worst and most frequent first.

    Args:
        found: node and finding.
        of_one_node: show indexes of GPUs, evidence and the node's own words.
    """
    groups: dict[tuple[str, str], list[tuple[str, Finding]]] = {}
    for node, finding in found:
        groups.setdefault((finding.check, finding.reason), []).append((node, finding))
    rows = [_group(members, of_one_node=of_one_node) for members in groups.values()]
    rows.sort(key=lambda row: (-weight(row.severity), -row.count, row.check, row.reason))
    return tuple(rows)


def _group(members: Sequence[tuple[str, Finding]], *, of_one_node: bool) -> FindingRow:
    worst = max((finding for _, finding in members), key=lambda finding: weight(finding.severity))
    nodes = sorted({node for node, _ in members})
    gpus = sorted({finding.subject.gpu for _, finding in members if finding.subject.gpu is not None})
    seen = [finding.first_seen for _, finding in members if finding.first_seen]
    return FindingRow(
        check=untrusted.word(worst.check),
        reason=untrusted.word(worst.reason),
        severity=untrusted.word(worst.severity),
        blame=untrusted.word(worst.blame),
        action=untrusted.word(worst.recommended_action),
        count=len(members),
        nodes=() if of_one_node else tuple(nodes[:EXAMPLES]),
        node_count=0 if of_one_node else len(nodes),
        gpus=tuple(gpus) if of_one_node else (),
        first_seen=untrusted.name(min(seen, default="")),
        documentation=page_of(worst.check),
        untrusted_evidence=tuple(map(measured, worst.evidence[:EXAMPLES])) if of_one_node else (),
        untrusted_message=untrusted.text(worst.message) if of_one_node else "",
    )


def page_of(check: str) -> str:
    """The page of a check, by its name: a node must not send anybody elsewhere."""
    return documentation.of(Check(check)) if check in _CHECKS else ""


def measured(evidence: Evidence) -> str:
    """``name = value unit (limit threshold unit)``."""
    unit = f" {evidence.unit}" if evidence.unit else ""
    limit = f" (limit {evidence.threshold}{unit})" if evidence.threshold else ""
    return untrusted.text(f"{evidence.name} = {evidence.value}{unit}{limit}", 160)


def unread(nodes: Iterable[GPUNode]) -> tuple[str, ...]:
    """A warning about the nodes that cannot be read now, by reason: what is said of them is the last known state."""
    reasons: dict[str, list[str]] = {}
    for node in nodes:
        if node.status.health == "Unknown":
            reasons.setdefault(untrusted.word(node.status.reason) or "NotReadYet", []).append(node.name)
    said = "; ".join(f"{reason}: {listed(names, 3)}" for reason, names in sorted(reasons.items())[:EXAMPLES])
    return (f"Not read at present, last known state ({said}).",) if said else ()


def why_unread(nodes: Iterable[GPUNode]) -> str | None:
    """The reason of the first node that is Unknown; None: none is."""
    return next((node.status.reason for node in nodes if health_word(node.status.health) == "Unknown"), None)


def gib(size: int | None) -> float | None:
    """Bytes as GiB with one decimal place."""
    return None if size is None else round(size / (1 << 30), 1)


def listed(names: Sequence[str], most: int = EXAMPLES) -> str:
    """``a, b, c and 4 more``."""
    rest = len(names) - most
    return f"{', '.join(names[:most])} and {rest} more" if rest > 0 else ", ".join(names)


def plural(number: int, what: str) -> str:
    """``1 node``, ``2 nodes``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
