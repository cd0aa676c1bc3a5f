"""The caches of all contexts in use: opened lazily, at most 16, the least recently used goes first, idle ones too.

No other policy of eviction exists on purpose: a person works with few clusters, and the cost of a miss is one list.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Protocol

from gpudiag_mcp.cache.fleet import FleetCopy
from gpudiag_mcp.kube.errors import ApiUnavailable

log = logging.getLogger(__name__)

MOST = 16
IDLE_SECONDS = 300.0
SWEEP_SECONDS = 60.0
BOUND_SECONDS = 150.0
"""An older copy is a miss. A quiet but healthy one is confirmed every 60 s, so two confirmations were missed."""
OPEN_SECONDS = 8.0


class CacheMetrics(Protocol):
    """Counted by the application."""

    def cache_used(self, *, hit: bool) -> None:
        """A call used a cache; a miss had to open it, or found it older than its bound."""
        ...


class Caches:
    """One watch-fed cache per context.

    Args:
        open_fleet: makes the copies of a context, not started; raises AccessError.
        metrics: told of hits and misses.
        monotonic: seconds of a clock that does not jump.
        most: caches kept at once.
        idle_seconds: without use before a cache is closed.
        bound_seconds: age from which a copy is read anew.
        open_seconds: how long a call waits for a cache to fill.
    """

    def __init__(
        self,
        open_fleet: Callable[[str], Awaitable[FleetCopy]],
        *,
        metrics: CacheMetrics | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        most: int = MOST,
        idle_seconds: float = IDLE_SECONDS,
        bound_seconds: float = BOUND_SECONDS,
        open_seconds: float = OPEN_SECONDS,
    ) -> None:
        self._open_fleet = open_fleet
        self._metrics = metrics
        self._monotonic = monotonic
        self._most = most
        self._idle = idle_seconds
        self._bound = bound_seconds
        self._open_seconds = open_seconds
        self._kept: OrderedDict[str, FleetCopy] = OrderedDict()
        self._opening: dict[str, asyncio.Lock] = {}

    async def use(self, context: str) -> FleetCopy:
        """The copies of a context, opened if need be.

        Raises:
            AccessError: the context or its credentials are not usable.
            ApiUnavailable: the cluster did not answer in time.
        """
        fleet = self._kept.get(context)
        if fleet is not None and self._good(fleet):
            self._count(hit=True)
            return self._touch(context, fleet)
        self._count(hit=False)
        async with self._opening.setdefault(context, asyncio.Lock()):
            fleet = self._kept.get(context)
            if fleet is not None and self._good(fleet):
                return self._touch(context, fleet)
            if fleet is not None and not fleet.locked_out and not self._old(fleet):
                fleet.restart_refused()
                await self._wait(fleet)
                return self._touch(context, fleet)
            return self._touch(context, await self._replace(context, fleet))

    def opened(self) -> tuple[FleetCopy, ...]:
        """The caches that are open now; looking does not count as use."""
        return tuple(self._kept.values())

    async def invalidate(self, context: str) -> None:
        """Forget what is known of a context."""
        fleet = self._kept.pop(context, None)
        if fleet is not None:
            await fleet.close()

    async def clear(self) -> None:
        """Forget everything."""
        for context in tuple(self._kept):
            await self.invalidate(context)

    async def sweep(self) -> None:
        """Close what was idle for too long, and what is locked out."""
        now = self._monotonic()
        for context, fleet in tuple(self._kept.items()):
            if now - fleet.last_used >= self._idle or fleet.locked_out:
                log.info("closing the cache of context %s", context)
                await self.invalidate(context)

    async def run(self) -> None:
        """Sweep each minute, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self.sweep()

    def _good(self, fleet: FleetCopy) -> bool:
        refused = fleet.nodes.refused is not None or fleet.diagnostics.refused is not None
        return not refused and not self._old(fleet) and self._complete(fleet)

    @staticmethod
    def _complete(fleet: FleetCopy) -> bool:
        return fleet.nodes.age_seconds is not None and fleet.diagnostics.age_seconds is not None

    def _old(self, fleet: FleetCopy) -> bool:
        age = fleet.age_seconds
        return age is not None and age > self._bound

    def _touch(self, context: str, fleet: FleetCopy) -> FleetCopy:
        fleet.last_used = self._monotonic()
        self._kept.move_to_end(context)
        return fleet

    async def _replace(self, context: str, old: FleetCopy | None) -> FleetCopy:
        """Open anew; while the cluster is away, an old copy is better than none (its age is told)."""
        if old is not None and old.locked_out:
            await self.invalidate(context)
            old = None
        fleet = await self._open_fleet(context)
        fleet.start()
        try:
            await self._wait(fleet)
        except ApiUnavailable:
            await fleet.close()
            if old is None:
                raise
            log.warning("context %s: answering from a copy that is %.0f s old", context, old.age_seconds or 0)
            return old
        except BaseException:
            await fleet.close()
            raise
        await self.invalidate(context)
        self._kept[context] = fleet
        while len(self._kept) > self._most:
            await self.invalidate(next(iter(self._kept)))
        return fleet

    async def _wait(self, fleet: FleetCopy) -> None:
        try:
            async with asyncio.timeout(self._open_seconds):
                await fleet.settled()
        except TimeoutError:
            trouble = fleet.nodes.trouble or fleet.diagnostics.trouble or "no answer"
            raise ApiUnavailable(f"the cluster could not be read within {self._open_seconds:g} s: {trouble}") from None

    def _count(self, *, hit: bool) -> None:
        if self._metrics is not None:
            self._metrics.cache_used(hit=hit)
