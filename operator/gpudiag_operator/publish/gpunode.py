"""From a node's state to GPUNode.status. Pure; every value passes the models, which have the schema's bounds."""

from collections.abc import Iterable, Sequence

from gpudiag_api import durations, wire
from gpudiag_api.kinds import GPUNodeStatus
from gpudiag_api.kinds import parts as kinds
from gpudiag_api.kinds.base import Condition
from gpudiag_api.kinds.gpunode import AgentStatus, CapabilityGap, CircuitBreakerStatus
from gpudiag_api.times import from_rfc3339, to_rfc3339
from gpudiag_api.vocabulary import Health
from gpudiag_operator.aggregate.tally import CLOSED
from gpudiag_operator.assess import weigh
from gpudiag_operator.assess.node import blinding
from gpudiag_operator.assess.words import NOT_READ
from gpudiag_operator.conditions import ConditionSet, clip
from gpudiag_operator.domain import BreakerSnapshot, NodeState
from gpudiag_operator.publish import limits
from gpudiag_operator.publish.meaning import REACHABLE

_NAME, _TEXT = 253, 1024


def status_of(state: NodeState, *, generation: int, previous: Iterable[Condition] = (), now: float) -> GPUNodeStatus:
    """The status of a GPUNode.

    Args:
        state: what is known of the node.
        generation: metadata.generation of the GPUNode.
        previous: its stored conditions, for their transition times.
        now: Unix seconds.
    """
    read = state.failure is None
    of = weigh.by_gpu(state.gpus, state.findings) if read else {}
    counts = weigh.count((gpu.health for gpu in state.gpus), of.get(weigh.NODE, ()))
    return GPUNodeStatus(
        observed_generation=generation,
        conditions=_conditions(state, generation=generation, previous=previous, now=now),
        health=state.health,
        reason=state.reason,
        message=clip(state.message, _TEXT),
        recommended_action=state.action,
        driver_version=state.driver.version,
        cuda_version=state.driver.cuda_version,
        model=clip(", ".join(sorted({gpu.model for gpu in state.gpus if gpu.model})), _NAME) or None,
        gpu_counts=kinds.GPUCounts(
            total=counts.total,
            healthy=counts.healthy,
            degraded=counts.degraded,
            unhealthy=counts.unhealthy,
            unknown=counts.unknown,
        ),
        gpus=tuple(_gpu(gpu, _gpu_reason(gpu, state, of.get(at, ()))) for at, gpu in enumerate(state.gpus)),
        findings=tuple(map(_finding, limits.findings(state))),
        findings_truncated=len(state.findings) > limits.FINDINGS,
        xids=tuple(map(_xid, limits.xids(state))),
        allocations=tuple(
            kinds.Allocation(gpu_uuid=held.gpu_uuid, namespace=held.namespace, pod=held.pod, container=held.container)
            for held in limits.allocations(state)
        ),
        agent=_agent(state),
        breaker=_breaker(state.breaker),
        sampled_at=_time(state.sampled_at),
    )


def _conditions(
    state: NodeState, *, generation: int, previous: Iterable[Condition], now: float
) -> tuple[Condition, ...]:
    conditions = ConditionSet(previous, generation=generation, now=now)
    failure, breaker = state.failure, state.breaker
    if failure is None:
        conditions.set("Ready", "True", "Fresh", "The agent answers with fresh samples.")
        conditions.set("AgentReachable", "True", REACHABLE, "The agent answers.")
    else:
        why = failure.message or NOT_READ[failure.reason]
        conditions.set("Ready", "False", "NotRead", f"{failure.reason}: {why}")
        conditions.set("AgentReachable", "False", failure.reason, why)
    match state.health:
        case Health.HEALTHY:
            conditions.set("GPUsHealthy", "True", "AllHealthy", state.message)
        case Health.DEGRADED:
            conditions.set("GPUsHealthy", "False", "Warnings", state.message)
        case Health.UNHEALTHY:
            conditions.set("GPUsHealthy", "False", "Failures", state.message)
        case Health.UNKNOWN:
            conditions.set("GPUsHealthy", "Unknown", "NotAllKnown", state.message)
    closed = breaker.state in CLOSED
    spared = f"The agent is not called as usual after {breaker.failures} failures in a row."
    says = "The agent is called as usual." if closed else spared
    conditions.set("CircuitBreakerClosed", "True" if closed else "False", breaker.state, says)
    return conditions.build()


