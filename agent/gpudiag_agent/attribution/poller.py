"""Keeps what is known of who uses the GPUs current, beside the sampling and never within it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from gpudiag_agent.attribution.kubelet import UnavailableError
from gpudiag_agent.attribution.model import Owner, PodDevices, Usage
from gpudiag_agent.attribution.procfs import Resolver
from gpudiag_agent.clock import Clock

_log = logging.getLogger(__name__)

SHORTEST, LONGEST = 1.0, 30.0
"""Seconds between two looks: the first on demand, the second at most."""
_PATIENCE = 3
"""Failures in a row after which the last answer no longer counts: a kubelet that restarts changes nothing."""


class Attribution:
    """Who uses the GPUs.

    Args:
        ask: asks the kubelet, or raises :class:`UnavailableError`; None: do not ask.
        resolver: looks processes up; None: do not.
        pids: the processes that are on the GPUs now.
        on_look: told what is known after every look.
        clock: for waits.
        interval: seconds between two looks.
    """

    def __init__(
        self,
        *,
        ask: Callable[[], Awaitable[PodDevices]] | None,
        resolver: Resolver | None,
        pids: Callable[[], Sequence[int]],
        on_look: Callable[[Usage], None],
        clock: Clock,
        interval: float,
    ) -> None:
        self._ask = ask
        self._resolver = resolver
        self._pids = pids
        self._on_look = on_look
        self._clock = clock
        self._interval = min(max(interval, SHORTEST), LONGEST)
        self._wanted = asyncio.Event()
        self._failures = 0
        self._answered_at: float | None = None
        self.usage = Usage()
        """What is known now."""
        self.ready = asyncio.Event()
        """Set once the first look is over, whatever it gave."""

    async def run(self) -> None:
        """Look every interval, and soon after :meth:`refresh`, until cancelled."""
        while True:
            await self._look()
            self.ready.set()
            await self._clock.sleep(SHORTEST)
            if not self._wanted.is_set() and self._interval > SHORTEST:
                await self._pause(self._interval - SHORTEST)
            self._wanted.clear()

    def refresh(self) -> None:
        """Look again within :data:`SHORTEST` seconds: something happened that somebody will want a name for."""
        self._wanted.set()

    def owner_of(self, pid: int, *, at: float | None = None) -> Owner | None:
        """Who a process is, now; see :meth:`Resolver.resolve`. Never raises and never waits."""
        # Asked anew: kernel lines come before the first look is over.
        if self._resolver is None or self._resolver.problem() is not None:
            return None
        return self._resolver.resolve(pid, at=at)

    async def _pause(self, seconds: float) -> None:
        sleep = asyncio.ensure_future(self._clock.sleep(seconds))
        wanted = asyncio.ensure_future(self._wanted.wait())
        try:
            await asyncio.wait({sleep, wanted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            wanted.cancel()

    async def _look(self) -> None:
        pods, problem = await self._pods()
        owners, owners_problem = self._owners()
        self.usage = Usage(
            pods=pods,
            pods_at=None if pods is None else self._answered_at,
            pods_problem=problem,
            owners=owners,
            owners_problem=owners_problem,
        )
        self._on_look(self.usage)

    async def _pods(self) -> tuple[PodDevices | None, str | None]:
        if self._ask is None:
            return None, None
        try:
            found = await self._ask()
        except UnavailableError as error:
            problem = str(error)
        except Exception:  # noqa: BLE001 - see below
            # The agent's own fault, and no reason to end what else it does.
            _log.exception("asking the kubelet failed")
            problem = "The agent failed to ask the kubelet; its log says how."
        else:
            self._failures, self._answered_at = 0, self._clock.now()
            return found, None
        self._failures += 1
        if self.usage.pods is not None and self._failures < _PATIENCE:
            return self.usage.pods, None
        return None, problem

    def _owners(self) -> tuple[dict[int, Owner] | None, str | None]:
        if self._resolver is None:
            return None, None
        problem = self._resolver.problem()
        if problem is not None:
            return None, problem
        # A few reads of files that are in memory per process: quicker than to start a thread for them.
        found = {pid: self._resolver.resolve(pid) for pid in self._pids()}
        return {pid: owner for pid, owner in found.items() if owner is not None}, None
