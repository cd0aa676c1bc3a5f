"""What a change of a diagnostic's status is worth: a PATCH now, a PATCH within minutes, or none.

Meaning is what a program could act on: verdict, action, numbers, rows, groups, conditions. Sentences carry measured
values and times, so they ride along with the next write; but how far a first fill has come is worth one.
"""

from typing import Any

from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_api.times import from_rfc3339, to_rfc3339
from gpudiag_api.vocabulary import Health
from gpudiag_operator.aggregate.judged import says_filling

CONFIRM_SECONDS = 300.0
"""``lastConfirmedAt`` moves at most this often."""
SKEW_SECONDS = 60.0
"""A confirmation further in the future is of a clock that was wrong: it would call stale data fresh."""

_RUN = ("run_id", "started_at", "finished_at")
_SKIP: Any = {
    **dict.fromkeys((*_RUN, "last_confirmed_at", "message", "history"), True),
    "conditions": {"__all__": {"message", "last_transition_time"}},
    "nodes": {"__all__": {"finding"}},
    "findings": {"__all__": {"message"}},
}


def same_meaning(old: GPUDiagnosticStatus, new: GPUDiagnosticStatus) -> bool:
    """Whether nothing changed but runs, times and sentences."""
    return _meaning(old) == _meaning(new)


def _meaning(status: GPUDiagnosticStatus) -> dict[str, Any]:
    found = status.model_dump(exclude=_SKIP)
    for row in found["nodes"]:
        # Whether there is such a sentence matters, its words do not.
        row["skipped"], row["failed"] = row["skipped"] is not None, row["failed"] is not None
    found["filling"] = [one.message for one in status.conditions if says_filling(one.message)]
    return found


def worsened(old: GPUDiagnosticStatus | None, new: GPUDiagnosticStatus) -> bool:
    """Whether health got worse: such a change does not wait for ``spec.interval`` (2 s apart are enough)."""
    if old is None:
        return True
    before, after = _badness(old.verdict), _badness(new.verdict)
    if before != after:
        return after > before
    return (
        new.summary.gpus.unhealthy > old.summary.gpus.unhealthy
        or new.summary.gpus.unknown > old.summary.gpus.unknown
        or new.summary.findings.critical > old.summary.findings.critical
    )


def _badness(word: str) -> int:
    try:
        return Health(word).badness
    except ValueError:  # of a newer operator
        return Health.UNKNOWN.badness


def next_write(
    previous: GPUDiagnosticStatus | None, new: GPUDiagnosticStatus, *, now: float
) -> GPUDiagnosticStatus | None:
    """The status to write, if any.

    Args:
        previous: the stored status.
        new: the one just computed.
        now: Unix seconds.

    Returns:
        ``new`` where its meaning differs. Else, when ``lastConfirmedAt`` is 5 minutes old, ``new`` under the run
        that last changed the status. Else None: nothing is worth a write.
    """
    if previous is None or not same_meaning(previous, new):
        return new
    if not _due(previous.last_confirmed_at, now):
        return None
    kept = {name: getattr(previous, name) for name in (*_RUN, "history")}
    return new.model_copy(update={**kept, "last_confirmed_at": to_rfc3339(now)})


def _due(confirmed: str | None, now: float) -> bool:
    if confirmed is None:
        return True
    try:
        age = now - from_rfc3339(confirmed)
    except ValueError:
        return True
    return not -SKEW_SECONDS <= age < CONFIRM_SECONDS
