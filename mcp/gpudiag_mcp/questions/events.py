"""What happened when, from what the GPUNodes hold: findings, XID errors, changes of conditions."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from gpudiag_mcp.answers import untrusted
from gpudiag_mcp.answers.rows import EventRow
from gpudiag_mcp.objects.node import GPUNode
from gpudiag_mcp.objects.parts import Condition, Finding, XIDEvent


@dataclass(frozen=True)
class Newest:
    """The newest events, newest first, and how many there are in all."""

    rows: tuple[EventRow, ...]
    total: int


def newest(nodes: Iterable[GPUNode], most: int, *, with_info: bool) -> Newest:
    """The newest ``most`` events of the nodes; what has no time comes last.

    Args:
        nodes: whose.
        most: rows; only these are made, since a fleet may hold tens of thousands.
        with_info: also what does not affect health: errors of applications, conditions that are met.
    """
    found = [
        (at, index, node.name, event)
        for index, node in enumerate(nodes)
        for at, severity, event in _events(node)
        if with_info or severity != "Info"
    ]
    top = heapq.nlargest(most, found, key=lambda it: (it[0], -it[1]))
    return Newest(tuple(_row(name, event) for _, _, name, event in top), len(found))


def _events(node: GPUNode) -> Iterable[tuple[str, str, Finding | XIDEvent | Condition]]:
    for finding in node.status.findings:
        yield finding.first_seen or "", finding.severity, finding
    for event in node.status.xids:
        yield event.last_seen or event.first_seen or "", event.severity, event
    for condition in node.status.conditions:
        yield condition.last_transition_time, "Info" if condition.status == "True" else "Warning", condition


def _row(node: str, event: Finding | XIDEvent | Condition) -> EventRow:
    match event:
        case Finding():
            return EventRow(
                at=untrusted.name(event.first_seen),
                node=node,
                kind="Finding",
                what=f"{untrusted.word(event.check)}/{untrusted.word(event.reason)}",
                severity=untrusted.word(event.severity),
                gpu=event.subject.gpu,
                count=event.count,
                untrusted_message=untrusted.text(event.message),
            )
        case XIDEvent():
            return of_xid(node, event)
        case _:
            return EventRow(
                at=untrusted.name(event.last_transition_time),
                node=node,
                kind="Condition",
                what=f"{untrusted.word(event.type)}={untrusted.word(event.status)} ({untrusted.word(event.reason)})",
                severity="Info" if event.status == "True" else "Warning",
            )


def of_xid(node: str, event: XIDEvent) -> EventRow:
    """An XID error; its time is that of the last occurrence."""
    return EventRow(
        at=untrusted.name(event.last_seen or event.first_seen),
        node=node,
        kind="XID",
        what=f"XID {event.code} {untrusted.name(event.name)}".strip(),
        severity=untrusted.word(event.severity),
        gpu=event.subject.gpu,
        pod=pod_name(event.pod),
        count=event.count,
        untrusted_message=untrusted.text(event.message),
    )


def xids_newest_first(found: Iterable[tuple[str, XIDEvent]], most: int) -> tuple[EventRow, ...]:
    """The newest ``most`` XID errors of (node, error) pairs."""
    ordered = heapq.nlargest(most, found, key=lambda it: it[1].last_seen or it[1].first_seen or "")
    return tuple(of_xid(node, event) for node, event in ordered)


def pod_name(pod: str | None) -> str:
    """``namespace/name`` as an agent reported it, or nothing."""
    if not pod:
        return ""
    namespace, _, name = pod.partition("/")
    return f"{untrusted.object_name(namespace)}/{untrusted.object_name(name)}"
