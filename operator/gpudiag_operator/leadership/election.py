"""One Lease seen by one candidate: when to take it, when it is lost, until when its holder may write. Pure.

The rules are client-go's (``tools/leaderelection``) with one difference. There a leader that cannot renew ends; here
it only stops writing, and goes on once it renews the very record it wrote last: an outage of the API server takes the
Lease from nobody. A leader whose Lease was taken is lost for good.

Two promises make it safe, as long as clocks run at about the same rate. Who wants a Lease waits its whole duration
from the moment *it* first saw the record, so never less than since the renewal was stored. Who holds it counts the
shorter ``renew_deadline`` from the moment it *asked* for the renewal, so never more. And every write names the version
it replaces.
"""

from enum import Enum, auto

import msgspec

from gpudiag_operator.leadership.record import LeaseRecord

NEVER = float("-inf")


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds; the defaults are client-go's."""

    lease_duration: float = 15.0
    """Others wait so long before they take a Lease that is not renewed. Lease objects hold whole seconds."""
    renew_deadline: float = 10.0
    """A leader that could not renew for so long stops writing."""
    retry_period: float = 2.0
    """Between renewals."""

    @property
    def look_period(self) -> float:
        """Between two looks at a Lease that another holds: a clean stop is noticed soon."""
        return self.retry_period / 4

    @property
    def patience(self) -> float:
        """Between two Leases that one process takes at the start: replicas started together share them."""
        return 2 * self.retry_period

    @property
    def attempt_seconds(self) -> float:
        """Bound of one request: a connection that hangs leaves time for another before the deadline."""
        return max(self.renew_deadline / 3, self.retry_period)


class Step(Enum):
    """What a candidate has to do next."""

    LOOK = auto()
    """Read the Lease: nothing is known, or it is another's."""
    CREATE = auto()
    TAKE = auto()
    RENEW = auto()
    LOST = auto()
    """It was ours and is not any more."""


class Election:
    """Times are seconds of the candidate's own clock, which never jumps."""

    def __init__(self, identity: str, timing: Timing) -> None:
        self.identity = identity
        self.timing = timing
        self.record: LeaseRecord | None = None
        """As last seen or written; None: there was no such Lease, or nobody looked yet."""
        self.held = False
        """Taken by this process, and not known to be taken away. The right to write is ``writes_until``."""
        self.lost = False
        self.was_others = False
        """Another was seen to hold it: when it is free then, its work waits."""
        self._seen_at = NEVER
        self._looked_at = NEVER
        self._renewed_at = NEVER

    def saw(self, record: LeaseRecord | None, *, at: float) -> None:
        """The API server's answer arrived: this is what is stored; None: there is no such Lease."""
        if self._looked_at == NEVER or not _unchanged(self.record, record):
            self._seen_at = at
        self._looked_at = at
        self.record = record
        self.was_others = self.was_others or self.standby()
        if self.held and record is not None and record.holder != self.identity:
            self.held, self.lost = False, True

    def wrote(self, record: LeaseRecord, *, asked_at: float, at: float) -> None:
        """The API server accepted what this candidate asked for at ``asked_at``: the Lease is taken or renewed."""
        self.record = record
        self._seen_at = self._looked_at = at
        self._renewed_at = asked_at
        self.held = True

    def step(self, now: float) -> Step:
        """What to do next."""
        if self.lost:
            return Step.LOST
        if self._looked_at == NEVER:
            return Step.LOOK
        if self.record is None:
            return Step.CREATE
        if self.record.holder == self.identity:
            # Also without ``held``: the answer to our own write may have been lost.
            return Step.RENEW
        return Step.TAKE if self.free_since(now) is not None else Step.LOOK

    def free_since(self, now: float) -> float | None:
        """Since when anybody may take the Lease; None: it is somebody's, or nobody looked yet."""
        if self._looked_at == NEVER:
            return None
        if self.record is None or not self.record.holder:
            return self._seen_at
        expires_at = self._seen_at + self.record.duration
        return expires_at if now >= expires_at else None

    def writes_until(self) -> float:
        """Until when this process may write what only the holder may."""
        return self._renewed_at + self.timing.renew_deadline if self.held else NEVER

    def standby(self) -> bool:
        """Another was seen to hold the Lease."""
        return self.record is not None and self.record.holder not in ("", self.identity)

    def unrenewed(self) -> float:
        """Seconds for which the Lease looked the same, as of the last look; 0 when nobody looked yet.

        Counts looks that were answered: while the API server is away nobody's Lease grows old.
        """
        return 0.0 if self._looked_at == NEVER else self._looked_at - self._seen_at


def _unchanged(before: LeaseRecord | None, after: LeaseRecord | None) -> bool:
    if before is None or after is None:
        return before is after
    return before.same_as(after)
