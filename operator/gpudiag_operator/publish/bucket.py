"""A token bucket: at most so many writes per second, in the long run, with a small burst.

Debt is allowed: whoever may start spends what it turns out to need (a status, and three Events with it), and the
next one waits until that is paid back. So the rate holds whatever one change costs.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable


class TokenBucket:
    """A rate limit on one clock.

    Args:
        rate: tokens per second, above 0.
        burst: tokens that gather while nothing happens; None: those of half a second, at least 1.
        clock: monotonic seconds.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        rate: float,
        *,
        burst: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if rate <= 0:
            raise ValueError(f"a rate must be above 0, not {rate}")
        self._rate = rate
        self._burst = max(1.0, rate / 2 if burst is None else burst)
        self._clock = clock
        self._sleep = sleep
        self._tokens = self._burst
        self._at = clock()

    def wait(self) -> float:
        """Seconds until one token is there; 0 when it is."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        # A waiter that wakes a rounding error too early would spin.
        return 0.0 if self._tokens >= 1 - 1e-9 else (1 - self._tokens) / self._rate

    def spend(self, number: int = 1) -> None:
        """Take tokens, into debt if need be."""
        self.wait()
        self._tokens -= number

    async def take(self) -> None:
        """Wait for one token and take it."""
        while delay := self.wait():
            await self._sleep(delay)
        self.spend()
