"""Time as the agent sees it: injected, so that tests turn the clock instead of sleeping."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Two readings and a wait."""

    def now(self) -> float:
        """Unix time in seconds. May jump when the node's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds that only ever grow; the origin means nothing."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that long on the monotonic clock."""
        ...


class SystemClock:
    """The node's own clock."""

    def now(self) -> float:
        """See :class:`Clock`."""
        return time.time()

    def monotonic(self) -> float:
        """See :class:`Clock`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See :class:`Clock`."""
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that is turned by hand: what tests inject.

    Args:
        start: Unix time it begins at.
    """

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._now = start
        self._sleepers: set[tuple[float, asyncio.Future[None]]] = set()

    def now(self) -> float:
        """See :class:`Clock`."""
        return self._now

    def monotonic(self) -> float:
        """See :class:`Clock`."""
        return self._now

    @property
    def sleeping(self) -> bool:
        """Whether somebody waits for this clock."""
        return bool(self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """See :class:`Clock`: until :meth:`advance` has turned it that far."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sleeper = (self._now + seconds, waiter)
        self._sleepers.add(sleeper)
        try:
            await waiter
        finally:
            self._sleepers.discard(sleeper)

    def advance(self, seconds: float) -> None:
        """Turn it on; whoever slept that long wakes."""
        self._now += seconds
        for until, waiter in list(self._sleepers):
            if until <= self._now and not waiter.done():
                waiter.set_result(None)
