"""What only a fresh Full diagnostic holds: the flight recorder, the topology, the processes.

Events are in the GPUNodes and are always answered. For the rest the results of a Full, Once diagnostic are used where
one finished within the last 15 minutes; else the answer carries the arguments that make one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpudiag_api.times import from_rfc3339
from gpudiag_mcp.answers import untrusted
from gpudiag_mcp.answers.models import NeedsDiagnostic, TimelineAnswer, TopologyAnswer
from gpudiag_mcp.answers.rows import LinkRow, PlacementRow, ProcessRow, SampleRow
from gpudiag_mcp.objects.diagnostic import GPUDiagnostic, NodeResult
from gpudiag_mcp.objects.node import GPUNode
from gpudiag_mcp.objects.parts import Finding
from gpudiag_mcp.questions import advice, events
from gpudiag_mcp.questions.diagnosing import Diagnosing
from gpudiag_mcp.questions.events import pod_name
from gpudiag_mcp.questions.fleet import gib, grouped, plural, worst_first

FRESH_SECONDS = 900.0
"""As long as a diagnostic made by the facade lives by default."""
EVENTS, SAMPLES, LINKS, PROCESSES = 30, 120, 120, 64
LINK_CHECKS = frozenset({"NVLink", "NVLinkErrors", "C2C", "Fabric", "FabricManager", "IMEX", "SXID", "PCIeLink"})


@dataclass(frozen=True)
class Found:
    """Results of a node, and when they were taken."""

    result: NodeResult
    taken_at: str


def newest(diagnostics: Iterable[GPUDiagnostic], node: str, *, now: float) -> Found | None:
    """The newest results of a node that are fresh enough."""
    best: Found | None = None
    for one in diagnostics:
        taken = one.status.finished_at
        if not taken or one.spec.detail != "Full" or not _recent(taken, now):
            continue
        for result in one.status.results:
            if result.node == node and (best is None or taken > best.taken_at):
                best = Found(result, taken)
    return best


def _recent(taken: str, now: float) -> bool:
    try:
        return now - from_rfc3339(taken) <= FRESH_SECONDS
    except ValueError:
        return False


def timeline(
    nodes: Sequence[GPUNode],
    diagnostics: Iterable[GPUDiagnostic],
    how: Diagnosing,
    *,
    now: float,
    node: str = "",
    gpu: int = -1,
) -> TimelineAnswer:
    """``get_gpu_timeline``: events of the fleet or of a node, and of a node its samples, or those of one GPU."""
    happened = events.newest(nodes, EVENTS, with_info=bool(node))
    found = newest(diagnostics, node, now=now) if node else None
    taken = [row for row in samples(found.result) if gpu in (-1, row.gpu)] if found else []
    needs, why = _needs(nodes, node, found, how, what="samples of temperature, power and utilisation")
    where = f"of {node}" if node else f"of {plural(len(nodes), 'node')}"
    summary = f"{plural(happened.total, 'event')} {where}"
    of_gpu = f" of GPU {gpu}" if gpu >= 0 else ""
    summary += f", {plural(len(taken), 'sample')}{of_gpu} taken by {found.taken_at}." if found else f". {why}"
    cut = happened.total > EVENTS or len(taken) > SAMPLES or (found is not None and found.result.timeline_truncated)
    return TimelineAnswer(
        summary=summary,
        node=node,
        taken_at=found.taken_at if found else "",
        events=happened.rows,
        samples=tuple(taken[:SAMPLES]),
        needs_diagnostic=needs,
        truncated=cut,
        narrow="Pass gpu." if len(taken) > SAMPLES and gpu < 0 else "Pass node." if cut and not node else "",
    )


def samples(result: NodeResult) -> list[SampleRow]:
    """The flight recorder of all GPUs, newest first: what does not fit is cut from the end."""
    rows = [
        SampleRow(
            at=untrusted.name(point.at),
            gpu=line.gpu,
            temperature_celsius=point.temperature_celsius,
            power_watts=point.power_watts,
            utilization_percent=point.utilization_percent,
            memory_used_gib=gib(point.memory_used_bytes),
            sm_clock_mhz=point.sm_clock_mhz,
        )
        for line in result.timeline
        for point in line.points
    ]
    return sorted(sorted(rows, key=lambda row: row.gpu), key=lambda row: row.at, reverse=True)


def topology(
    nodes: Sequence[GPUNode], diagnostics: Iterable[GPUDiagnostic], how: Diagnosing, *, now: float, node: str = ""
) -> TopologyAnswer:
    """``get_nvlink_topology``: what the checks say about links, and of a node its links."""
    bad: list[tuple[str, Finding]] = [
        (one.name, finding) for one in nodes for finding in one.status.findings if finding.check in LINK_CHECKS
    ]
    found = newest(diagnostics, node, now=now) if node else None
    needs, why = _needs(nodes, node, found, how, what="links between the GPUs")
    rows = links(found.result) if found else []
    findings = grouped(bad, of_one_node=bool(node))
    what = f"{plural(len(bad), 'finding')} about links or fabric" if bad else "No finding about links or fabric"
    where = f"on {node}" if node else f"on {plural(len(nodes), 'node')}"
    said = f"{plural(len(rows), 'connection')} between its GPUs, as of {found.taken_at}." if found else why
    return TopologyAnswer(
        summary=f"{what} {where}. {said}",
        node=node,
        taken_at=found.taken_at if found else "",
        links=tuple(rows[:LINKS]),
        placement=placement(found.result) if found else (),
        findings=findings,
        next=advice.next_step(advice.covering(row.action for row in findings)),
        needs_diagnostic=needs,
        truncated=len(rows) > LINKS,
    )


def links(result: NodeResult) -> list[LinkRow]:
    """Connections, as reported."""
    if result.topology is None:
        return []
    return [
        LinkRow(gpu=link.gpu, peer=link.peer, kind=untrusted.word(link.kind), links=link.links)
        for link in result.topology.links
    ]


def placement(result: NodeResult) -> tuple[PlacementRow, ...]:
    """Where each GPU sits."""
    if result.topology is None:
        return ()
    return tuple(
        PlacementRow(
            gpu=spot.gpu,
            numa_node=spot.numa_node,
            pcie_generation=spot.pcie_generation,
            pcie_width=spot.pcie_width,
        )
        for spot in result.topology.placement
    )


def processes(result: NodeResult) -> list[ProcessRow]:
    """Processes on the GPUs; their names are the node's words."""
    return [
        ProcessRow(
            gpu=one.gpu,
            pid=one.pid,
            memory_gib=gib(one.memory_bytes),
            pod=pod_name(f"{one.namespace or ''}/{one.pod}") if one.pod else "",
            untrusted_process=untrusted.text(one.name, 80),
        )
        for one in result.processes[:PROCESSES]
    ]


def _needs(
    nodes: Sequence[GPUNode], node: str, found: Found | None, how: Diagnosing, *, what: str
) -> tuple[NeedsDiagnostic | None, str]:
    if found is not None or not nodes:
        return None, ""
    of = node or worst_first(nodes)[0].name
    if not any(one.name == of and one.status.agent.reachable for one in nodes):
        return None, f"The agent of {of} cannot be reached, so no {what} can be had now."
    why = f"No resource holds the {what} of {of}; a Full diagnostic takes them."
    return how.needs(node=of, why=why), why if node else f"Pass node for the {what} of one."
