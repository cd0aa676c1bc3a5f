"""Connections as the kernel counts them when they are asked for, not when a busy agent comes round to accept them."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_STEP = 0.05
_SECOND = 1.0


class ActiveOpens:
    """Watches this network namespace while it is entered; an asynchronous context manager."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def most_in_a_second(self) -> float:
        """The highest rate over any stretch of a second or, where nobody looked for longer, of that."""
        found, start = 0.0, 0
        for end, (moment, count) in enumerate(self._samples):
            while start + 1 < end and moment - self._samples[start + 1][0] >= _SECOND:
                start += 1
            began, before = self._samples[start]
            if moment - began >= _SECOND:
                found = max(found, (count - before) / (moment - began))
        return found

    async def _watch(self) -> None:
        while True:
            self._samples.append((time.monotonic(), active_opens()))
            await asyncio.sleep(_STEP)


def active_opens() -> int:
    """Connections opened from this network namespace since it was made."""
    lines = [line.split() for line in Path("/proc/self/net/snmp").read_text().splitlines() if line.startswith("Tcp:")]
    return int(lines[1][lines[0].index("ActiveOpens")])
