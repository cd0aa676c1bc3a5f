"""Runs the operator's parts: none may end by itself, and all end together.

A part that ended would leave an operator that looks alive and does half its work; ending the process gives it back
to Kubernetes, which starts it whole.
"""

import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)

STOP_SECONDS = 4.0


class PartDiedError(Exception):
    """A part that runs for ever has ended."""


class Supervisor:
    """Parts by name, in one loop. ``or_stop`` ends with SIGTERM, SIGINT, or the death of a part."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self.stop = asyncio.Event()
        """Set to end; signals set it."""

    def start(self, name: str, part: Coroutine[Any, Any, Any]) -> None:
        """Run a part beside the others."""
        self._tasks[name] = asyncio.create_task(part, name=name)

    def catch_signals(self) -> None:
        """SIGTERM and SIGINT end the operator; a second one at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: signal.Signals) -> None:
        log.info("%s: stopping", signal.Signals(number).name)
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)
        self.stop.set()

    async def or_stop(self, work: Coroutine[Any, Any, None]) -> bool:
        """Await some work, with an eye on the parts that run when it begins.

        Returns:
            False when the operator was told to stop meanwhile; the work is cancelled then.

        Raises:
            PartDiedError: a part ended.
        """
        task = asyncio.create_task(work, name="work")
        try:
            await self._first(task)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if task.cancelled():
            return False
        task.result()
        return not self.stop.is_set()

    async def _first(self, work: "asyncio.Task[None]") -> None:
        stopped = asyncio.create_task(self.stop.wait(), name="stop")
        try:
            waited = {stopped, work, *self._tasks.values()}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        for name, task in self._tasks.items():
            if task.done():
                error = None if task.cancelled() else task.exception()
                raise PartDiedError(f"{name} ended: {error!r}") from error

    async def cancel_all(self) -> None:
        """End all parts, the last started first; those that take too long are left behind."""
        for task in reversed(self._tasks.values()):
            task.cancel()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks.values(), timeout=STOP_SECONDS)
        for task in late:
            log.warning("%s did not end in time", task.get_name())
        for task in self._tasks.values():
            if task.done() and not task.cancelled():
                task.exception()  # said already, or drowned by the end; either way no "never retrieved"
