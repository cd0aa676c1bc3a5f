"""From a stored GPUNode.status back to a node's state: what an operator knows before it has asked anybody.

The API is the only memory. A state that was written and recalled has the same meaning, so a restart with nothing
changed writes nothing; and a node that stays silent keeps its inventory and last findings.
"""

from enum import StrEnum
from typing import TypeVar

from gpudiag_api import durations, wire
from gpudiag_api.kinds import GPUNodeStatus
from gpudiag_api.kinds import parts as kinds
from gpudiag_api.times import from_rfc3339
from gpudiag_api.vocabulary import Action, Blame, BreakerState, Capability, Health, NotRead, Severity
from gpudiag_operator.domain import BreakerSnapshot, Failure, NodeState
from gpudiag_operator.publish.meaning import REACHABLE

W = TypeVar("W", bound=StrEnum)


def recall(name: str, status: GPUNodeStatus) -> NodeState:
    """The state that a status was made from, as far as it was stored. Words of a newer operator become neutral ones.

    Args:
        name: of the node.
        status: of its GPUNode.
    """
    return NodeState(
        name=name,
        health=_word(Health, status.health, Health.UNKNOWN),
        reason=status.reason,
        message=status.message,
        action=_word(Action, status.recommended_action, Action.NONE),
        driver=wire.Driver(version=status.driver_version, cuda_version=status.cuda_version),
        gpus=tuple(map(_gpu, status.gpus)),
        findings=tuple(map(_finding, status.findings)),
        findings_truncated=status.findings_truncated,
        xids=tuple(map(_xid, status.xids)),
        capabilities=tuple(
            wire.CapabilityGap(reason=Capability(gap.reason), message=gap.message)
            for gap in status.agent.capabilities
            if gap.reason in set(Capability)
        ),
        allocations=tuple(
            wire.Allocation(gpu_uuid=held.gpu_uuid, namespace=held.namespace, pod=held.pod, container=held.container)
            for held in status.allocations
        ),
        failure=failure(status),
        breaker=breaker(status),
        agent_version=status.agent.version,
        sampled_at=status.sampled_at,
    )


def failure(status: GPUNodeStatus) -> Failure | None:
    """Why the node was not read when this was written; None: it was."""
    for condition in status.conditions:
        if condition.type == "AgentReachable" and condition.reason != REACHABLE:
            reason = _word(NotRead, condition.reason, NotRead.AGENT_NOT_READY)
            since = _seconds(condition.last_transition_time) or 0.0
            return Failure(reason=reason, message=condition.message, since=since)
    return None


def breaker(status: GPUNodeStatus) -> BreakerSnapshot:
    """The circuit breaker as it was written."""
    stored = status.breaker
    try:
        open_for = None if stored.open_for is None else durations.parse(stored.open_for)
    except ValueError:
        open_for = None
    return BreakerSnapshot(
        state=_word(BreakerState, stored.state, BreakerState.CLOSED),
        failures=stored.failures,
        opened_at=_seconds(stored.opened_at),
        open_for_seconds=open_for,
        last_handled_reset=stored.last_handled_reset,
    )


def _word(words: type[W], text: str, otherwise: W) -> W:
    try:
        return words(text)
    except ValueError:
        return otherwise


def _seconds(text: str | None) -> float | None:
    try:
        return from_rfc3339(text) if text else None
    except ValueError:
        return None


def _gpu(gpu: kinds.GPU) -> wire.GPU:
    return wire.GPU(
        index=gpu.index,
        uuid=gpu.uuid,
        pci=gpu.pci,
        model=gpu.model,
        serial=gpu.serial or "",
        memory_bytes=gpu.memory_bytes,
        mig_enabled=gpu.mig_enabled,
        mig=tuple(
            wire.MIGInstance(
                uuid=one.uuid,
                gpu_instance=_instance(one.instance)[0] or 0,
                compute_instance=_instance(one.instance)[1] or 0,
                profile=one.profile,
                memory_bytes=one.memory_bytes,
            )
            for one in gpu.mig
        ),
        health=_word(Health, gpu.health, Health.UNKNOWN),
        score=gpu.score,
    )


def _instance(text: str | None) -> tuple[int | None, int | None]:
    """``gi1/ci0`` as two numbers."""
    first, _, second = (text or "").partition("/")
    one, two = first.removeprefix("gi"), second.removeprefix("ci")
    return (int(one) if one.isdecimal() else None, int(two) if two.isdecimal() else None)


def _subject(subject: kinds.Subject) -> wire.Subject:
    gpu_instance, compute_instance = _instance(subject.mig_instance)
    return wire.Subject(
        gpu_index=subject.gpu,
        gpu_uuid=subject.uuid,
        pci=subject.pci,
        serial=subject.serial,
        mig_gpu_instance=gpu_instance,
        mig_compute_instance=compute_instance,
        link=subject.link,
    )


def _finding(finding: kinds.Finding) -> wire.Finding:
    return wire.Finding(
        check=finding.check,
        reason=finding.reason,
        severity=_word(Severity, finding.severity, Severity.INFO),
        blame=_word(Blame, finding.blame, Blame.UNKNOWN),
        action=_word(Action, finding.recommended_action, Action.NONE),
        message=finding.message,
        documentation=finding.documentation or "",
        subject=_subject(finding.subject),
        evidence=tuple(
            wire.Evidence(name=item.name, value=item.value, threshold=item.threshold, unit=item.unit)
            for item in finding.evidence
        ),
        first_seen=finding.first_seen or "",
        last_seen=finding.last_seen or "",
        count=finding.count,
    )


def _xid(event: kinds.XIDEvent) -> wire.XIDEvent:
    namespace, _, pod = (event.pod or "").partition("/")
    return wire.XIDEvent(
        id=event.id,
        code=event.code,
        name=event.name,
        severity=_word(Severity, event.severity, Severity.INFO),
        blame=_word(Blame, event.blame, Blame.UNKNOWN),
        action=_word(Action, event.recommended_action, Action.NONE),
        message=event.message,
        subject=_subject(event.subject),
        process_id=event.process_id,
        process_name=event.process_name,
        pod_namespace=namespace or None,
        pod_name=pod or None,
        first_seen=event.first_seen or "",
        last_seen=event.last_seen or "",
        count=event.count,
    )
