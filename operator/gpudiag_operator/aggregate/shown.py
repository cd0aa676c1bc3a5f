"""What a status shows of a tally: rows, groups of findings, inventory. Bounded here, and once more by the budget."""

import heapq
from collections.abc import Iterable

from gpudiag_api.kinds.parts import GPUCounts
from gpudiag_api.kinds.verdict import FindingCounts, FindingGroup, InventoryGroup, NodeCounts, NodeRow, Summary
from gpudiag_api.vocabulary import Severity
from gpudiag_operator.aggregate.tally import Group, Tally
from gpudiag_operator.aggregate.verdict import TEXT_LIMIT, evidence, remembered
from gpudiag_operator.assess.policy import SKIPPED, Row
from gpudiag_operator.assess.words import public_message
from gpudiag_operator.conditions import clip

NODES = 50
GROUPS = 32
EXAMPLES = 5
NAME_LIMIT = 253

_MIG = {None: "Unsupported", True: "Enabled", False: "Disabled"}


def summary(sums: Tally) -> Summary:
    """The verdict in numbers."""
    return Summary(
        nodes=NodeCounts(
            targeted=sums.targeted,
            reporting=sums.reporting,
            skipped=sums.skipped,
            failed=sums.failed,
            maintenance=sums.maintenance,
        ),
        gpus=GPUCounts(
            total=sums.total,
            healthy=sums.healthy,
            degraded=sums.degraded,
            unhealthy=sums.unhealthy,
            unknown=sums.unknown,
        ),
        findings=FindingCounts(
            critical=sums.severities[Severity.CRITICAL],
            warning=sums.severities[Severity.WARNING],
            info=sums.severities[Severity.INFO],
        ),
    )


def node_rows(rows: Iterable[Row], *, show_pods: bool) -> tuple[NodeRow, ...]:
    """Rows as the status shows them."""
    return tuple(_node_row(row, show_pods=show_pods) for row in rows)


def _node_row(row: Row, *, show_pods: bool) -> NodeRow:
    failure, top = row.state.failure, row.top
    why = clip(evidence(row, show_pods=show_pods) + remembered(row), TEXT_LIMIT) if failure else None
    called = failure is not None and failure.reason not in SKIPPED
    text = None if top is None else (top.message if show_pods else public_message(top)) or top.reason
    return NodeRow(
        name=clip(row.state.name, NAME_LIMIT),
        health=row.health,
        changed_by_policy=row.changed_by_policy,
        reason=row.reason,
        finding=None if text is None else clip(text, TEXT_LIMIT),
        recommended_action=row.action,
        gpus=GPUCounts(
            total=row.gpus.total,
            healthy=row.gpus.healthy,
            degraded=row.gpus.degraded,
            unhealthy=row.gpus.unhealthy,
            unknown=row.gpus.unknown,
        ),
        breaker=row.state.breaker.state,
        maintenance=row.maintenance,
        skipped=None if called else why,
        failed=why if called else None,
    )


def finding_groups(sums: Tally, *, show_pods: bool) -> tuple[FindingGroup, ...]:
    """The heaviest groups of findings, then the largest."""
    chosen = heapq.nsmallest(
        GROUPS, sums.groups.items(), key=lambda item: (-item[1].worst.severity.badness, -item[1].count, item[0])
    )
    return tuple(_finding_group(check, reason, group, show_pods=show_pods) for (check, reason), group in chosen)


def _finding_group(check: str, reason: str, group: Group, *, show_pods: bool) -> FindingGroup:
    worst = group.worst
    return FindingGroup(
        check=check,
        reason=reason,
        severity=worst.severity,
        count=group.count,
        nodes=tuple(clip(name, NAME_LIMIT) for name in heapq.nsmallest(EXAMPLES, group.nodes)),
        gpus=tuple(clip(name, NAME_LIMIT - 4) + f"/{index}" for name, index in heapq.nsmallest(EXAMPLES, group.gpus)),
        blame=worst.blame,
        recommended_action=group.action,
        message=clip(worst.message if show_pods else public_message(worst), TEXT_LIMIT),
    )


def inventory(sums: Tally) -> tuple[InventoryGroup, ...]:
    """The largest groups of like GPUs."""
    chosen = heapq.nsmallest(GROUPS, sums.inventory.items(), key=lambda item: (-item[1][0], str(item[0])))
    return tuple(
        InventoryGroup(model=model, driver_version=driver, memory_bytes=memory, mig=_MIG[mig], gpus=gpus, nodes=nodes)
        for (model, driver, memory, mig), (gpus, nodes) in chosen
    )
