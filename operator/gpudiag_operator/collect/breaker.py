"""The circuit breaker of one node, the project's own.

The libraries at hand let every waiting caller through when half-open, know no failure rate, or use the wall clock
(facts/kopf.md, section 9); this one admits exactly one probe. Pure: clocks and randomness come from outside, and
nothing happens by itself; an open breaker turns half-open when the next call is admitted.
"""

import random
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from gpudiag_api.vocabulary import BreakerState
from gpudiag_operator.collect.permit import Permit
from gpudiag_operator.collect.settings import BreakerSettings
from gpudiag_operator.collect.window import Window
from gpudiag_operator.domain import BreakerSnapshot


class Override(StrEnum):
    """``spec.circuitBreaker`` of a GPUNode."""

    AUTO = "Auto"
    FORCE_OPEN = "ForceOpen"
    FORCE_CLOSED = "ForceClosed"


class TransitionHook(Protocol):
    """Told after each change of the visible state."""

    def __call__(self, key: str, old: BreakerState, new: BreakerState) -> None:
        """``key`` is the node's name."""
        ...


class Breaker:
    """States and rules of design, section 6.

    Args:
        key: the node's name, for the hook.
        settings: thresholds and times.
        monotonic: seconds of a clock that never jumps; all rules use it.
        wall: Unix seconds, only for what others see and for restoring.
        rng: for jitter.
        hook: told of transitions.
    """

    def __init__(
        self,
        key: str,
        settings: BreakerSettings,
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        rng: random.Random,
        hook: TransitionHook | None = None,
    ) -> None:
        self._key = key
        self._settings = settings
        self._monotonic = monotonic
        self._wall = wall
        self._rng = rng
        self._hook = hook
        self._window = Window(settings.window_seconds)
        self._state = BreakerState.CLOSED
        self._override = Override.AUTO
        self._failures = 0
        self._reopened = 0
        self._probing = False
        self._successes = 0
        self._open_until = 0.0
        self._opened_at: float | None = None
        self._open_for: float | None = None
        self._handled_reset: str | None = None
        self.era = 0
        """Counts states: a permit belongs to the one that gave it."""

    @property
    def state(self) -> BreakerState:
        """The state that people see; an override covers what is beneath."""
        match self._override:
            case Override.FORCE_OPEN:
                return BreakerState.FORCED_OPEN
            case Override.FORCE_CLOSED:
                return BreakerState.FORCED_CLOSED
            case Override.AUTO:
                return self._state

    def snapshot(self) -> BreakerSnapshot:
        """What GPUNode.status shows, and ``restore`` takes back."""
        return BreakerSnapshot(
            state=self.state,
            failures=self._failures,
            opened_at=self._opened_at,
            open_for_seconds=self._open_for,
            last_handled_reset=self._handled_reset,
        )

    def acquire(self) -> Permit | None:
        """Leave for one call, or None: do not call now."""
        if self._override is Override.FORCE_OPEN:
            return None
        if self._override is Override.FORCE_CLOSED or self._state is BreakerState.CLOSED:
            return Permit(self, self.era)
        if self._state is BreakerState.OPEN:
            if self._monotonic() < self._open_until:
                return None
            self._enter(BreakerState.HALF_OPEN)
        if self._probing:
            return None
        self._probing = True
        return Permit(self, self.era)

    def delay(self) -> float | None:
        """Seconds until ``acquire`` may admit a call; None: never by itself (forced open).

        0 while half-open, though ``acquire`` still refuses while the probe is out.
        """
        if self._override is Override.FORCE_OPEN:
            return None
        if self._override is Override.FORCE_CLOSED or self._state is BreakerState.CLOSED:
            return 0.0
        if self._state is BreakerState.OPEN:
            return max(0.0, self._open_until - self._monotonic())
        return 0.0

    @property
    def admits_bystanders(self) -> bool:
        """Whether a call that takes no permit (a fresh read) may be made: only when the circuit is plainly closed."""
        return self.state in (BreakerState.CLOSED, BreakerState.FORCED_CLOSED)

    def on_success(self) -> None:
        """A permit of the present state succeeded. For Permit only."""
        self._failures = 0
        if self._override is not Override.AUTO:
            return
        if self._state is BreakerState.CLOSED:
            self._window.record(self._monotonic(), failed=False)
            return
        self._probing = False
        self._successes += 1
        if self._successes >= self._settings.successes_to_close:
            self._enter(BreakerState.CLOSED)

    def on_failure(self) -> None:
        """A permit of the present state failed. For Permit only."""
        self._failures += 1
        if self._override is not Override.AUTO:
            return
        if self._state is BreakerState.CLOSED:
            self._window.record(self._monotonic(), failed=True)
            if self._tripped():
                self._enter(BreakerState.OPEN)
            return
        self._reopened += 1
        self._enter(BreakerState.OPEN)

    def on_ignored(self) -> None:
        """A permit of the present state came to nothing. For Permit only."""
        self._probing = False

    def set_override(self, override: Override) -> None:
        """Force open or closed, or stop forcing. What was counted before is dropped: nobody knows its worth now."""
        if override is self._override:
            return
        old = self.state
        self._override = override
        self._clear()
        self._tell(old)

    def reset(self, token: str) -> bool:
        """Clear all counters and close, once per token; an override stays.

        Returns:
            Whether the token was new, so that something was done.
        """
        if token == self._handled_reset:
            return False
        self._handled_reset = token
        old = self.state
        self._clear()
        self._tell(old)
        return True

    def expire(self) -> None:
        """Let the next call through as the probe: what failed has been replaced. No effect unless open."""
        if self._state is BreakerState.OPEN:
            self._open_until = self._monotonic()

    def restore(self, snapshot: BreakerSnapshot) -> None:
        """Take over what an earlier process published; the window starts empty.

        An open breaker keeps its remaining time (never more than ``max_open_seconds``, whatever the clocks say); a
        half-open one is probed at once. Overrides come from spec, not from here.
        """
        old = self.state
        self._clear()
        self._handled_reset = snapshot.last_handled_reset
        if snapshot.state in (BreakerState.OPEN, BreakerState.HALF_OPEN):
            self._failures = snapshot.failures
            self._open_for = min(snapshot.open_for_seconds or 0.0, self._settings.max_open_seconds)
            self._opened_at = min(snapshot.opened_at or 0.0, self._wall())
            self._state = BreakerState.OPEN
            remaining = self._opened_at + self._open_for - self._wall()
            done = snapshot.state is BreakerState.HALF_OPEN
            self._open_until = self._monotonic() + (0.0 if done else max(0.0, remaining))
            self._reopened = self._doublings(self._open_for)
        self._tell(old)

    def _tripped(self) -> bool:
        if self._failures >= self._settings.consecutive_failures:
            return True
        calls, failed = self._window.totals(self._monotonic())
        return calls >= self._settings.minimum_calls and failed >= calls * self._settings.failure_ratio

    def _enter(self, state: BreakerState) -> None:
        old = self.state
        self._state = state
        self.era += 1
        self._probing = False
        self._successes = 0
        if state is BreakerState.OPEN:
            self._open_for = self._next_open_seconds()
            self._opened_at = self._wall()
            self._open_until = self._monotonic() + self._open_for
        elif state is BreakerState.CLOSED:
            self._clear()
        self._tell(old)

    def _next_open_seconds(self) -> float:
        base = self._settings.open_seconds * 2.0 ** min(self._reopened, 32)
        return min(base * self._rng.uniform(1.0, 1.0 + self._settings.jitter), self._settings.max_open_seconds)

    def _doublings(self, open_for: float) -> int:
        """How often an open time was doubled to become ``open_for`` (jitter makes it a little more)."""
        count, base = 0, self._settings.open_seconds
        while 0 < base * 2 <= open_for:
            count, base = count + 1, base * 2
        return count

    def _clear(self) -> None:
        self.era += 1
        self._state = BreakerState.CLOSED
        self._failures = 0
        self._reopened = 0
        self._probing = False
        self._successes = 0
        self._opened_at = None
        self._open_for = None
        self._window.clear()

    def _tell(self, old: BreakerState) -> None:
        if self._hook is not None and self.state is not old:
            self._hook(self._key, old, self.state)
