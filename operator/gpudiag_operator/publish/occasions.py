"""Which changes are worth an Event: what an operator on call would want in ``kubectl describe``. Pure."""

from collections.abc import Iterator, Mapping

from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_api.vocabulary import Blame, BreakerState, Health, Severity
from gpudiag_operator.assess.words import subject_name
from gpudiag_operator.domain import NodeState
from gpudiag_operator.publish import limits
from gpudiag_operator.publish.events import EventSpec
from gpudiag_operator.publish.meaning import Meaning

MOST = 16
"""Events of one write. A node on which everything breaks at once says the worst of it; the status has the rest."""

_HEALTH_REASON = {
    Health.HEALTHY: "GPURecovered",
    Health.DEGRADED: "GPUDegraded",
    Health.UNHEALTHY: "GPUUnhealthy",
    Health.UNKNOWN: "NodeUnknown",
}
_BREAKER_REASON = {
    BreakerState.CLOSED: "CircuitBreakerClosed",
    BreakerState.OPEN: "CircuitBreakerOpened",
    BreakerState.HALF_OPEN: "CircuitBreakerHalfOpen",
    BreakerState.FORCED_OPEN: "CircuitBreakerForcedOpen",
    BreakerState.FORCED_CLOSED: "CircuitBreakerForcedClosed",
}


def of_node(
    old: Meaning | None, new: Meaning, state: NodeState, *, transitions: Mapping[str, str]
) -> tuple[EventSpec, ...]:
    """Events about the step of a node to a new state.

    Args:
        old: what is stored; None: nothing yet. Then only what is wrong is worth an Event.
        new: of ``state``.
        state: the new state.
        transitions: stored ``lastTransitionTime`` by type of condition.
    """
    found = [
        *_health(old, state, transitions),
        *_breaker(old, state, transitions),
        # Of a node that is silent now, too: what was read last may not have been told yet.
        *_findings(old, new, state),
        *_xids(old, state),
    ]
    return tuple(found[:MOST])


def _health(old: Meaning | None, state: NodeState, transitions: Mapping[str, str]) -> Iterator[EventSpec]:
    if old is None:
        # A new node that is well, or whose agent has not started yet, is no news.
        if state.health in (Health.HEALTHY, Health.UNKNOWN):
            return
    elif old.health == state.health:
        return
    yield EventSpec(
        reason=_HEALTH_REASON[state.health],
        message=state.message,
        type="Normal" if state.health is Health.HEALTHY else "Warning",
        origin=transitions.get("GPUsHealthy", ""),
    )


def _breaker(old: Meaning | None, state: NodeState, transitions: Mapping[str, str]) -> Iterator[EventSpec]:
    now = state.breaker.state
    if now == (BreakerState.CLOSED if old is None else old.breaker):
        return
    yield EventSpec(
        reason=_BREAKER_REASON[now],
        message=f"The circuit breaker is {now} after {state.breaker.failures} failures in a row.",
        type="Warning" if now is BreakerState.OPEN else "Normal",
        origin=transitions.get("CircuitBreakerClosed", ""),
    )


def _findings(old: Meaning | None, new: Meaning, state: NodeState) -> Iterator[EventSpec]:
    fresh = new.findings - (old.findings if old is not None else frozenset())
    for finding in limits.findings(state):
        # An XID speaks for itself below, under the identity of its line in the kernel log.
        if finding.key in fresh and finding.severity is Severity.CRITICAL and finding.check != "XID":
            yield EventSpec(
                reason=finding.reason, message=finding.message, subject=finding.key[2], origin=finding.first_seen
            )


def _xids(old: Meaning | None, state: NodeState) -> Iterator[EventSpec]:
    known = old.xids if old is not None else frozenset()
    for event in limits.xids(state):
        if event.id in known or event.blame is Blame.APPLICATION or event.severity is Severity.INFO:
            continue
        where = event.subject.gpu_uuid or event.subject.pci or ""
        name = f" ({event.name})" if event.name else ""
        yield EventSpec(
            reason=f"XID{event.code}",
            message=f"{subject_name(event.subject)}: XID {event.code}{name}: {event.message}",
            subject=where,
            origin=event.id,
        )


def of_diagnostic(previous: GPUDiagnosticStatus | None, status: GPUDiagnosticStatus) -> EventSpec | None:
    """The Event about a change of verdict, if it changed. A first verdict is one unless it is good or unknown.

    Args:
        previous: the stored status.
        status: the one to be written.
    """
    before = previous.verdict if previous is not None and previous.history else ""
    if status.verdict == before or (not before and status.verdict in (Health.HEALTHY, Health.UNKNOWN)):
        return None
    worse = status.verdict != Health.HEALTHY
    left = previous.history[0].at if previous is not None and previous.history else ""
    return EventSpec(
        reason=f"Verdict{status.verdict}",
        message=status.message,
        type="Warning" if worse else "Normal",
        subject=f"{before}>{status.verdict}",
        origin=left,
    )
