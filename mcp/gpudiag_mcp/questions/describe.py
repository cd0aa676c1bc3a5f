"""Everything about a node in one answer, or the same aggregated over the fleet."""

from collections import Counter
from collections.abc import Sequence

from gpudiag_mcp.answers import untrusted
from gpudiag_mcp.answers.models import NodeAnswer
from gpudiag_mcp.answers.rows import ConditionRow, GapRow
from gpudiag_mcp.objects.node import GPUNode
from gpudiag_mcp.questions import advice
from gpudiag_mcp.questions.fleet import (
    count_nodes,
    gpu_row,
    grouped,
    in_maintenance,
    node_row,
    plural,
    unread,
    verdict,
    why_unread,
    worst_first,
)
from gpudiag_mcp.questions.health import NO_NODES, node_health
from gpudiag_mcp.questions.pods import holders

WORST, FINDINGS, VERSIONS = 10, 12, 20


def node(one: GPUNode, *, now: float) -> NodeAnswer:
    """``describe_gpu_node`` of one node."""
    status, row = one.status, node_row(one, now)
    held = holders(one)
    maintenance = one.spec.maintenance
    judged = node_health(one, now=now)
    summary = judged.summary
    if not row.ready:
        summary += f" Its data is not fresh: {row.agent}."
    if row.breaker != "Closed":
        summary += f" Circuit breaker: {row.breaker}."
    return NodeAnswer(
        verdict=row.health,
        summary=summary,
        node=one.name,
        health=row,
        driver=untrusted.name(status.driver_version),
        cuda=untrusted.name(status.cuda_version),
        agent_version=untrusted.name(status.agent.version),
        breaker_failures=status.breaker.failures,
        maintenance_until=untrusted.name(maintenance.until) if maintenance else "",
        sampled_at=untrusted.name(status.sampled_at),
        findings=judged.findings,
        gpus=tuple(gpu_row(gpu, held.get(gpu.uuid, ())) for gpu in status.gpus),
        gaps=tuple(
            GapRow(reason=untrusted.word(gap.reason), untrusted_message=untrusted.text(gap.message))
            for gap in status.agent.capabilities
        ),
        conditions=conditions(one),
        next=judged.next,
        warnings=judged.warnings,
        truncated=judged.truncated,
        narrow=judged.narrow,
        untrusted_maintenance_reason=untrusted.text(maintenance.reason) if maintenance else "",
    )


def conditions(one: GPUNode) -> tuple[ConditionRow, ...]:
    """The conditions of a node."""
    return tuple(
        ConditionRow(
            type=untrusted.word(condition.type),
            status=untrusted.word(condition.status),
            reason=untrusted.word(condition.reason),
            since=untrusted.name(condition.last_transition_time),
            untrusted_message=untrusted.text(condition.message),
        )
        for condition in one.status.conditions
    )


def fleet(nodes: Sequence[GPUNode], *, now: float) -> NodeAnswer:
    """``describe_gpu_node`` without a node: versions, readiness, the worst nodes."""
    bad = worst_first(one for one in nodes if one.status.health != "Healthy")
    drivers = Counter(untrusted.name(one.status.driver_version) or "(not known)" for one in nodes)
    agents = Counter(untrusted.name(one.status.agent.version) or "(not known)" for one in nodes)
    tally = count_nodes(nodes)
    result = verdict(one.status.health for one in nodes if not in_maintenance(one, now))
    unreachable = sum(not one.status.agent.reachable for one in nodes)
    breakers = sum(one.status.breaker.state not in ("Closed", "ForcedClosed") for one in nodes)
    summary = (
        f"{result}: {plural(tally.total, 'GPU node')}, {tally.total - tally.healthy} not Healthy, "
        f"{unreachable} without a reachable agent, {breakers} with an open circuit breaker; "
        f"{plural(len(drivers), 'driver version')}. Pass node for one of them."
    )
    return NodeAnswer(
        verdict=result,
        summary=summary if nodes else NO_NODES,
        drivers=dict(drivers.most_common(VERSIONS)),
        agents=dict(agents.most_common(VERSIONS)),
        findings=grouped((one.name, finding) for one in nodes for finding in one.status.findings)[:FINDINGS],
        nodes=tuple(node_row(one, now) for one in bad[:WORST]),
        next=advice.next_step(advice.covering(one.status.recommended_action for one in bad), unread=why_unread(bad)),
        warnings=unread(nodes),
        truncated=len(bad) > WORST,
        narrow="list_gpu_nodes shows every node." if len(bad) > WORST else "",
    )