def _gpu_reason(gpu: wire.GPU, state: NodeState, findings: Sequence[wire.Finding]) -> str | None:
    if gpu.health is Health.HEALTHY:
        return None
    if state.failure is not None:
        return str(state.failure.reason)
    for finding in findings:
        if finding.severity.health is gpu.health:
            return finding.reason
    gap = blinding(state.capabilities)
    return str(gap.reason) if gap is not None else "ReportedByAgent"


def _gpu(gpu: wire.GPU, reason: str | None) -> kinds.GPU:
    return kinds.GPU(
        index=gpu.index,
        uuid=gpu.uuid,
        pci=gpu.pci,
        model=gpu.model,
        serial=gpu.serial or None,
        memory_bytes=gpu.memory_bytes,
        health=gpu.health,
        reason=reason,
        mig_enabled=gpu.mig_enabled,
        mig=tuple(
            kinds.MIGInstance(
                uuid=one.uuid,
                instance=_instance(one.gpu_instance, one.compute_instance),
                profile=one.profile,
                memory_bytes=one.memory_bytes,
            )
            for one in gpu.mig
        ),
    )


def _instance(gpu_instance: int, compute_instance: int | None) -> str:
    return f"gi{gpu_instance}" if compute_instance is None else f"gi{gpu_instance}/ci{compute_instance}"


def _subject(subject: wire.Subject) -> kinds.Subject:
    mig = subject.mig_gpu_instance
    return kinds.Subject(
        gpu=subject.gpu_index,
        uuid=subject.gpu_uuid,
        pci=subject.pci,
        serial=subject.serial,
        mig_instance=None if mig is None else _instance(mig, subject.mig_compute_instance),
    )


def _finding(finding: wire.Finding) -> kinds.Finding:
    return kinds.Finding(
        check=finding.check,
        reason=finding.reason,
        severity=finding.severity,
        blame=finding.blame,
        recommended_action=finding.action,
        message=finding.message,
        subject=_subject(finding.subject),
        evidence=tuple(
            kinds.Evidence(name=item.name, value=item.value, threshold=item.threshold, unit=item.unit)
            for item in finding.evidence
        ),
        first_seen=_time(finding.first_seen),
        last_seen=_time(finding.last_seen),
        count=finding.count,
    )


def _xid(event: wire.XIDEvent) -> kinds.XIDEvent:
    pod = f"{event.pod_namespace or ''}/{event.pod_name}" if event.pod_name else None
    return kinds.XIDEvent(
        code=event.code,
        name=event.name,
        severity=event.severity,
        blame=event.blame,
        recommended_action=event.action,
        message=event.message,
        subject=_subject(event.subject),
        process_id=event.process_id,
        process_name=event.process_name,
        pod=None if pod is None else clip(pod, _NAME),
        id=event.id,
        first_seen=_time(event.first_seen),
        last_seen=_time(event.last_seen),
        count=event.count,
    )


def _agent(state: NodeState) -> AgentStatus:
    pod = state.pod
    return AgentStatus(
        pod_name=pod.name if pod else "",
        pod_ip=pod.ip if pod else "",
        ready=pod.ready if pod else False,
        reachable=state.failure is None,
        version=state.agent_version,
        capabilities=tuple(CapabilityGap(reason=gap.reason, message=gap.message) for gap in state.capabilities),
    )


def _breaker(breaker: BreakerSnapshot) -> CircuitBreakerStatus:
    return CircuitBreakerStatus(
        state=breaker.state,
        failures=breaker.failures,
        opened_at=None if breaker.opened_at is None else to_rfc3339(breaker.opened_at),
        open_for=None if breaker.open_for_seconds is None else durations.format(round(breaker.open_for_seconds, 3)),
        last_handled_reset=breaker.last_handled_reset,
    )


def _time(text: str | None) -> str | None:
    """An agent's time, as the schema takes it: one that is none would have the whole PATCH refused."""
    if not text:
        return None
    try:
        return to_rfc3339(from_rfc3339(text))
    except ValueError:
        return None
