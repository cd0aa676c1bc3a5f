"""Whether the resources tell the present (design §6): nothing in them is a heartbeat, the operator's Lease is."""

from dataclasses import dataclass

from gpudiag_api import durations
from gpudiag_api.times import from_rfc3339
from gpudiag_mcp.objects.diagnostic import GPUDiagnostic

_CONFIRMED_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class OperatorSign:
    """The operator's Lease as last seen; ``problem`` says why it was not."""

    renewed: float | None = None
    """Unix seconds, by the operator's clock."""
    duration_seconds: float = 0.0
    moved_at: float | None = None
    """When it was last seen to move, by our own monotonic clock: independent of clocks that differ."""
    problem: str = "the operator's Lease was not looked at yet"


@dataclass(frozen=True)
class Freshness:
    """Fresh, Stale or Unknown, and why it is not Fresh."""

    state: str
    why: str = ""


def of_operator(sign: OperatorSign, *, now: float, monotonic: float) -> Freshness:
    """Whether the operator is at work: its Lease is not older than twice its duration.

    Args:
        sign: the Lease.
        now: Unix seconds.
        monotonic: the clock of ``sign.moved_at``.
    """
    if sign.renewed is None:
        return Freshness("Unknown", f"Whether this is current is unknown: {sign.problem}.")
    limit = 2 * sign.duration_seconds
    if now - sign.renewed <= limit or (sign.moved_at is not None and monotonic - sign.moved_at <= limit):
        return Freshness("Fresh")
    age = now - sign.renewed
    return Freshness("Stale", f"The operator has not renewed its Lease for {age:.0f} s: this may be out of date.")


def of_diagnostic(diagnostic: GPUDiagnostic, operator: Freshness, *, now: float) -> Freshness:
    """The same for one GPUDiagnostic: a Continuous one must also have been confirmed lately."""
    confirmed = diagnostic.status.last_confirmed_at
    if diagnostic.spec.mode != "Continuous" or diagnostic.spec.suspend or not confirmed:
        return operator
    try:
        age = now - from_rfc3339(confirmed)
        limit = max(_CONFIRMED_SECONDS, 2 * durations.parse(diagnostic.spec.interval))
    except ValueError:
        return operator
    if age > limit:
        return Freshness("Stale", f"Its verdict was last confirmed {age:.0f} s ago, more than {limit:.0f} s.")
    return operator
