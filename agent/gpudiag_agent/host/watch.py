"""Looks at the host beside the event loop: a file that hangs in the kernel holds up neither samples nor the end."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable

from gpudiag_agent.clock import Clock
from gpudiag_agent.host.facts import HostFacts

_log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that a sample waits for the host; a look takes milliseconds."""
_STALE = 60.0
"""Seconds after which what was seen no longer says anything."""


class HostWatch:
    """At most one look at a time, each in a thread that nobody waits for at the end.

    Args:
        scan: looks once; may hang.
        clock: for how old a look is.
        patience: seconds to wait for a look.
    """

    def __init__(self, scan: Callable[[], HostFacts], *, clock: Clock, patience: float = PATIENCE) -> None:
        self._scan = scan
        self._clock = clock
        self._patience = patience
        self._pending: asyncio.Future[HostFacts] | None = None
        self._facts = HostFacts()
        self._taken = float("-inf")

    async def look(self) -> HostFacts:
        """What the host shows now; what it showed last while a look hangs; after a minute of that, nothing."""
        if self._pending is None:
            self._pending = self._start()
        await asyncio.wait({self._pending}, timeout=self._patience)
        if self._pending.done():
            pending, self._pending = self._pending, None
            self._facts, self._taken = pending.result(), self._clock.monotonic()
        return self._facts if self._clock.monotonic() - self._taken < _STALE else HostFacts()

    def _start(self) -> asyncio.Future[HostFacts]:
        loop = asyncio.get_running_loop()
        result: asyncio.Future[HostFacts] = loop.create_future()

        def tell(facts: HostFacts) -> None:
            if not result.done():
                result.set_result(facts)

        def work() -> None:
            try:
                facts = self._scan()
            except Exception:  # noqa: BLE001 - see below
                # The agent's own fault: what was not seen is unknown, and no verdict about a GPU.
                _log.exception("looking at the host failed")
                facts = HostFacts()
            with contextlib.suppress(RuntimeError):  # The loop has ended meanwhile.
                loop.call_soon_threadsafe(tell, facts)

        threading.Thread(target=work, name="host", daemon=True).start()
        return result
