"""The history of this boot as the report lists it: one occurrence per code, GPU, process and mark. Pure."""

from gpudiag_agent.checks.base import Occurrence
from gpudiag_agent.checks.xid import history, workflow
from gpudiag_agent.checks.xid.history import Burst, Bursts

MAX_IDENTITIES = 64
"""As many as the wire carries."""


def of(bursts: Bursts, *, boot: str) -> tuple[Occurrence, ...]:
    """Newest first, at most 64: those that matter least are left out."""
    groups: dict[tuple[object, ...], list[Burst]] = {}
    for burst in history.of_boot(bursts, boot):
        groups.setdefault(burst.key, []).append(burst)
    held = [_occurrence(group, bursts) for group in groups.values()]
    if len(held) > MAX_IDENTITIES:
        held.sort(key=lambda one: (not one.cleared, one.verdict.severity.badness, one.last_seen))
        held = held[-MAX_IDENTITIES:]
    return tuple(sorted(held, key=lambda one: (-one.last_seen, one.id)))


def _occurrence(group: list[Burst], bursts: Bursts) -> Occurrence:
    first, newest = min(group, key=lambda one: one.first), max(group, key=lambda one: one.last)
    verdicts = [workflow.verdict(burst, bursts) for burst in group if not burst.cleared] or [
        workflow.verdict(newest, bursts)
    ]
    worst = max(verdicts, key=lambda one: (one.severity.badness, one.action.disruption))
    return Occurrence(
        id=first.id,
        code=first.code,
        pci=first.pci,
        verdict=worst,
        message=first.message,
        gpu_instance=first.gpu_instance,
        compute_instance=first.compute_instance,
        process_id=first.process_id,
        process_name=first.process_name,
        job=next((burst.job for burst in group if burst.job), None),
        link=first.link,
        first_seen=first.first,
        last_seen=newest.last,
        count=sum(burst.count for burst in group),
        cleared=all(burst.cleared for burst in group),
    )
