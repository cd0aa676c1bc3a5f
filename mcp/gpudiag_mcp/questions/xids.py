"""XID errors of the fleet, of a node, of a code."""

from collections.abc import Iterable, Sequence

from gpudiag_api import xids as catalogue
from gpudiag_mcp.answers import untrusted
from gpudiag_mcp.answers.models import XIDAnswer
from gpudiag_mcp.answers.rows import CatalogueRow, XIDRow
from gpudiag_mcp.objects.node import GPUNode
from gpudiag_mcp.objects.parts import XIDEvent
from gpudiag_mcp.questions import advice, events
from gpudiag_mcp.questions.fleet import EXAMPLES, listed, plural, unread, weight

CODES = 24
EVENTS = 20
DOCS = "https://docs.nvidia.com/deploy/xid-errors/index.html"
_WORST = {"Critical": "Unhealthy", "Warning": "Degraded"}


def analyze(nodes: Sequence[GPUNode], *, node: str = "", code: int = 0) -> XIDAnswer:
    """``analyze_xid_errors``: by code, the worst first; single events for one node or one code.

    Args:
        nodes: the fleet, or the one node.
        node: its name, when it is one.
        code: only this code; 0: all.
    """
    found = [(one.name, event) for one in nodes for event in one.status.xids if not code or event.code == code]
    rows = rows_of(found)
    total = sum(event.count for _, event in found)
    singles = events.xids_newest_first(found, EVENTS) if node or code else ()
    cut = len(rows) > CODES or (bool(singles) and len(found) > EVENTS)
    result = _WORST.get(rows[0].severity, "Healthy") if rows else "Healthy"
    blind = [one.name for one in nodes if any(gap.reason == "NoKernelLog" for gap in one.status.agent.capabilities)]
    away = [one.name for one in nodes if one.status.health == "Unknown"]
    if not rows and (away or blind) and len(set(away) | set(blind)) == len(nodes):
        result = "Unknown"
    where = f"on {node}" if node else f"on {plural(len(nodes), 'GPU node')}"
    what = f"XID {code}" if code else "XID error"
    if not rows:
        summary = f"No {what} {where} since the last boot of each node."
        if code:
            summary += f" It means: {catalogue.lookup(code).meaning}."
    else:
        worst = rows[0]
        summary = (
            f"{plural(total, 'occurrence')} of {plural(len(rows), 'XID code')} {where}. Worst: XID {worst.code} "
            f"{worst.name} ({worst.severity}, blame {worst.blame}) on {listed(list(worst.nodes))}."
        )
    warnings = []
    if blind:
        warnings.append(f"No kernel log is read on {listed(blind)}: XID errors there are not seen.")
    warnings += unread(nodes)
    return XIDAnswer(
        verdict=result,
        summary=summary,
        occurrences=total,
        codes=rows[:CODES],
        events=singles,
        catalogue=_meaning(code) if code else None,
        next=advice.next_step(advice.covering(row.action for row in rows)),
        warnings=tuple(warnings),
        truncated=cut,
        narrow="Pass node and code." if cut else "",
    )


def _meaning(code: int) -> CatalogueRow:
    """What the catalogue says of a code, also of one that it does not have."""
    entry = catalogue.lookup(code)
    return CatalogueRow(
        code=code,
        name=entry.name,
        meaning=entry.meaning,
        kind=str(entry.kind),
        severity=str(entry.severity),
        blame=str(entry.blame),
        action=str(entry.action),
        do=advice.next_step(entry.action).do,
        docs=DOCS,
    )


def rows_of(found: Iterable[tuple[str, XIDEvent]], *, words: bool = False) -> tuple[XIDRow, ...]:
    """One row per code, the worst and most frequent first; with the driver's ``words`` if wanted."""
    by_code: dict[int, list[tuple[str, XIDEvent]]] = {}
    for node, event in found:
        by_code.setdefault(event.code, []).append((node, event))
    rows = [_row(code, members, words=words) for code, members in by_code.items()]
    rows.sort(key=lambda row: (-weight(row.severity), -row.occurrences, row.code))
    return tuple(rows)


def _row(code: int, members: Sequence[tuple[str, XIDEvent]], *, words: bool) -> XIDRow:
    worst = max((event for _, event in members), key=lambda event: weight(event.severity))
    nodes = sorted({node for node, _ in members})
    gpus = sorted({f"{node}/{event.subject.gpu}" for node, event in members if event.subject.gpu is not None})
    pods = sorted({events.pod_name(event.pod) for _, event in members if event.pod})
    return XIDRow(
        code=code,
        name=untrusted.name(worst.name),
        severity=untrusted.word(worst.severity),
        blame=untrusted.word(worst.blame),
        action=untrusted.word(worst.recommended_action),
        occurrences=sum(event.count for _, event in members),
        nodes=tuple(nodes[:EXAMPLES]),
        node_count=len(nodes),
        gpus=tuple(gpus[:EXAMPLES]),
        pods=tuple(pods[:EXAMPLES]),
        last_seen=untrusted.name(max((event.last_seen or event.first_seen or "" for _, event in members), default="")),
        untrusted_message=untrusted.text(worst.message) if words else "",
    )
