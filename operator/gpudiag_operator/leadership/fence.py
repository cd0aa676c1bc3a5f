"""The fence: a write is refused here unless this process was the leader a moment ago, for certain.

It closes by itself. Nothing has to notice that the leader is cut off, and no other's clock is asked.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from gpudiag_operator.counted import CountedAPI
from gpudiag_operator.kube.api import JSONObject, KubeAPI
from gpudiag_operator.kube.errors import ApiUnavailable


def boottime() -> float:
    """Seconds of a clock that never jumps and counts while the machine sleeps: Leases run out meanwhile, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Fence:
    """Open while every Lease that this process holds was renewed not too long ago. Make it inside a running loop.

    Args:
        clock: see ``boottime``.
    """

    def __init__(self, clock: Callable[[], float] = boottime) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}
        self._closed = False
        self._flying: set[asyncio.Timeout] = set()
        self._landed = asyncio.Event()

    def extend(self, lease: str, until: float) -> None:
        """A Lease is held: this process may write until then (of the clock), for what it is about."""
        self._until[lease] = until
        left = self.left()
        if left > 0:
            when = asyncio.get_running_loop().time() + left
            for timeout in self._flying:
                if not timeout.expired():
                    timeout.reschedule(when)

    def left(self) -> float:
        """Seconds for which writes are allowed; 0: they are not."""
        if self._closed or not self._until:
            return 0.0
        return max(0.0, min(self._until.values()) - self._clock())

    @asynccontextmanager
    async def passing(self, what: str) -> AsyncIterator[None]:
        """Make a write within; it is cancelled when the fence closes meanwhile.

        Raises:
            ApiUnavailable: the fence is closed, or closed before the API server had answered.
        """
        left = self.left()
        if left <= 0:
            raise ApiUnavailable(f"{what}: held back, the Lease could not be renewed in time")
        timeout = asyncio.timeout(left)
        try:
            async with timeout:
                self._flying.add(timeout)
                try:
                    yield
                finally:
                    self._flying.discard(timeout)
                    self._landed.set()
        except TimeoutError as error:
            raise ApiUnavailable(f"{what}: given up, the Lease could not be renewed in time") from error

    async def close(self, seconds: float) -> None:
        """Let no write begin from now on, and see those under way off: after ``seconds`` they are cancelled."""
        self._closed = True
        deadline = asyncio.get_running_loop().time() + seconds
        for timeout in self._flying:
            if not timeout.expired():
                timeout.reschedule(deadline)
        while self._flying:
            self._landed.clear()
            await self._landed.wait()


class FencedAPI(CountedAPI):
    """A ``KubeAPI`` whose writes pass the fence. Reads are everybody's.

    Args:
        api: does the work.
        written: see ``CountedAPI``.
        fence: asked before each write.
    """

    def __init__(self, api: KubeAPI, written: Callable[[str, str], None], fence: Fence) -> None:
        super().__init__(api, written)
        self._fence = fence

    async def create(self, path: str, body: JSONObject) -> dict[str, Any]:
        """See ``KubeAPI.create``."""
        async with self._fence.passing(f"POST {path}"):
            return await super().create(path, body)

    async def patch(self, path: str, body: Mapping[str, Any], *, resource_version: str | None = None) -> dict[str, Any]:
        """See ``KubeAPI.patch``."""
        async with self._fence.passing(f"PATCH {path}"):
            return await super().patch(path, body, resource_version=resource_version)

    async def patch_status(
        self, path: str, body: Mapping[str, Any], *, resource_version: str | None = None
    ) -> dict[str, Any]:
        """See ``KubeAPI.patch_status``."""
        async with self._fence.passing(f"PATCH {path}/status"):
            return await super().patch_status(path, body, resource_version=resource_version)

    async def delete(self, path: str, *, uid: str | None = None, resource_version: str | None = None) -> None:
        """See ``KubeAPI.delete``."""
        async with self._fence.passing(f"DELETE {path}"):
            await super().delete(path, uid=uid, resource_version=resource_version)
