"""What collect remembers of one node, and when a failure counts. Pure: times come in as arguments."""

from gpudiag_api.vocabulary import BreakerState, NotRead
from gpudiag_api.wire import Report
from gpudiag_operator.collect.breaker import Breaker
from gpudiag_operator.collect.outcome import Answer
from gpudiag_operator.domain import BreakerSnapshot, Failure, Reading, Target

AT_ONCE = frozenset({NotRead.NODE_NOT_READY, NotRead.NODE_GONE, NotRead.FORCED_OPEN, NotRead.CIRCUIT_OPEN})
"""Reasons without a grace period: known for sure, and no agent roll-out looks like them."""

_NOTHING = (None, None, BreakerState.CLOSED)
"""No report, no failure that counts, a closed breaker: nothing that anybody could use."""

_OPEN = " (the circuit breaker is open;"


class NodeRecord:
    """One node's target, last good report, present run of failures, and breaker.

    A failure is *pending* at first: the node keeps its last state. It is *declared*, and then part of every
    reading, once the grace period since the first failure in a row is over, or at once for some reasons.
    """

    __slots__ = ("_told", "breaker", "cause", "declared", "etag", "read_at", "report", "since", "since_tick", "target")

    def __init__(self, target: Target, breaker: Breaker) -> None:
        self.target = target
        self.breaker = breaker
        self.report: Report | None = None
        self.etag: str | None = None
        self.read_at: float | None = None
        self.cause: tuple[NotRead, str] | None = None
        """Of the last failure in the present run of failures; None: none."""
        self.since = 0.0
        """Unix seconds of the first failure in the run."""
        self.since_tick = 0.0
        """The same on the monotonic clock."""
        self.declared = False
        self._told: tuple[object, ...] | None = None

    @property
    def untried(self) -> bool:
        """Nothing was learned about the node yet by this process."""
        return self.read_at is None and self.cause is None

    def answered(self, answer: Answer, *, wall: float) -> None:
        """Take a good answer; a run of failures ends."""
        if answer.report is not None:
            self.report = answer.report
        self.etag = answer.etag or (self.etag if answer.report is None else None)
        self.read_at = wall
        self.cause = None
        self.declared = False

    def failed(self, reason: NotRead, message: str, *, wall: float, tick: float) -> None:
        """Take a failure: the first of a run, or a further one."""
        if self.cause is None:
            self.since, self.since_tick = wall, tick
        self.cause = (reason, message)
        self.declared = self.declared or self.at_once

    @property
    def at_once(self) -> bool:
        """Whether the present failure needs no grace period.

        That an agent is missing or not ready counts at once on a node that was never read: there is no state to keep.
        """
        if self.cause is None:
            return False
        return self.cause[0] in AT_ONCE or (self.target.blocked is not None and self.report is None)

    def restore(self, snapshot: BreakerSnapshot, failure: Failure | None) -> None:
        """Take over an earlier process's breaker, and why it opened where that is known."""
        self.breaker.restore(snapshot)
        if self.breaker.state is not BreakerState.OPEN:
            return
        if failure is None:
            message = f"not called: the circuit breaker is open after {snapshot.failures} failures"
            self.cause = (NotRead.CIRCUIT_OPEN, message)
            self.since = snapshot.opened_at or 0.0
        else:
            # Said anew below; what is stored says it already.
            self.cause = (failure.reason, failure.message.partition(_OPEN)[0])
            self.since = failure.since
        self.declared = True

    def failure(self) -> Failure | None:
        """The failure as others see it: None until declared; says so when the breaker is open because of it."""
        if self.cause is None or not self.declared:
            return None
        reason, message = self.cause
        if reason is not NotRead.CIRCUIT_OPEN and self.breaker.state is BreakerState.OPEN:
            failures = self.breaker.snapshot().failures
            message = f"{message}{_OPEN} failures in a row: {failures})"
        return Failure(reason=reason, message=message, since=self.since)

    def reading(self) -> Reading:
        """Everything known now."""
        return Reading(
            target=self.target,
            report=self.report,
            etag=self.etag,
            failure=self.failure(),
            breaker=self.breaker.snapshot(),
            read_at=self.read_at,
        )

    def news(self) -> bool:
        """Whether something changed, since this was last asked, that others must hear: report, reason, breaker state.

        Failure counts and times are no news; they ride along with the next.
        """
        reason = self.cause[0] if self.cause is not None and self.declared else None
        told = (self.target, self.report, reason, self.breaker.state)
        before, self._told = self._told, told
        if told[1:] == _NOTHING and (before is None or before[1:] == _NOTHING):
            return False
        if before is None:
            return True
        return before[1] is not told[1] or before[0] != told[0] or before[2:] != told[2:]
