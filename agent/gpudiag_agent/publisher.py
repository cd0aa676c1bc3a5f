"""The current report, ready to be sent, and those who wait for the next one.

Served from memory: the body is encoded once per report and compressed at most once, so an answer costs a lookup.
"""

import asyncio
import functools
import gzip

from gpudiag_api import wire
from gpudiag_api.meaning import etag
from gpudiag_api.wire import Report

MAX_WAITERS = 64
"""Long polls at one time. One operator needs one; the bound keeps a mistake from filling the memory."""


class TooManyWaitersError(Exception):
    """:data:`MAX_WAITERS` requests are waiting already."""


class Snapshot:
    """One report as it is served."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.etag = etag(report)
        self.body = wire.encode(report)

    @functools.cached_property
    def compressed(self) -> bytes:
        """The body, gzipped; worked out when the first client asks for it."""
        return gzip.compress(self.body, 5, mtime=0)


class Publisher:
    """Holds the latest snapshot and wakes waiters when its meaning changes."""

    def __init__(self) -> None:
        self.current: Snapshot | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many requests wait now."""
        return len(self._waiters)

    def publish(self, report: Report) -> None:
        """Make this the current report."""
        before, self.current = self.current, Snapshot(report)
        if before is None or before.etag != self.current.etag:
            self._wake()

    async def wait_for_change(self, seconds: float) -> None:
        """Return when the meaning has changed, the time is over, or the agent stops.

        Raises:
            TooManyWaitersError: try again later.
        """
        if self._closed:
            return
        if len(self._waiters) >= MAX_WAITERS:
            raise TooManyWaitersError
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            return
        finally:
            self._waiters.discard(waiter)

    def close(self) -> None:
        """Let every waiter go: the agent stops."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
