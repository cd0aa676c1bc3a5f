"""Everything about a node, for ``detail: Full``. Pure; the budget cuts what is too much.

Pods and processes' names of other namespaces are left out unless the diagnostic lives in the operator's namespace: that
a GPU is busy is no secret of the job, whose it is may be.
"""

from collections.abc import Iterable

from gpudiag_api import wire
from gpudiag_api.kinds import parts as kinds
from gpudiag_api.kinds.verdict import (
    Change,
    GPUPlacement,
    NodeResult,
    Process,
    Timeline,
    TimelinePoint,
    Topology,
    TopologyLink,
)
from gpudiag_operator import in_words
from gpudiag_operator.aggregate.verdict import TEXT_LIMIT
from gpudiag_operator.assess import weigh
from gpudiag_operator.conditions import clip
from gpudiag_operator.domain import NodeDetails, NodeState

EVENTS = 20
CHANGES = 32
POINTS = 60
"""Per GPU."""
PROCESSES = 64
LINKS = 496
"""Pairs of 32 GPUs."""


def results(states: Iterable[NodeState], *, namespace: str, show_pods: bool) -> tuple[NodeResult, ...]:
    """The results of the nodes that were read in full, in the order of their names.

    Args:
        states: the nodes of the run.
        namespace: of the diagnostic.
        show_pods: whether Pods of other namespaces may be shown as well.
    """
    return tuple(
        _result(state, state.details, namespace=namespace, show_pods=show_pods)
        for state in sorted(states, key=lambda state: state.name)
        if state.details is not None
    )


def _result(state: NodeState, details: NodeDetails, *, namespace: str, show_pods: bool) -> NodeResult:
    of = weigh.by_gpu(state.gpus, state.findings)
    shown = {gpu.index for gpu in state.gpus}
    processes = _processes(details, shown, namespace=namespace, show_pods=show_pods)
    return NodeResult(
        node=state.name,
        gpus=tuple(
            in_words.gpu_of(gpu, in_words.gpu_reason(gpu, state, of.get(at, ()))) for at, gpu in enumerate(state.gpus)
        ),
        events=tuple(_event(event, namespace=namespace, show_pods=show_pods) for event in state.xids[:EVENTS]),
        timeline=tuple(_timelines(details, shown)),
        changes=tuple(_changes(details, shown, show_pods=show_pods)),
        topology=_topology(details, shown),
        processes=processes[:PROCESSES],
        processes_truncated=len(processes) > PROCESSES
        or (details.processes is not None and details.processes.truncated),
        missing=clip("; ".join(details.missing), TEXT_LIMIT) or None,
    )


def _event(event: wire.XIDEvent, *, namespace: str, show_pods: bool) -> kinds.XIDEvent:
    shown = in_words.xid_of(event)
    if show_pods or event.pod_namespace == namespace:
        return shown
    return shown.model_copy(update={"message": "", "process_id": None, "process_name": None, "pod": None})


def _timelines(details: NodeDetails, shown: set[int]) -> Iterable[Timeline]:
    for line in details.timeline.gpus if details.timeline else ():
        if line.gpu_index in shown:
            yield Timeline(gpu=line.gpu_index, points=tuple(_points(line.points[-POINTS:])))


def _points(points: Iterable[wire.TimelinePoint]) -> Iterable[TimelinePoint]:
    for point in points:
        at = in_words.time_of(point.at)
        if at is not None:  # One that is none would have the whole status refused.
            yield _point(point, at)


def _point(point: wire.TimelinePoint, at: str) -> TimelinePoint:
    return TimelinePoint(
        at=at,
        temperature_celsius=point.temperature_celsius,
        power_watts=point.power_watts,
        utilization_percent=point.utilization_percent,
        memory_used_bytes=point.memory_used_bytes,
        sm_clock_mhz=point.sm_clock_mhz,
        throttled=point.throttled or None,
    )


def _changes(details: NodeDetails, shown: set[int], *, show_pods: bool) -> Iterable[Change]:
    events = details.timeline.events if details.timeline else ()
    for event in events[-CHANGES:]:
        at = in_words.time_of(event.at)
        if at is None or (event.gpu_index is not None and event.gpu_index not in shown):
            continue
        # A kernel line names processes: those who may not see them get the code alone.
        text = event.message if show_pods or event.kind != "xid" else event.message.partition(":")[0]
        yield Change(at=at, kind=event.kind, message=clip(text, TEXT_LIMIT), gpu=event.gpu_index)


def _topology(details: NodeDetails, shown: set[int]) -> Topology | None:
    found = details.topology
    if found is None:
        return None
    return Topology(
        links=tuple(
            TopologyLink(gpu=link.gpu_index, peer=link.peer_index, kind=link.kind, links=link.links)
            for link in found.links
            if link.gpu_index in shown and link.peer_index in shown
        )[:LINKS],
        placement=tuple(
            GPUPlacement(
                gpu=place.gpu_index,
                numa_node=place.numa_node,
                pcie_generation=place.pcie_generation,
                pcie_generation_max=place.pcie_generation_max,
                pcie_width=place.pcie_width,
                pcie_width_max=place.pcie_width_max,
                nvlinks_active=place.nvlinks_active,
                nvlinks_total=place.nvlinks_total,
                fabric=place.fabric_state,
            )
            for place in found.placement
            if place.gpu_index in shown
        ),
    )


def _processes(details: NodeDetails, shown: set[int], *, namespace: str, show_pods: bool) -> tuple[Process, ...]:
    rows = details.processes.processes if details.processes else ()
    return tuple(_process(row, known=show_pods or row.namespace == namespace) for row in rows if row.gpu_index in shown)


def _process(row: wire.ProcessRow, *, known: bool) -> Process:
    return Process(
        gpu=row.gpu_index,
        pid=row.pid,
        name=row.name if known else "",
        memory_bytes=row.memory_bytes,
        namespace=row.namespace if known else None,
        pod=row.pod if known else None,
    )
