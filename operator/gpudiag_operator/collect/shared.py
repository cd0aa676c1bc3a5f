"""One call for all who want the same at the same time: several ``Once`` runs over one node cost it one sample."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

JOIN_SECONDS = 1.0
"""A call that began earlier is not joined: its sample may be of before. Agents sample once a second at most, too."""

_T = TypeVar("_T")


class _Flight(Generic[_T]):
    __slots__ = ("began", "task", "waiting")

    def __init__(self, task: "asyncio.Task[_T]", began: float) -> None:
        self.task = task
        self.began = began
        self.waiting = 0


class Shared(Generic[_T]):
    """Calls under way, by what they ask for. Whoever leaves early leaves the call to the others."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[_T]] = {}

    async def do(self, key: Hashable, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """The result of the call of this key that began just now, or else of a new one.

        Raises:
            Whatever the call raises, to each of those who wait.
        """
        flight = self._flight(key, call)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                flight.task.cancel()
                if self._flights.get(key) is flight:
                    del self._flights[key]

    def _flight(self, key: Hashable, call: Callable[[], Coroutine[Any, Any, _T]]) -> _Flight[_T]:
        loop = asyncio.get_running_loop()
        found = self._flights.get(key)
        if found is None or found.task.done() or loop.time() - found.began > JOIN_SECONDS:
            found = self._flights[key] = _Flight(loop.create_task(call()), loop.time())
        return found
