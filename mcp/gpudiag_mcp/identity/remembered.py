"""Answers kept for a while: bounded in number and in age, and asked for once when many want the same."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Answers by question.

    Args:
        most: answers kept; the one that was not used for longest goes first.
        monotonic: seconds of a clock that does not jump.
    """

    def __init__(self, *, most: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._monotonic = monotonic
        self._kept: OrderedDict[K, tuple[V, float]] = OrderedDict()
        self._asking: dict[K, asyncio.Task[V]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def known(self, key: K) -> V | None:
        """The answer, if it is known and not too old."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept[1] <= self._monotonic():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return kept[0]

    def keep(self, key: K, value: V, seconds: float) -> None:
        """Know it for that long; not at all if ``seconds`` is not positive."""
        if seconds <= 0:
            return
        self._kept[key] = (value, self._monotonic() + seconds)
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    async def ask(self, key: K, question: Callable[[], Awaitable[tuple[V, float]]]) -> V:
        """What is known, else the answer to ``question``, which says for how many seconds it may be kept.

        Whatever ``question`` raises is raised to everyone who waits for it, and not kept.
        """
        known = self.known(key)
        if known is not None:
            return known
        task = self._asking.get(key)
        if task is None:
            # A task of its own: the first one to ask may go away, the others still want the answer.
            task = asyncio.create_task(self._asked(key, question))
            self._asking[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(task)

    async def _asked(self, key: K, question: Callable[[], Awaitable[tuple[V, float]]]) -> V:
        value, seconds = await question()
        self.keep(key, value, seconds)
        return value

    def _done(self, key: K, task: asyncio.Task[V]) -> None:
        self._asking.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen, even when everybody who waited has gone
