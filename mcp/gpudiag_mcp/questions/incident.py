"""One report to paste into a ticket: what is wrong, since when, who is hit, what shows it, what to do first."""

from collections.abc import Sequence

from gpudiag_mcp.answers import untrusted
from gpudiag_mcp.answers.models import IncidentAnswer
from gpudiag_mcp.objects.node import GPUNode
from gpudiag_mcp.questions import advice, events, pods, xids
from gpudiag_mcp.questions.fleet import (
    count_gpus,
    count_nodes,
    grouped,
    in_maintenance,
    listed,
    node_row,
    plural,
    verdict,
    weight,
    why_unread,
    worst_first,
)
from gpudiag_mcp.questions.health import NO_NODES

NODES, PODS, FINDINGS, CODES, EVENTS, UNKNOWNS = 20, 30, 12, 12, 20, 20


def report(nodes: Sequence[GPUNode], *, now: float, node: str = "") -> IncidentAnswer:
    """``get_incident_report`` of the fleet, or of the one node in ``nodes`` that ``node`` names."""
    counted = [one for one in nodes if node or not in_maintenance(one, now)]
    bad = worst_first(one for one in counted if one.status.health != "Healthy")
    result = verdict(one.status.health for one in counted)
    findings = [(one.name, found) for one in bad for found in one.status.findings if weight(found.severity) > 0]
    groups = grouped(findings, of_one_node=bool(node))
    errors = xids.rows_of((one.name, event) for one in counted for event in one.status.xids)
    hit = [held for held in pods.find(bad) if held.on_bad_gpu]
    actions = advice.in_order(
        [one.status.recommended_action for one in bad] + [found.recommended_action for _, found in findings]
    )
    timeline = events.newest(counted if node else bad, EVENTS, with_info=bool(node))
    since = untrusted.name(min((found.first_seen for _, found in findings if found.first_seen), default=""))
    unread = [one for one in counted if one.status.health == "Unknown"]
    cut = len(bad) > NODES or len(hit) > PODS or timeline.total > EVENTS or len(groups) > FINDINGS
    return IncidentAnswer(
        verdict=result,
        summary=_summary(nodes, bad, result, hit=len(pods.pod_names(hit)), since=since),
        since=since,
        nodes=count_nodes(counted),
        gpus=count_gpus(one.status.gpu_counts for one in counted),
        affected_nodes=tuple(node_row(one, now) for one in bad[:NODES]),
        affected_pods=pods.rows(hit, PODS),
        actions=tuple(f"{action}: {advice.next_step(action).do}" for action in actions),
        findings=groups[:FINDINGS],
        xids=errors[:CODES],
        timeline=timeline.rows,
        unknowns=tuple(f"{one.name}: {node_row(one, now).reason or 'no reason given'}" for one in unread[:UNKNOWNS]),
        next=advice.next_step(advice.covering(actions), unread=why_unread(unread)),
        truncated=cut,
        narrow="Pass node for the report of one node." if cut and not node else "",
    )


def _summary(nodes: Sequence[GPUNode], bad: Sequence[GPUNode], result: str, *, hit: int, since: str) -> str:
    if not nodes:
        return NO_NODES
    if not bad:
        return f"{result}: no incident; {plural(len(nodes), 'node')} looked at."
    began = f" since {since}" if since else ""
    names = listed([one.name for one in bad])
    return f"{result}: {plural(len(bad), 'node')} affected{began} ({names}); {plural(hit, 'pod')} on bad GPUs."
