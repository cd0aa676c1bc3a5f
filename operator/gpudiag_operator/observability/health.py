"""Whether the process is well: alive (else restart it) and ready (else it knows too little to be asked).

An API server that is away makes it neither dead nor unready for ever: restarting would lose what it knows.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_LAG_SECONDS = 10.0
"""A loop that did not turn for so long is stuck."""


@dataclass
class Health:
    """Checks by name; each gives None when well, else a sentence.

    Args:
        monotonic: seconds of a clock that never jumps.
    """

    monotonic: Callable[[], float] = time.monotonic
    live: dict[str, Callable[[], str | None]] = field(default_factory=dict)
    ready: dict[str, Callable[[], str | None]] = field(default_factory=dict)
    role: Callable[[], str] = lambda: ""
    """What the process does at present, for people; part of each answer."""
    lag: float = 0.0
    """Seconds by which the event loop came late the last time it was measured."""

    def problems(self, *, ready: bool) -> dict[str, str]:
        """What is wrong, by check; empty when all is well."""
        checks = self.ready if ready else self.live
        found = {name: check() for name, check in checks.items()}
        return {name: problem for name, problem in found.items() if problem is not None}

    async def watch_loop(self, period: float = 0.5) -> None:
        """Measure the event loop's lag for ever."""
        while True:
            due = self.monotonic() + period
            await asyncio.sleep(period)
            self.lag = max(0.0, self.monotonic() - due)

    def loop_problem(self) -> str | None:
        """The live check of the event loop."""
        if self.lag > MAX_LAG_SECONDS:
            return f"the event loop was {self.lag:.1f} s late"
        return None
