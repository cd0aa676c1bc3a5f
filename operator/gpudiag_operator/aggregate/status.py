"""Many nodes and one question make one status. Pure, one pass, bounded in size."""

from collections.abc import Sequence

import msgspec

from gpudiag_api.kinds import GPUDiagnosticSpec, GPUDiagnosticStatus
from gpudiag_api.kinds.base import Condition
from gpudiag_api.kinds.verdict import HistoryEntry, NodeResult
from gpudiag_api.times import to_rfc3339
from gpudiag_api.vocabulary import NotRead
from gpudiag_operator.aggregate import budget, judged, shown
from gpudiag_operator.aggregate.tally import Tally, tally
from gpudiag_operator.aggregate.verdict import NO_NODE, TEXT_LIMIT, message, verdict
from gpudiag_operator.assess.policy import Judge, Row
from gpudiag_operator.assess.words import NOT_READ
from gpudiag_operator.conditions import ConditionSet, clip
from gpudiag_operator.domain import Failure, NodeState


class Aggregation(msgspec.Struct, frozen=True, kw_only=True):
    """What one aggregation is made from. Times are Unix seconds."""

    spec: GPUDiagnosticSpec
    generation: int
    """metadata.generation of the diagnostic."""
    states: Sequence[NodeState]
    """The nodes that the target selects, in any order."""
    missing: Sequence[str] = ()
    """Names in ``spec.target.nodeNames`` that no Node has: they count as failed, NodeGone."""
    previous: GPUDiagnosticStatus | None = None
    """The stored status."""
    run_id: str
    started_at: float
    now: float
    """Also the end of the run."""
    show_pods: bool = False
    """Whether Pods and processes of others may be shown: the diagnostic lives in the operator's namespace."""
    deadline_exceeded: bool = False
    """Once: the run was ended by ``spec.deadline``."""
    stale: str = ""
    """Why the data is not fresh, for people; empty: it is."""
    filling: str = ""
    """How far the first write of all GPUNodes has come, see ``judged.filling``; empty: it is over."""
    no_way: str = ""
    """What to say when no agent at all can be connected to; see ``judged.agents_reachable``."""
    results: Sequence[NodeResult] = ()
    """detail: Full."""


def aggregate(request: Aggregation) -> GPUDiagnosticStatus:
    """The status of a Continuous diagnostic, or of a Once run that ended; at most 64 KiB serialised.

    Raises:
        SelectorError: ``policy.maintenanceSelector`` is no selector.
    """
    spec, previous, show_pods = request.spec, request.previous, request.show_pods
    judge = Judge(spec)
    ghosts = [_ghost(name, request.now) for name in request.missing]
    sums = tally(judge.row(state) for state in (*request.states, *ghosts))
    result = verdict(sums, spec.policy.tolerate)
    rows = sums.worst(shown.NODES)
    text = message(result, sums, _worst_counted(sums, rows), show_pods=show_pods, nobody=_nobody(spec))
    now = to_rfc3339(request.now)
    status = GPUDiagnosticStatus(
        observed_generation=request.generation,
        conditions=_conditions(request, sums),
        verdict=result.health,
        message=text,
        recommended_action=sums.action,
        run_id=request.run_id,
        started_at=to_rfc3339(request.started_at),
        finished_at=now,
        last_confirmed_at=now,
        last_handled_trigger=spec.trigger if spec.mode == "Once" else None,
        summary=shown.summary(sums),
        inventory=shown.inventory(sums),
        inventory_truncated=len(sums.inventory) > shown.GROUPS,
        nodes=shown.node_rows(rows, show_pods=show_pods),
        nodes_truncated=len(sums.rows) > shown.NODES,
        findings=shown.finding_groups(sums, show_pods=show_pods),
        findings_truncated=len(sums.groups) > shown.GROUPS,
        results=tuple(request.results),
        history=history(
            previous, HistoryEntry(at=now, verdict=result.health, message=text, run_id=request.run_id), spec
        ),
    )
    return budget.fit(status)


def _nobody(spec: GPUDiagnosticSpec) -> str:
    if spec.target is None or spec.target.pod_ref is None:
        return NO_NODE
    return (
        f"no agent sees a GPU in the hands of Pod {spec.target.pod_ref.name} of this namespace; it is not running, "
        "asks for none, or its node's agent cannot ask the kubelet (NoPodResources in status.agent.capabilities)"
    )


def _conditions(request: Aggregation, sums: Tally) -> tuple[Condition, ...]:
    stored = request.previous.conditions if request.previous is not None else ()
    conditions = ConditionSet(stored, generation=request.generation, now=request.now)
    conditions.drop("Reconciling", "Stalled")
    judged.ready(conditions, sums, stale=request.stale, filling=request.filling)
    if request.spec.mode == "Once":
        judged.complete(conditions, sums, deadline_exceeded=request.deadline_exceeded)
    else:
        conditions.drop("Complete")
    judged.gpus_healthy(conditions, sums)
    judged.agents_reachable(conditions, sums, no_way=request.no_way)
    judged.breakers_closed(conditions, sums)
    return conditions.build()


def history(
    previous: GPUDiagnosticStatus | None, entry: HistoryEntry, spec: GPUDiagnosticSpec
) -> tuple[HistoryEntry, ...]:
    """Changes of verdict, newest first: one more if ``entry`` is a change, at most ``spec.historyLimit``."""
    before = previous.history if previous is not None else ()
    if not before or before[0].verdict != entry.verdict:
        before = (entry.model_copy(update={"message": clip(entry.message, TEXT_LIMIT)}), *before)
    return before[: spec.history_limit]


def _ghost(name: str, now: float) -> NodeState:
    failure = Failure(reason=NotRead.NODE_GONE, message=NOT_READ[NotRead.NODE_GONE], since=now)
    return NodeState(name=name, reason=str(failure.reason), failure=failure)


def _worst_counted(sums: Tally, rows: list[Row]) -> Row | None:
    for row in rows:
        if not row.maintenance:
            return row
    # All rows shown are in maintenance: look among the others.
    counted = Tally(rows=[row for row in sums.rows if not row.maintenance])
    return next(iter(counted.worst(1)), None)
