"""Writes GPUNodes: what changed in meaning, worst first, coalesced per object, at a bounded rate, with Events.

Collection only ever calls ``submit``, which keeps the newest state of a node and returns. One entry per node is the
bound of the queue. A write that fails is made again later, from whatever the newest state is then.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import msgspec

from gpudiag_operator.domain import NodeState
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable
from gpudiag_operator.kube.retry import LONGEST_RETRY_AFTER, Backoff
from gpudiag_operator.publish import stored as gpunodes
from gpudiag_operator.publish.backlog import Backlog
from gpudiag_operator.publish.bucket import TokenBucket
from gpudiag_operator.publish.events import Writer
from gpudiag_operator.publish.gpunode_writer import GPUNodeWriter
from gpudiag_operator.publish.meaning import Change, Meaning, badness, change, meaning
from gpudiag_operator.publish.stored import Stored

log = logging.getLogger(__name__)

Clock = Callable[[], float]

FILL_SECONDS = 2.0
"""What takes longer to be written for the first time is worth a word to people."""
_FIRST_WRITES = 2
"""A new GPUNode is created, then given its status."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How fast GPUNodes are written."""

    rate: float = 20.0
    """Writes per second, Events included."""
    first_fill_rate: float = 100.0
    """The same for nodes that have no GPUNode yet, and in all while there are such."""
    interval: float = 10.0
    """Seconds between two writes of an object, unless health worsens."""
    light_interval: float = 30.0
    """Seconds since its last write before a light change is written."""
    workers: int = 4
    """Writes in flight at the same moment."""


