"""Time in which this process stood still is not the agents': a paused machine, a stopped or starved process.

Meanwhile nothing is read and every limit runs on. Without this, all polls whose time ran out would be timeouts when the
process goes on, though their answers lie in the socket: a thousand connections thrown away, for nobody's fault.
"""

import asyncio
import logging

_TICK_SECONDS = 0.25
_LATE_SECONDS = 1.0
"""A loop is late by less in everyday life: a large report, garbage to collect."""

logger = logging.getLogger(__name__)


class Standstill:
    """Gives calls under way the time back in which the loop stood still. Make it inside a running loop; ``close`` it.

    Timers run in the order of their times, in asyncio as in uvloop, so the tick that was due first finds the others
    still waiting, but for those of the first quarter of a second.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        """For how long it stood still, all together."""
        self._loop = asyncio.get_running_loop()
        self._limits: set[asyncio.Timeout] = set()
        self._due = self._loop.time() + _TICK_SECONDS
        self._timer = self._loop.call_at(self._due, self._tick)

    def watch(self, limit: asyncio.Timeout) -> asyncio.Timeout:
        """Look after a limit until ``release``."""
        self._limits.add(limit)
        return limit

    def release(self, limit: asyncio.Timeout) -> None:
        """The call of a limit is over."""
        self._limits.discard(limit)

    def close(self) -> None:
        """Stop looking at the clock."""
        self._timer.cancel()

    def _tick(self) -> None:
        late = self._loop.time() - self._due
        if late > _LATE_SECONDS:
            self.seconds += late
            running = [limit for limit in self._limits if limit.when() is not None and not limit.expired()]
            for limit in running:
                limit.reschedule((limit.when() or 0.0) + late)
            logger.warning("stood still for %.1f s; %d calls to agents get that time back", late, len(running))
        self._due = self._loop.time() + _TICK_SECONDS
        self._timer = self._loop.call_at(self._due, self._tick)
