"""Health of a node and of each GPU: report, capabilities and failures, weighed by the default rules.

Three rules carry it. No data is not healthy: what could not be read is Unknown, with the reason. Unhealthy outranks
Unknown, so a Critical finding of a source that still works (kernel log, PCI bus) is not hidden by a driver that
hangs. And what was known before a node fell silent stays visible as such, but is no verdict any more.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from gpudiag_api.kinds import GPUNodeSpec
from gpudiag_api.times import from_rfc3339
from gpudiag_api.vocabulary import Action, Health, NotRead
from gpudiag_api.wire import GPU, CapabilityGap, Finding, Report
from gpudiag_operator.assess import weigh
from gpudiag_operator.assess.words import sentence, subject_name
from gpudiag_operator.conditions import clip
from gpudiag_operator.domain import Failure, NodeInfo, NodeState, Reading

T = TypeVar("T")

ALL_HEALTHY = "AllHealthy"
"""Reason of a node with nothing to report."""

MESSAGE_LIMIT = 1024

_NO_SPEC = GPUNodeSpec()


def assess(
    reading: Reading,
    *,
    node: NodeInfo | None,
    spec: GPUNodeSpec = _NO_SPEC,
    now: float,
    last: NodeState | None = None,
) -> NodeState:
    """Assess one node.

    Args:
        reading: what collect knows of it.
        node: its Node; None when there is none (any more).
        spec: of its GPUNode; the defaults when it has none.
        now: Unix seconds; decides whether maintenance is over.
        last: what was known of the node before, for example recalled from its GPUNode after a restart. Its inventory
            and findings are used while ``reading`` has no report.

    Returns:
        Its state. With a failure: Unknown with that word as reason, GPUs as last known but Unknown, findings and
        XIDs as last known (``message`` says so; they move no verdict).
    """
    known = _facts(reading.report, last)
    failure = _failure(reading, now)
    known = _unread(known, failure) if failure else judged(known)
    return msgspec.structs.replace(
        known,
        name=reading.target.node,
        node_uid=node.uid if node else "",
        labels=node.labels if node else {},
        failure=failure,
        breaker=reading.breaker,
        pod=reading.target.pod,
        maintenance=in_maintenance(spec, now),
        details=reading.details,
    )


def in_maintenance(spec: GPUNodeSpec, now: float) -> bool:
    """Whether people declared maintenance that has not ended. An end that cannot be read is no end."""
    if spec.maintenance is None:
        return False
    if spec.maintenance.until is None:
        return True
    try:
        return from_rfc3339(spec.maintenance.until) > now
    except ValueError:
        return True


def blinding(capabilities: Iterable[CapabilityGap]) -> CapabilityGap | None:
    """The first thing the agent could not do that makes the GPUs Unknown."""
    return next((gap for gap in capabilities if gap.reason.blinds), None)


def _facts(report: Report | None, last: NodeState | None) -> NodeState:
    if report is None:
        return last or NodeState(name="")
    return NodeState(
        name="",
        health=report.health,
        driver=report.driver,
        gpus=tuple(sorted(_unique(report.gpus, lambda gpu: gpu.uuid or gpu.pci), key=lambda gpu: gpu.index)),
        findings=weigh.worst_first(report.findings),
        xids=_unique(report.xids, lambda event: event.id),
        capabilities=_unique(report.capabilities, lambda gap: gap.reason),
        allocations=_unique(report.allocations, lambda held: held),
        agent_version=report.agent.version,
        sampled_at=report.sampled_at,
    )


def _unique(items: tuple[T, ...], key: Callable[[T], object]) -> tuple[T, ...]:
    if len(items) < 2:
        return items
    found: dict[object, T] = {}
    for item in items:
        found.setdefault(key(item), item)
    return tuple(found.values())


def _failure(reading: Reading, now: float) -> Failure | None:
    if reading.failure is not None:
        return reading.failure
    target = reading.target
    if target.blocked is not None and reading.report is None:
        # With a report the grace period is running: collect declares the failure when its time has come.
        return Failure(reason=target.blocked, message=target.message, since=now)
    if reading.report is None:
        return Failure(reason=NotRead.AGENT_NOT_READY, message="the agent has not been asked yet", since=now)
    return None


def _unread(known: NodeState, failure: Failure) -> NodeState:
    unknown = Health.UNKNOWN
    message = f"Unknown: not read ({failure.reason}): {failure.message.rstrip('. ')}"
    return msgspec.structs.replace(
        known,
        health=unknown,
        reason=str(failure.reason),
        message=clip(f"{message}{last_known(known.findings)}.", MESSAGE_LIMIT),
        action=Action.NONE,
        gpus=tuple(_with_health(gpu, unknown) for gpu in known.gpus),
    )


def last_known(findings: tuple[Finding, ...]) -> str:
    """The worst finding from before the silence, as the end of a sentence; empty when there was none that counts."""
    if not findings or findings[0].severity.health is Health.HEALTHY:
        return ""
    worst = findings[0]
    more = f" and {len(findings) - 1} more" if len(findings) > 1 else ""
    return f"; last known, at {worst.last_seen}: {worst.severity} {worst.reason} on {subject_name(worst.subject)}{more}"


def judged(known: NodeState) -> NodeState:
    """Health, reason and message from GPUs and findings.

    ``known.health`` is what the agent says of the node; it is never made better.
    """
    gap = blinding(known.capabilities)
    of = weigh.by_gpu(known.gpus, known.findings)
    floor = Health.UNKNOWN if gap else Health.HEALTHY
    gpus = tuple(
        _with_health(gpu, weigh.health_from(of.get(at, ()), Health.worst((floor, gpu.health))))
        for at, gpu in enumerate(known.gpus)
    )
    parts = [known.health, floor, weigh.health_from(known.findings)]
    health = Health.worst(parts + ([gpu.health for gpu in gpus] or [Health.UNKNOWN]))
    reason, evidence = _why(health, known, gap)
    action = Action.covering(finding.action for finding in known.findings)
    serious = sum(finding.severity.health is not Health.HEALTHY for finding in known.findings)
    more = max(serious - 1, 0) if health is not Health.UNKNOWN else serious
    return msgspec.structs.replace(
        known,
        health=health,
        reason=reason,
        message=clip(sentence(health, evidence, action, more=more), MESSAGE_LIMIT),
        action=action,
        gpus=gpus,
    )


def _why(health: Health, known: NodeState, gap: CapabilityGap | None) -> tuple[str, str]:
    """Reason and evidence of a node that was read."""
    if health is Health.HEALTHY:
        number = len(known.gpus)
        return ALL_HEALTHY, "the GPU works" if number == 1 else f"all {number} GPUs work"
    for finding in known.findings:
        if finding.severity.health is health:
            return finding.reason, finding.message or finding.reason
    if gap is not None and health is Health.UNKNOWN:
        return str(gap.reason), gap.message or str(gap.reason)
    if not known.gpus:
        return "NoGPUs", "the agent lists no GPU"
    return "ReportedByAgent", f"the agent says {health} and gives no finding"


def _with_health(gpu: GPU, health: Health) -> GPU:
    return gpu if gpu.health is health else msgspec.structs.replace(gpu, health=health)
