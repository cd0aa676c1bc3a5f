"""From a node's state to GPUNode.status. Pure; every value passes the models, which have the schema's bounds."""

from collections.abc import Iterable

from gpudiag_api import durations
from gpudiag_api.kinds import GPUNodeStatus
from gpudiag_api.kinds import parts as kinds
from gpudiag_api.kinds.base import Condition
from gpudiag_api.kinds.gpunode import AgentStatus, CapabilityGap, CircuitBreakerStatus
from gpudiag_api.times import to_rfc3339
from gpudiag_api.vocabulary import Health
from gpudiag_operator import in_words
from gpudiag_operator.aggregate.tally import CLOSED
from gpudiag_operator.assess import weigh
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
        gpus=tuple(
            in_words.gpu_of(gpu, in_words.gpu_reason(gpu, state, of.get(at, ()))) for at, gpu in enumerate(state.gpus)
        ),
        findings=tuple(map(in_words.finding_of, limits.findings(state))),
        findings_truncated=state.findings_truncated or len(state.findings) > limits.FINDINGS,
        xids=tuple(map(in_words.xid_of, limits.xids(state))),
        allocations=tuple(
            kinds.Allocation(gpu_uuid=held.gpu_uuid, namespace=held.namespace, pod=held.pod, container=held.container)
            for held in limits.allocations(state)
        ),
        agent=_agent(state),
        breaker=_breaker(state.breaker),
        sampled_at=in_words.time_of(state.sampled_at),
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