class Publisher:
    """Keeps GPUNodes up to date. Run :meth:`run` beside.

    Args:
        api: where to.
        pace: how fast.
        mirror_labels: keys of Node labels that GPUNodes carry, too.
        on_write: told the kind of each accepted write: ``create``, ``metadata``, ``status``, ``event`` (metrics).
        clock: monotonic seconds.
        wall: Unix seconds, for times in statuses.
        backoff: delays after the API server refused or was away.
    """

    def __init__(
        self,
        api: Writer,
        *,
        pace: Pace | None = None,
        mirror_labels: Collection[str] = (),
        on_write: Callable[[str], None] = lambda _: None,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
        backoff: Backoff | None = None,
    ) -> None:
        self._pace = pace or Pace()
        self._mirror = frozenset(mirror_labels)
        self._clock = clock
        self._steady = TokenBucket(self._pace.rate, clock=clock)
        self._filling = TokenBucket(self._pace.first_fill_rate, clock=clock)
        self._writer = GPUNodeWriter(api, mirror=self._mirror, on_write=on_write, wall=wall)
        self._backoff = backoff or Backoff()
        self._paused_until = float("-inf")
        self._backlog = Backlog()
        self._pending: dict[str, NodeState] = {}
        self._stored: dict[str, Stored] = {}
        self._retries: dict[str, tuple[int, float]] = {}
        """Failures in a row, and not before when."""
        self._busy: set[str] = set()
        self._deleted: set[str] = set()
        """Deleted while being written: what was written may be gone."""
        self._wake = asyncio.Event()
        self.critical_xids: frozenset[int] = frozenset()
        """Codes that any GPUDiagnostic calls critical: for those even an application's XID is written at once."""

    def __len__(self) -> int:
        """GPUNodes that wait to be written or are being written."""
        return len(self._backlog) + len(self._busy)

    def unfilled(self) -> Collection[str]:
        """Nodes without a GPUNode so far, while it takes more than ``FILL_SECONDS`` to write them all; else none."""
        names = (self._pending.keys() | self._busy) - self._stored.keys()
        return names if len(names) * _FIRST_WRITES > FILL_SECONDS * self._pace.first_fill_rate else ()

    # What is there

    def restore(self, name: str, gpunode: Mapping[str, Any]) -> NodeState | None:
        """A GPUNode exists: call it for each at the start, and for each event of a watch.

        While this process has not written it, whatever is stored counts: another may be the writer. After that, later
        calls take over metadata (uid, generation, owner, labels), and a newer status of another meaning: of another
        writer, or of a write of ours whose answer was lost. Submit the node's state after each call, so that
        ``observedGeneration`` follows and what is not true is mended.

        Returns:
            The state its status was made from, for ``assess(last=…)``; None: it has no status that can be read.
        """
        try:
            new, state = gpunodes.read(gpunode, mirror=self._mirror, critical_xids=self.critical_xids)
        except KeyError as error:
            log.warning("a GPUNode without %s was ignored", error)
            return None
        known = self._stored.get(name)
        if known is None or known.uid != new.uid:
            self._stored[name] = new
        elif _older(new.resource_version, known.resource_version):
            pass
        elif not known.ours:
            self._stored[name] = new
        else:
            if _older(known.resource_version, new.resource_version) and new.meaning != known.meaning:
                known.meaning, known.transitions = new.meaning, new.transitions
                known.observed_generation = new.observed_generation
            known.resource_version, known.generation = new.resource_version, new.generation
            known.owner_uid, known.labels = new.owner_uid, new.labels
        return state

    def deleted(self, name: str) -> None:
        """The GPUNode is gone. If its node is still there, submit its state again: then it is made anew."""
        self._stored.pop(name, None)
        if name in self._busy:
            self._deleted.add(name)

    # What should be there

    def submit(self, state: NodeState) -> None:
        """A node's newest state. Never blocks; costs microseconds when nothing changed in meaning."""
        name = state.name
        if name in self._busy:
            self._pending[name] = state
            return
        new = meaning(state, critical_xids=self.critical_xids)
        known = self._stored.get(name)
        worth = self._worth(known, new, state)
        if worth is Change.NONE:
            self._pending.pop(name, None)
            self._backlog.discard(name)
            return
        self._pending[name] = state
        rank = (worth is Change.LIGHT, -badness(new), -worth)
        self._backlog.put(name, rank=rank, due=self._due(name, known, worth))
        self._wake.set()

    def remove(self, name: str) -> None:
        """The node is gone, or no target any more: what waits for it is dropped."""
        self._pending.pop(name, None)
        self._retries.pop(name, None)
        self._backlog.discard(name)
        self._writer.forget(name)

    def _worth(self, known: Stored | None, new: Meaning, state: NodeState) -> Change:
        worth = change(known.meaning if known is not None else None, new)
        if worth >= Change.FULL or known is None:
            return worth
        stale = known.generation != known.observed_generation or self._writer.lacks_metadata(known, state)
        return Change.FULL if stale else worth

    def _due(self, name: str, known: Stored | None, worth: Change) -> float:
        now = self._clock()
        written = known.written_at if known is not None else float("-inf")
        gaps = {Change.WORSE: 0.0, Change.FULL: self._pace.interval, Change.LIGHT: self._pace.light_interval}
        return max(now, written + gaps[worth], self._retries.get(name, (0, now))[1])

    # Writing

    async def run(self) -> NoReturn:
        """Write for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._pace.workers):
                group.create_task(self._work())
        raise AssertionError("unreachable: workers never end")

    async def _work(self) -> NoReturn:
        while True:
            self._wake.clear()
            delay = await self.step()
            if delay == 0:
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), delay)

    async def step(self) -> float | None:
        """Write the most urgent object, if one is due and the rate allows.

        Returns:
            Seconds until the next call makes sense: 0 after a write; None: not before something is submitted.
        """
        now = self._clock()
        if now < self._paused_until:
            return self._paused_until - now
        name = self._backlog.peek(now)
        if name is None:
            due = self._backlog.next_due()
            return None if due is None else max(due - now, 0.001)
        first = name not in self._stored
        delay = self._filling.wait() if first else max(self._steady.wait(), self._filling.wait())
        if delay:
            return delay
        self._backlog.discard(name)
        await self._write(name, self._pending.pop(name), first=first)
        return 0.0

    async def _write(self, name: str, state: NodeState, *, first: bool) -> None:
        def spend() -> None:
            self._filling.spend()
            if not first:
                self._steady.spend()

        self._busy.add(name)
        try:
            new = meaning(state, critical_xids=self.critical_xids)
            if not await self._still_worth(name, state, new):
                return
            self._stored[name] = written = await self._writer.write(
                state, new, self._stored.get(name), spend=spend, critical_xids=self.critical_xids
            )
            written.written_at = self._clock()
            self._retries.pop(name, None)
            self._backoff.reset()
            # What came up while it was written (a new spec, a namesake) is seen by looking once more.
            self._pending.setdefault(name, state)
        except (ApiError, ApiUnavailable) as error:
            self._pending.setdefault(name, state)
            self._failed(name, error)
        finally:
            self._busy.discard(name)
            if name in self._deleted:
                self._deleted.discard(name)
                self._stored.pop(name, None)
            if name in self._pending:
                self.submit(self._pending[name])

    async def _still_worth(self, name: str, state: NodeState, new: Meaning) -> bool:
        """Whether the write makes sense, by what is stored now.

        Before its first write of an object a process looks: its watch may be behind what the writer before it did, and
        an Event that was told already must not be told again under another name.
        """
        known = self._stored.get(name)
        if known is None or known.ours:
            return True
        self._stored[name] = known = await self._writer.look(name, critical_xids=self.critical_xids)
        return self._worth(known, new, state) is not Change.NONE

    def _failed(self, name: str, error: ApiError | ApiUnavailable) -> None:
        """Choose when to try again: the server's own trouble stops all writes, an object's only its own."""
        now = self._clock()
        if isinstance(error, ApiUnavailable) or error.retryable or error.status in (401, 403):
            asked = error.retry_after if isinstance(error, ApiError) else None
            if now < self._paused_until:
                # Writes in flight fail together: one fault of the server is one step of the back-off, not four.
                delay = max(self._paused_until - now, min(asked or 0.0, LONGEST_RETRY_AFTER))
            else:
                delay = self._backoff.next(asked)
            self._paused_until = max(self._paused_until, now + delay)
            log.warning("GPUNode %s was not written, all writes pause %.1f s: %s", name, delay, error)
            return
        # Gone, made anew, or changed meanwhile: the next attempt looks first.
        self._stored.pop(name, None)
        failures = self._retries.get(name, (0, now))[0] + 1
        delay = 0.0 if error.not_found and failures == 1 else min(0.5 * 2**failures, 60.0)
        self._retries[name] = (failures, now + delay)
        log.log(
            logging.INFO if failures == 1 else logging.WARNING,
            "GPUNode %s was not written, again in %.1f s: %s",
            name,
            delay,
            error,
        )


def _older(left: str, right: str) -> bool:
    """Whether a resource version is known to be older."""
    return left.isdecimal() and right.isdecimal() and int(left) < int(right)
