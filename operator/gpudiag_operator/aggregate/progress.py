"""Statuses of diagnostics that are not judged right now: waiting, running, suspended, stalled.

Except under ``Stalled`` the last result stays: these touch conditions only.
"""

from enum import StrEnum

from gpudiag_api.kinds import GPUDiagnosticSpec, GPUDiagnosticStatus
from gpudiag_api.kinds.verdict import HistoryEntry
from gpudiag_api.times import to_rfc3339
from gpudiag_api.vocabulary import Health
from gpudiag_operator.aggregate.status import history
from gpudiag_operator.conditions import ConditionSet, clip


class Phase(StrEnum):
    """What a diagnostic is doing."""

    PROCESSING = "Processing"
    """Continuous: a new generation is not judged yet."""
    PENDING = "Pending"
    """Once: waits for its turn."""
    RUNNING = "Running"
    """Once: agents are being asked."""
    SUSPENDED = "Suspended"


class Stall(StrEnum):
    """Why a diagnostic will not be judged until somebody changes something."""

    TOO_MANY_NODES_FOR_FULL = "TooManyNodesForFull"
    TOO_MANY_DIAGNOSTICS = "TooManyDiagnostics"
    INVALID_TARGET = "InvalidTarget"
    NOT_YET_SUPPORTED = "NotYetSupported"


_SAYS = {
    Phase.PROCESSING: "The new spec is being processed.",
    Phase.PENDING: "The run waits for its turn.",
    Phase.RUNNING: "Agents are being asked for fresh samples.",
    Phase.SUSPENDED: "spec.suspend is true; the last result is kept.",
}


def progress(
    previous: GPUDiagnosticStatus | None,
    *,
    spec: GPUDiagnosticSpec,
    generation: int,
    phase: Phase,
    now: float,
    message: str = "",
) -> GPUDiagnosticStatus:
    """The status while something goes on; the last result is kept.

    Args:
        previous: the stored status; None: there is none yet.
        spec: of this generation.
        generation: metadata.generation.
        phase: what goes on.
        now: Unix seconds.
        message: for people; empty: a sentence for the phase.
    """
    before = previous or GPUDiagnosticStatus()
    text = message or _SAYS[phase]
    conditions = ConditionSet(before.conditions, generation=generation, now=now)
    conditions.drop("Reconciling", "Stalled")
    if phase is Phase.SUSPENDED:
        conditions.set("Ready", "True", "Suspended", text)
    else:
        conditions.set("Ready", "False", "Processing", text)
        conditions.set("Reconciling", "True", phase, text)
    if spec.mode == "Continuous":
        conditions.drop("Complete")
    elif phase is not Phase.SUSPENDED:
        conditions.set("Complete", "False", Phase.RUNNING if phase is Phase.RUNNING else Phase.PENDING, text)
    elif not conditions.is_true("Complete"):
        # None yet, or that of a run which the suspension stopped.
        conditions.set("Complete", "False", Phase.PENDING, text)
    return before.model_copy(update={"observed_generation": generation, "conditions": conditions.build()})


def stalled(
    previous: GPUDiagnosticStatus | None,
    *,
    spec: GPUDiagnosticSpec,
    generation: int,
    reason: Stall,
    message: str,
    now: float,
) -> GPUDiagnosticStatus:
    """The status of a diagnostic that cannot be judged as it is.

    The verdict becomes Unknown and the old result goes: it answered another question, and nobody keeps it true.

    Args:
        previous: the stored status; None: there is none yet.
        spec: of this generation.
        generation: metadata.generation.
        reason: why.
        message: for people: names the field and says what to write instead.
        now: Unix seconds.
    """
    stored = previous.conditions if previous is not None else ()
    conditions = ConditionSet(stored, generation=generation, now=now)
    conditions.drop("Reconciling", "GPUsHealthy", "AgentsReachable", "CircuitBreakersClosed")
    conditions.set("Ready", "False", reason, message)
    conditions.set("Stalled", "True", reason, message)
    if spec.mode == "Once":
        conditions.set("Complete", "False", Phase.PENDING, message)
    else:
        conditions.drop("Complete")
    text = clip(message, 1024)
    entry = HistoryEntry(at=to_rfc3339(now), verdict=Health.UNKNOWN, message=text)
    return GPUDiagnosticStatus(
        observed_generation=generation,
        conditions=conditions.build(),
        message=text,
        last_handled_trigger=previous.last_handled_trigger if previous is not None else None,
        # A diagnostic that never had a verdict has no change of it.
        history=history(previous, entry, spec) if previous is not None and previous.history else (),
    )
