"""Runs of Once diagnostics: a bounded number at the same time, each in a task that can be cancelled.

The order among those that wait is the order in which they came; a run that is cancelled gives its place on at once.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from gpudiag_operator.diagnostics.registry import Key
from gpudiag_operator.domain import NodeState
from gpudiag_operator.observability.logs import bound

log = logging.getLogger(__name__)


class FreshReads(Protocol):
    """``fleet.Fleet.read_fresh``."""

    def __call__(
        self, names: Sequence[str], deadline: float, run_id: str, *, full: bool
    ) -> Awaitable[Mapping[str, NodeState]]:
        """Read nodes afresh.

        Args:
            names: in order of urgency.
            deadline: seconds.
            run_id: correlation id.
            full: with flight recorder, topology and processes.

        Returns:
            A state for every name.
        """
        ...


@dataclass
class RunNotes:
    """What a run has to say at its end."""

    answered: int = 0
    """Nodes."""
    verdict: str = ""


RunSpans = Callable[[Key, str, int], AbstractContextManager[RunNotes]]
"""Around one run: takes the diagnostic, the run id and how many nodes are to be read, gives notes to fill in."""


@contextmanager
def unobserved(_key: Key, _run_id: str, _wanted: int) -> Iterator[RunNotes]:
    """Nobody reads the notes."""
    yield RunNotes()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came back with."""

    run_id: str
    started_at: float
    """Unix seconds."""
    states: Sequence[NodeState]
    missing: Sequence[str]
    deadline_exceeded: bool


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be run."""

    key: Key
    names: Sequence[str]
    """Nodes to read, in order of urgency."""
    missing: Sequence[str]
    deadline: float
    """Seconds."""
    full: bool = False
    """Whether ``spec.detail`` is Full."""
    done: Callable[[Outcome | None], str]
    """Called at the end, unless the run was cancelled; with None when a bug ended it. Gives the verdict or nothing."""
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)


class OnceRuns:
    """The runs under way.

    Args:
        read: makes the fresh reads.
        most: runs at the same time.
        wall: Unix seconds.
        monotonic: seconds of a clock that never jumps.
        freed: called when a place becomes free.
        spans: made around runs, to tell of them elsewhere.
    """

    def __init__(
        self,
        read: FreshReads,
        *,
        most: int,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
        freed: Callable[[], None],
        spans: RunSpans = unobserved,
    ) -> None:
        self._read = read
        self._most = most
        self._wall = wall
        self._monotonic = monotonic
        self._freed = freed
        self._span = spans
        self._tasks: dict[Key, asyncio.Task[None]] = {}

    @property
    def full(self) -> bool:
        """No place for another run."""
        return len(self._tasks) >= self._most

    def running(self, key: Key) -> bool:
        """Whether a run of this diagnostic is under way."""
        return key in self._tasks

    def start(self, order: Order) -> None:
        """Run; there must be a place, and no run of this diagnostic."""
        assert not self.full
        assert order.key not in self._tasks
        task = asyncio.create_task(self._run(order), name=f"run {order.key}")
        self._tasks[order.key] = task
        task.add_done_callback(lambda _: self._ended(order, task))

    def cancel(self, key: Key) -> None:
        """Stop a run; nothing of it is used."""
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Stop all runs."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, order: Order) -> None:
        with (
            bound(runID=order.run_id, diagnostic=str(order.key)),
            self._span(order.key, order.run_id, len(order.names)) as notes,
        ):
            started_at, began = self._wall(), self._monotonic()
            log.info("run of %d nodes started", len(order.names))
            found = await self._read_all(order) if order.names else {}
            spent = self._monotonic() - began
            outcome = Outcome(
                run_id=order.run_id,
                started_at=started_at,
                states=list(found.values()),
                missing=order.missing,
                deadline_exceeded=spent >= order.deadline,
            )
            log.info("run ended after %.1f s", spent)
            self._tasks.pop(order.key, None)
            notes.answered = sum(state.failure is None for state in outcome.states)
            notes.verdict = order.done(outcome)

    async def _read_all(self, order: Order) -> Mapping[str, NodeState]:
        return await self._read(order.names, order.deadline, order.run_id, full=order.full)

    def _ended(self, order: Order, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            # A bug must cost one run, not the operator.
            log.error("the run of %s failed", order.key, exc_info=task.exception())
            if self._tasks.get(order.key) is task:
                del self._tasks[order.key]
                order.done(None)
        self._freed()
