"""When a Continuous diagnostic is judged, and when its status may move. Pure; times are monotonic seconds."""

from dataclasses import dataclass

COALESCE_SECONDS = 0.2
"""A change is looked at this much later: what fails together is then seen together."""
WORSE_SECONDS = 2.0
"""Between two writes when health worsens."""
CONFIRM_SECONDS = 300.0
"""Between two moves of lastConfirmedAt."""
_SHARE = 10.0
"""Judging takes at most a tenth of the time, however large the fleet."""


@dataclass
class Pacing:
    """The clock of one Continuous diagnostic.

    Args:
        interval: seconds of ``spec.interval``.
        confirm_at: when lastConfirmedAt is due to move.
    """

    interval: float
    confirm_at: float
    dirty_since: float | None = None
    """When the first node changed that was not judged yet; None: none did."""
    held_until: float | None = None
    """When a status that changed already may be written; None: none is held back."""
    judged_at: float | None = None
    cost: float = 0.0
    """Seconds that the last judgement took."""
    written_at: float | None = None

    def touch(self, now: float) -> None:
        """A node changed."""
        if self.dirty_since is None:
            self.dirty_since = now

    def due(self) -> float:
        """When to judge next."""
        if self.judged_at is None:
            return 0.0
        moments = [self.confirm_at]
        if self.held_until is not None:
            moments.append(self.held_until)
        if self.dirty_since is not None:
            gap = max(COALESCE_SECONDS, self.cost * _SHARE)
            moments.append(max(self.dirty_since + COALESCE_SECONDS, self.judged_at + gap))
        return min(moments)

    def judged(self, now: float, cost: float) -> None:
        """It was judged just now."""
        self.dirty_since = None
        self.held_until = None
        self.judged_at = now
        self.cost = cost

    def repeat(self, now: float) -> None:
        """What is said changes by itself (a fill goes on): judge again after an interval."""
        again = now + self.interval
        self.held_until = again if self.held_until is None else min(self.held_until, again)

    def allows(self, now: float, *, worse: bool) -> bool:
        """Whether a change may be written now; if not, it is due again when it may."""
        if self.written_at is None:
            return True
        earliest = self.written_at + (min(WORSE_SECONDS, self.interval) if worse else self.interval)
        if now >= earliest:
            return True
        self.held_until = earliest
        return False

    def wrote(self, now: float) -> None:
        """A changed status was handed to the writer."""
        self.written_at = now
        self.confirm_at = now + CONFIRM_SECONDS

    def confirmed(self, now: float) -> None:
        """Only lastConfirmedAt moved, or need not move yet: ask again later."""
        self.confirm_at = now + CONFIRM_SECONDS
