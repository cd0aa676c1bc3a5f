"""Values of the wire in the words of the kinds: what GPUNodes and full results show alike. Pure."""

from collections.abc import Sequence

from gpudiag_api import wire
from gpudiag_api.kinds import parts as kinds
from gpudiag_api.times import from_rfc3339, to_rfc3339
from gpudiag_api.vocabulary import Health
from gpudiag_operator.assess.node import blinding
from gpudiag_operator.conditions import clip
from gpudiag_operator.domain import NodeState

_NAME = 253


def gpu_reason(gpu: wire.GPU, state: NodeState, findings: Sequence[wire.Finding]) -> str | None:
    """Why a GPU is not Healthy; ``findings``: those about it. None for a Healthy one."""
    if gpu.health is Health.HEALTHY:
        return None
    if state.failure is not None:
        return str(state.failure.reason)
    for finding in findings:
        if finding.severity.health is gpu.health:
            return finding.reason
    gap = blinding(state.capabilities)
    return str(gap.reason) if gap is not None else "ReportedByAgent"


def gpu_of(gpu: wire.GPU, reason: str | None) -> kinds.GPU:
    """A GPU; ``reason``: see :func:`gpu_reason`."""
    return kinds.GPU(
        index=gpu.index,
        uuid=gpu.uuid,
        pci=gpu.pci,
        model=gpu.model,
        serial=gpu.serial or None,
        memory_bytes=gpu.memory_bytes,
        health=gpu.health,
        reason=reason,
        score=gpu.score,
        mig_enabled=gpu.mig_enabled,
        mig=tuple(
            kinds.MIGInstance(
                uuid=one.uuid,
                instance=instance_of(one.gpu_instance, one.compute_instance),
                profile=one.profile,
                memory_bytes=one.memory_bytes,
            )
            for one in gpu.mig
        ),
    )


def instance_of(gpu_instance: int, compute_instance: int | None) -> str:
    """``gi1/ci0``."""
    return f"gi{gpu_instance}" if compute_instance is None else f"gi{gpu_instance}/ci{compute_instance}"


def subject_of(subject: wire.Subject) -> kinds.Subject:
    """What a finding is about."""
    mig = subject.mig_gpu_instance
    return kinds.Subject(
        gpu=subject.gpu_index,
        uuid=subject.gpu_uuid,
        pci=subject.pci,
        serial=subject.serial,
        mig_instance=None if mig is None else instance_of(mig, subject.mig_compute_instance),
        link=subject.link,
    )


def finding_of(finding: wire.Finding) -> kinds.Finding:
    """A finding."""
    return kinds.Finding(
        check=finding.check,
        reason=finding.reason,
        severity=finding.severity,
        blame=finding.blame,
        recommended_action=finding.action,
        message=finding.message,
        documentation=finding.documentation or None,
        subject=subject_of(finding.subject),
        evidence=tuple(
            kinds.Evidence(name=item.name, value=item.value, threshold=item.threshold, unit=item.unit)
            for item in finding.evidence
        ),
        first_seen=time_of(finding.first_seen),
        last_seen=time_of(finding.last_seen),
        count=finding.count,
    )


def xid_of(event: wire.XIDEvent) -> kinds.XIDEvent:
    """An XID event."""
    pod = f"{event.pod_namespace or ''}/{event.pod_name}" if event.pod_name else None
    return kinds.XIDEvent(
        code=event.code,
        name=event.name,
        severity=event.severity,
        blame=event.blame,
        recommended_action=event.action,
        message=event.message,
        subject=subject_of(event.subject),
        process_id=event.process_id,
        process_name=event.process_name,
        pod=None if pod is None else clip(pod, _NAME),
        id=event.id,
        first_seen=time_of(event.first_seen),
        last_seen=time_of(event.last_seen),
        count=event.count,
    )


def time_of(text: str | None) -> str | None:
    """An agent's time, as the schema takes it: one that is none would have the whole PATCH refused."""
    if not text:
        return None
    try:
        return to_rfc3339(from_rfc3339(text))
    except ValueError:
        return None
