"""The global limit of work on agents' answers, and the budget of repeated calls.

The limit bounds what costs this process something: connections being made, bodies being read and parsed. A request
that is sent and has no response byte yet costs nothing and may take 30 s, so it holds no slot. Unhealthy nodes and
``Once`` runs go first.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

_LUMP_SECONDS = 0.02
"""Turns come so much early, a few at once: timers are not exact to a millisecond."""


class Limiter:
    """A counting semaphore with two queues. Not thread-safe; one event loop."""

    def __init__(self, slots: int) -> None:
        if slots < 1:
            raise ValueError(f"the limit must be at least 1, not {slots}")
        self.waits = 0
        """How often somebody had to wait."""
        self.waited_seconds = 0.0
        """How long they waited, all together."""
        self._free = slots
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._normal: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> int:
        """Slots that nobody holds."""
        return self._free

    @property
    def waiting(self) -> int:
        """Callers in both queues."""
        return len(self._urgent) + len(self._normal)

    def try_acquire(self) -> bool:
        """Take a slot if one is free and nobody waits."""
        if self._free == 0 or self._urgent or self._normal:
            return False
        self._free -= 1
        return True

    async def acquire(self, *, urgent: bool) -> None:
        """Take a slot, waiting for one if need be; ``urgent`` callers go before all others."""
        if self.try_acquire():
            return
        queue = self._urgent if urgent else self._normal
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        queue.append(turn)
        self.waits += 1
        began = loop.time()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # it was given to us in the moment of the cancellation: hand it on
            else:
                with suppress(ValueError):  # release has passed over it already
                    queue.remove(turn)
            raise
        finally:
            self.waited_seconds += loop.time() - began

    def release(self) -> None:
        """Give a slot back, to the first who waits."""
        for queue in (self._urgent, self._normal):
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1


class Slot:
    """One caller's hold on the limiter, let go and taken again as its request proceeds. Safe to drop twice."""

    __slots__ = ("_held", "_limiter", "_urgent")

    def __init__(self, limiter: Limiter, *, urgent: bool) -> None:
        self._limiter = limiter
        self._urgent = urgent
        self._held = False

    def try_hold(self) -> bool:
        """Whether the slot is held, now or already, without waiting."""
        self._held = self._held or self._limiter.try_acquire()
        return self._held

    async def hold(self) -> None:
        """Take the slot unless held already."""
        if not self._held:
            await self._limiter.acquire(urgent=self._urgent)
            self._held = True

    def drop(self) -> None:
        """Let it go if held."""
        if self._held:
            self._held = False
            self._limiter.release()


class Pace:
    """Turns at even distances: what comes in a burst is spread out, and a loop that was late does not catch up.

    Args:
        per_second: turns per second.
        clock: monotonic seconds.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        per_second: float,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._gap = 1 / per_second
        self._next = 0.0
        self._clock = clock
        self._sleep = sleep
        self._one = asyncio.Lock()

    async def turn(self) -> None:
        """Wait for one's turn."""
        async with self._one:  # so that whoever wakes late moves all turns behind it
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._gap
            if turn - now > _LUMP_SECONDS:
                await self._sleep(turn - now)


class RetryBudget:
    """Repeated calls as a share of all calls, so that a fleet in trouble is not asked twice as often.

    Args:
        ratio: repeats earned by each call.
        reserve: how many may be saved up; also what there is at the start.
    """

    def __init__(self, *, ratio: float = 0.1, reserve: float = 20.0) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._balance = reserve

    def earn(self) -> None:
        """A call is made."""
        self._balance = min(self._reserve, self._balance + self._ratio)

    def spend(self) -> bool:
        """Take one repeat; False when there is none left."""
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True
