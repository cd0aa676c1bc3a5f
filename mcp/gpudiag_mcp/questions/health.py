"""Is the fleet, or a node, fine; and the list of nodes."""

from collections.abc import Sequence

from gpudiag_mcp.answers.models import HealthAnswer, NodesAnswer
from gpudiag_mcp.answers.rows import Counts
from gpudiag_mcp.objects.node import GPUNode
from gpudiag_mcp.questions import advice, pages
from gpudiag_mcp.questions.fleet import (
    count_gpus,
    count_nodes,
    gpu_row,
    grouped,
    health_word,
    in_maintenance,
    listed,
    node_row,
    order,
    plural,
    unread,
    verdict,
    why_unread,
    worst_first,
)
from gpudiag_mcp.questions.pods import holders

WORST = 10
FINDINGS = 12
NO_NODES = (
    "There are no GPUNodes: the operator has found no GPU node yet, or does not run. "
    "Check the Deployment gpudiag-operator and the labels of the nodes (nvidia.com/gpu.present=true)."
)


def fleet_health(nodes: Sequence[GPUNode], *, now: float) -> HealthAnswer:
    """``get_gpu_health`` without a node."""
    counted = [node for node in nodes if not in_maintenance(node, now)]
    bad = worst_first(node for node in counted if node.status.health != "Healthy")
    tally, gpus = count_nodes(nodes), count_gpus(node.status.gpu_counts for node in nodes)
    groups = grouped((node.name, finding) for node in nodes for finding in node.status.findings)
    action = advice.covering(node.status.recommended_action for node in counted)
    serious = [group for group in groups if group.severity != "Info"]
    result = verdict(node.status.health for node in counted)
    kept_out = len(nodes) - len(counted)
    if not nodes:
        summary = NO_NODES
    elif not bad:
        summary = f"{result}: all {plural(len(counted), 'node')} and their {plural(gpus.total, 'GPU')} are fine."
    else:
        summary = f"{result}: {_bad(tally, gpus)}; worst: {listed([node.name for node in bad])}."
        if serious:
            top = serious[0]
            summary += f" Main finding: {top.check}/{top.reason} ({top.severity}, blame {top.blame}) x {top.count}."
    if kept_out:
        summary += f" {plural(kept_out, 'node')} under maintenance do not count."
    return HealthAnswer(
        verdict=result,
        summary=summary,
        nodes=tally,
        gpus=gpus,
        maintenance_nodes=kept_out,
        findings=groups[:FINDINGS],
        worst=tuple(node_row(node, now) for node in bad[:WORST]),
        next=advice.next_step(action, unread=why_unread(bad)),
        warnings=unread(nodes),
        truncated=len(bad) > WORST or len(groups) > FINDINGS,
        narrow="list_gpu_nodes shows every node; pass node for one." if len(bad) > WORST else "",
    )


def _bad(nodes: Counts, gpus: Counts) -> str:
    parts = [f"{number} {word}" for word, number in _words(nodes)]
    of_gpus = [f"{number} {word}" for word, number in _words(gpus)]
    return (
        f"{', '.join(parts)} of {plural(nodes.total, 'node')}, {', '.join(of_gpus) or 'none bad'} of {gpus.total} GPUs"
    )


def _words(counts: Counts) -> list[tuple[str, int]]:
    all_words = [("Unhealthy", counts.unhealthy), ("Unknown", counts.unknown), ("Degraded", counts.degraded)]
    return [(word, number) for word, number in all_words if number]


def node_health(node: GPUNode, *, now: float) -> HealthAnswer:
    """``get_gpu_health`` of one node."""
    status = node.status
    row = node_row(node, now)
    rows = grouped(((node.name, finding) for finding in status.findings), of_one_node=True)
    held = holders(node)
    bad = [gpu for gpu in status.gpus if gpu.health != "Healthy"]
    bad.sort(key=lambda gpu: (-order_of(gpu.health), gpu.index))
    if row.health == "Healthy":
        summary = f"Healthy: {node.name} and its {plural(row.gpus, 'GPU')} are fine."
    else:
        what = f"GPUs {', '.join(str(gpu.index) for gpu in bad[:16])} are not Healthy" if bad else "no GPU is named"
        summary = f"{row.health}: {node.name} ({row.reason or 'no reason given'}); {what}."
        if rows:
            summary += f" Worst finding: {rows[0].check}/{rows[0].reason}, blame {rows[0].blame}."
    if row.maintenance:
        summary += " The node is under maintenance."
    return HealthAnswer(
        verdict=row.health,
        summary=summary,
        nodes=count_nodes([node]),
        gpus=count_gpus([status.gpu_counts]),
        maintenance_nodes=int(row.maintenance),
        findings=rows,
        worst=(row,),
        bad_gpus=tuple(gpu_row(gpu, held.get(gpu.uuid, ())) for gpu in bad),
        next=advice.next_step(status.recommended_action, unread=why_unread([node])),
        warnings=unread([node]),
        truncated=status.findings_truncated,
        narrow="kubectl get gpunode -o yaml shows all findings that are stored." if status.findings_truncated else "",
    )


def order_of(health: str) -> int:
    """Rank of a GPU's health."""
    return {"Unhealthy": 3, "Unknown": 2, "Degraded": 1}.get(health_word(health), 0)


def list_nodes(
    nodes: Sequence[GPUNode], *, now: float, health: str = "", limit: int = 20, continue_token: str = ""
) -> NodesAnswer:
    """``list_gpu_nodes``: worst first, page by page."""
    chosen = [node for node in nodes if not health or health_word(node.status.health) == health]
    chosen.sort(key=order)
    page = pages.cut(chosen, key=order, limit=limit, token=continue_token, of=f"nodes/{health}")
    result = verdict(node.status.health for node in nodes if not in_maintenance(node, now))
    tally = count_nodes(nodes)
    shown = f"{plural(len(chosen), 'node')}{f' with health {health}' if health else ''}"
    summary = NO_NODES if not nodes else f"{result}: {shown} of {tally.total}; {len(page.items)} listed, worst first."
    return NodesAnswer(
        verdict=result,
        summary=summary,
        nodes=tally,
        rows=tuple(node_row(node, now) for node in page.items),
        continue_token=page.token,
        warnings=unread(nodes),
        truncated=bool(page.token),
        narrow="Pass continue_token for the next rows, or health to filter." if page.token else "",
    )
