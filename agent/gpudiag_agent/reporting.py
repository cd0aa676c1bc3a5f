"""Samples and occurrences in the words of the wire: units converted, texts clipped to what the wire carries."""

from collections.abc import Sequence

from gpudiag_agent.checks.base import Identity, Occurrence
from gpudiag_agent.checks.xid import catalogue
from gpudiag_agent.kernel_log.intake import Gap
from gpudiag_agent.sample import GPUSample
from gpudiag_agent.score import score
from gpudiag_api.times import to_rfc3339
from gpudiag_api.vocabulary import Health
from gpudiag_api.wire import GPU, Finding, KernelLogGap, Measurements, MIGInstance, XIDEvent

_WORD, _NAME, _TEXT = 63, 253, 1024
_MAX_MIG = 64


def word(text: str | None) -> str | None:
    """A short text within the wire's bound; None stays None."""
    return None if text is None else text[:_WORD]


def _count(value: int | None) -> int | None:
    """A count; a negative one is a driver's way of saying that it does not know."""
    return value if value is not None and 0 <= value < 2**63 else None


def gpu(sample: GPUSample, *, health: Health, findings: Sequence[Finding]) -> GPU:
    """A GPU that was read; ``findings``: those about it."""
    milliwatts = _count(sample.power_milliwatts)
    points, losses = score(sample, findings)
    return GPU(
        index=min(max(sample.index, 0), 255),
        uuid=sample.uuid[:_WORD],
        pci=sample.pci[:_WORD],
        model=sample.model[:_NAME],
        serial=sample.serial[:_WORD],
        memory_bytes=_count(sample.memory_total_bytes),
        mig_enabled=sample.mig_current,
        mig=tuple(
            MIGInstance(
                uuid=device.uuid[:_WORD],
                gpu_instance=device.gpu_instance,
                compute_instance=device.compute_instance,
                profile=device.profile[:_WORD],
                memory_bytes=_count(device.memory_bytes),
            )
            for device in sample.mig[:_MAX_MIG]
        ),
        health=health,
        score=None if health is Health.UNKNOWN else points,
        score_losses=losses,
        measurements=Measurements(
            temperature_celsius=sample.temperature_celsius,
            memory_temperature_celsius=sample.memory_temperature_celsius,
            power_watts=None if milliwatts is None else milliwatts / 1000,
            utilization_percent=sample.utilization_percent,
            memory_used_bytes=_count(sample.memory_used_bytes),
            sm_clock_mhz=_count(sample.sm_clock_mhz),
        ),
    )


def unread_gpu(known: Identity, *, index: int, health: Health) -> GPU:
    """A GPU that should be there and was not read: its identity, no values."""
    return GPU(
        index=index,
        uuid=known.uuid[:_WORD],
        pci=known.pci[:_WORD],
        model=known.model[:_NAME],
        serial=known.serial[:_WORD],
        memory_bytes=_count(known.memory_bytes),
        health=health,
    )


def xid(held: Occurrence, known: Identity | None) -> XIDEvent:
    """An XID of the kernel log; ``known``: the GPU at its address."""
    namespace, _, pod = (held.job or "").partition("/")
    return XIDEvent(
        id=held.id[:_WORD],
        code=held.code,
        name=catalogue.lookup(held.code).name[:_WORD],
        kind=catalogue.lookup(held.code).kind,
        severity=held.verdict.severity,
        blame=held.verdict.blame,
        action=held.verdict.action,
        message=held.message[:_TEXT],
        subject=held.subject(known),
        process_id=held.process_id,
        process_name=word(held.process_name),
        pod_namespace=namespace[:_NAME] or None,
        pod_name=pod[:_NAME] or None,
        first_seen=to_rfc3339(held.first_seen),
        last_seen=to_rfc3339(held.last_seen),
        count=held.count,
    )


def gap(missed: Gap) -> KernelLogGap:
    """Records of the kernel log that nobody read."""
    return KernelLogGap(
        boot_id=missed.boot_id[:_WORD],
        after=_count(missed.after),
        before=_count(missed.before),
        lost=_count(missed.lost),
        at=to_rfc3339(missed.at),
    )
