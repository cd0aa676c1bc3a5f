"""Where a diagnostic stands, decided from its object alone, so that every process decides alike. Pure."""

from enum import Enum, auto

from pydantic import ValidationError

from gpudiag_api import durations
from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_api.times import from_rfc3339
from gpudiag_operator.aggregate.progress import Stall
from gpudiag_operator.assess.policy import Judge
from gpudiag_operator.diagnostics.registry import Diagnostic
from gpudiag_operator.diagnostics.targets import scope_of
from gpudiag_operator.kube.selectors import SelectorError


class Stage(Enum):
    """What there is to do."""

    STALLED = auto()
    SUSPENDED = auto()
    CONTINUOUS = auto()
    ONCE_DUE = auto()
    """To be run for this generation and trigger."""
    ONCE_DONE = auto()


def stall(diagnostic: Diagnostic, excess: str | None) -> tuple[Stall, str] | None:
    """Why a diagnostic cannot be served, with a sentence that says what to do; None when it can.

    Args:
        diagnostic: the object.
        excess: why it is one too many; None when it is not.
    """
    if excess is not None:
        return Stall.TOO_MANY_DIAGNOSTICS, excess
    if diagnostic.problem:
        return Stall.NOT_YET_SUPPORTED, diagnostic.problem
    try:
        scope_of(diagnostic)
        Judge(diagnostic.spec)
    except SelectorError as error:
        return Stall.INVALID_TARGET, str(error)
    return None


def stage(diagnostic: Diagnostic, known: GPUDiagnosticStatus | None, stalled: object | None) -> Stage:
    """The stage of a diagnostic whose status, as stored or about to be, is ``known``."""
    if stalled is not None:
        return Stage.STALLED
    if diagnostic.spec.suspend:
        return Stage.SUSPENDED
    if diagnostic.spec.mode == "Continuous":
        return Stage.CONTINUOUS
    return Stage.ONCE_DONE if is_complete(diagnostic, known) else Stage.ONCE_DUE


def is_complete(diagnostic: Diagnostic, known: GPUDiagnosticStatus | None) -> bool:
    """Whether the Once run of this generation has ended. A new trigger is a new generation, too."""
    if known is None or known.last_handled_trigger != diagnostic.spec.trigger:
        return False
    return any(
        condition.type == "Complete"
        and condition.status == "True"
        and condition.observed_generation == diagnostic.generation
        for condition in known.conditions
    )


def expires_at(diagnostic: Diagnostic, known: GPUDiagnosticStatus | None) -> float | None:
    """Unix seconds at which a finished Once diagnostic is to be deleted; None: never, or not finished."""
    ttl = diagnostic.spec.ttl_after_finished
    if ttl is None or known is None or known.finished_at is None or not is_complete(diagnostic, known):
        return None
    return from_rfc3339(known.finished_at) + durations.parse(ttl)


def stored_status(diagnostic: Diagnostic) -> GPUDiagnosticStatus | None:
    """The stored status, None when there is none or it is of a shape that this version cannot read."""
    if not diagnostic.status:
        return None
    try:
        return GPUDiagnosticStatus.model_validate(diagnostic.status)
    except ValidationError:
        return None
