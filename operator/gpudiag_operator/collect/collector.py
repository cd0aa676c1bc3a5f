"""The collector: one poll per readable node, one record per node, readings for whoever assesses them.

It is a TargetListener of discovery, and takes what GPUNodes say about breakers (override, reset, an earlier process's
state). It tells its listener only news: a report, a reason that counts, a change of the breaker's state.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial

from gpudiag_api.vocabulary import BreakerState, NotRead
from gpudiag_operator.collect.breaker import Breaker, Override
from gpudiag_operator.collect.fresh import Fresh, OnProgress, fetch_fresh
from gpudiag_operator.collect.limiter import Limiter
from gpudiag_operator.collect.outcome import Answer, CollectMetrics, Fetcher, FetchError, NoMetrics
from gpudiag_operator.collect.poller import Caller, poll_forever
from gpudiag_operator.collect.record import NodeRecord
from gpudiag_operator.collect.settings import CollectSettings
from gpudiag_operator.collect.shared import Shared
from gpudiag_operator.domain import BreakerSnapshot, Failure, Reading, Target

log = logging.getLogger(__name__)

Stranger = tuple[Target, BreakerSnapshot, Failure | None]
"""A node that another process polls: where its agent is, and what its GPUNode says of breaker and failure."""


class Collector:
    """Collects from all targets. Make it inside a running loop; ``close`` it.

    Args:
        fetcher: makes the calls.
        settings: see there.
        listener: called with each reading that is news, in the loop, and must be quick. The last reading of a node that
            is gone has the failure NodeGone.
        metrics: counters of the application.
        rng: jitter.
        wall: Unix seconds.
        strangers: finds a node that is no target here, for fresh reads; None: it is no target anywhere.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        settings: CollectSettings,
        *,
        listener: Callable[[Reading], None],
        metrics: CollectMetrics | None = None,
        rng: random.Random | None = None,
        wall: Callable[[], float] = time.time,
        strangers: Callable[[str], Stranger | None] = lambda _: None,
    ) -> None:
        self._strangers = strangers
        self._settings = settings
        self._listener = listener
        self._metrics = metrics or NoMetrics()
        self._rng = rng or random.Random()  # noqa: S311  (jitter)
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._caller = Caller(fetcher, settings, self._metrics, self._rng)
        self._fresh: Shared[Fresh] = Shared()
        self._records: dict[str, NodeRecord] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._overrides: dict[str, Override] = {}
        self._resets: dict[str, str] = {}
        self._restored: dict[str, tuple[BreakerSnapshot, Failure | None]] = {}

    # Targets (TargetListener of discovery)

    def set_target(self, target: Target) -> None:
        """A node is to be read this way, or cannot be read for this reason."""
        record = self._records.get(target.node)
        before = None if record is None else record.target
        if record is None:
            record = self._new_record(target)
        record.target = target
        if target.blocked is not None:
            self._stop(target.node)
            self._fail(record, target.blocked, target.message)
        elif target.node not in self._tasks or before is None or _address(before) != _address(target):
            if before is not None:
                # Another Pod, or the same one Ready again: what was before is no reason to wait with a probe.
                record.breaker.expire()
            self._restart(record)
        self._tell(record)

    def remove_target(self, node: str) -> None:
        """The node is gone, or there is nothing to read on it."""
        record = self._records.pop(node, None)
        if record is None:
            return
        self._stop(node)
        self._cancel_timer(node)
        self._metrics.node_removed(node)
        failure = Failure(reason=NotRead.NODE_GONE, message="the node is gone", since=self._wall())
        self._listener(Reading(target=record.target, report=record.report, failure=failure))

    # Breakers (from GPUNodes)

    def set_override(self, node: str, override: str) -> None:
        """``spec.circuitBreaker``: ``Auto``, ``ForceOpen`` or ``ForceClosed``. May come before the node is a target.

        Raises:
            ValueError: another word.
        """
        wanted = Override(override)
        if wanted is self._overrides.get(node, Override.AUTO):
            return
        if wanted is Override.AUTO:
            del self._overrides[node]
        else:
            self._overrides[node] = wanted
        record = self._records.get(node)
        if record is not None:
            record.breaker.set_override(wanted)
            self._restart(record)
            self._tell(record)

    def reset(self, node: str, token: str) -> None:
        """``spec.resetCircuitBreaker``: clear the counters and call again now, once per token.

        May come before the node is a target; an earlier process's ``restore`` is applied first.
        """
        record = self._records.get(node)
        if record is None:
            self._resets[node] = token
        elif record.breaker.reset(token):
            self._restart(record)
            self._tell(record)

    def restore(self, node: str, snapshot: BreakerSnapshot, failure: Failure | None = None) -> None:
        """Take over what an earlier process published; ignored for a node that was called already.

        Call it before the node becomes a target, or soon after.

        Args:
            node: its name.
            snapshot: GPUNode.status.breaker.
            failure: why the node was not read, so that the true cause outlives this process; None: CircuitOpen.
        """
        record = self._records.get(node)
        if record is None:
            self._restored[node] = (snapshot, failure)
        elif record.untried:
            record.restore(snapshot, failure)
            self._restart(record)
            self._tell(record)

    # What is known

    def reading(self, node: str) -> Reading | None:
        """The present reading of a node, None when it is no target."""
        record = self._records.get(node)
        return None if record is None else record.reading()

    def readings(self) -> Iterable[Reading]:
        """The present readings of all targets."""
        return (record.reading() for record in self._records.values())

    def progress_age(self) -> float:
        """Seconds since a call to an agent last began or ended while one is under way; 0 when none is.

        No call takes longer than ``wait_seconds + node_timeout`` plus waiting for the limit, so a value far beyond
        that means that collection is stuck and the Lease must not be renewed.
        """
        return self._caller.progress_age()

    async def fetch_fresh(
        self,
        nodes: Collection[str],
        *,
        deadline: float,
        run_id: str,
        full: bool = False,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Reading]:
        """Read nodes afresh for a ``Once`` run; see :func:`.fresh.fetch_fresh`. Changes nothing here."""
        return await fetch_fresh(
            {node: self._records.get(node) or self._stranger(node) for node in nodes},
            self._caller,
            self._fresh,
            deadline=deadline,
            run_id=run_id,
            full=full,
            wall=self._wall,
            on_progress=on_progress,
        )

    @property
    def limiter(self) -> Limiter:
        """The global limit, for metrics."""
        return self._caller.limiter

    async def close(self) -> None:
        """Stop all polls."""
        tasks = list(self._tasks.values())
        for node in list(self._tasks):
            self._stop(node)
        for node in list(self._timers):
            self._cancel_timer(node)
        await asyncio.gather(*tasks, return_exceptions=True)

    # PollListener

    def on_answer(self, record: NodeRecord, answer: Answer) -> None:
        """A poll gave a good answer."""
        record.answered(answer, wall=self._wall())
        self._cancel_timer(record.target.node)
        self._tell(record)

    def on_failure(self, record: NodeRecord, error: FetchError) -> None:
        """A poll failed."""
        log.debug("%s: %s: %s", record.target.node, error.reason, error.message)
        self._fail(record, error.reason, error.message)
        self._tell(record)

    # Within

    def _stranger(self, node: str) -> NodeRecord | None:
        """A record for one fresh read of a node that another process polls: its breaker is looked at, not kept."""
        found = self._strangers(node)
        if found is None:
            return None
        target, snapshot, failure = found
        breaker = Breaker(node, self._settings.breaker, monotonic=self._loop.time, wall=self._wall, rng=self._rng)
        record = NodeRecord(target, breaker)
        record.restore(snapshot, failure)
        breaker.set_override(self._overrides.get(node, Override.AUTO))
        return record

    def _new_record(self, target: Target) -> NodeRecord:
        breaker = Breaker(
            target.node,
            self._settings.breaker,
            monotonic=self._loop.time,
            wall=self._wall,
            rng=self._rng,
            hook=self._breaker_changed,
        )
        record = self._records[target.node] = NodeRecord(target, breaker)
        self._metrics.breaker_changed(target.node, breaker.state.metric)
        restored = self._restored.pop(target.node, None)
        if restored is not None:
            record.restore(*restored)
        token = self._resets.pop(target.node, None)
        if token is not None:
            breaker.reset(token)
        breaker.set_override(self._overrides.get(target.node, Override.AUTO))
        return record

    def _breaker_changed(self, key: str, old: BreakerState, new: BreakerState) -> None:
        log.info("circuit breaker of %s: %s, was %s", key, new, old)
        self._metrics.breaker_changed(key, new.metric)

    def _fail(self, record: NodeRecord, reason: NotRead, message: str) -> None:
        """Take a failure, and see to it that it is declared when its time has come."""
        now, node = self._loop.time(), record.target.node
        record.failed(reason, message, wall=self._wall(), tick=now)
        if not record.declared and node not in self._timers:
            due = record.since_tick + self._settings.unreachable_after
            self._timers[node] = self._loop.call_at(due, self._declare, record)
        elif record.declared:
            self._cancel_timer(node)

    def _declare(self, record: NodeRecord) -> None:
        self._timers.pop(record.target.node, None)
        record.declared = True
        self._tell(record)

    def _restart(self, record: NodeRecord) -> None:
        """Poll anew, at once where the breaker allows it."""
        node = record.target.node
        self._stop(node)
        if record.target.blocked is not None:
            return
        if record.breaker.state is BreakerState.FORCED_OPEN:
            self._fail(record, NotRead.FORCED_OPEN, "not called: spec.circuitBreaker of its GPUNode is ForceOpen")
            return
        task = self._loop.create_task(poll_forever(record, self._caller, self), name=f"poll {node}")
        task.add_done_callback(partial(self._ended, record))
        self._tasks[node] = task

    def _ended(self, record: NodeRecord, task: asyncio.Task[None]) -> None:
        """A poll ends only when cancelled; else it is a bug, which must cost one node, not the fleet."""
        if task.cancelled() or task.exception() is None or self._tasks.get(record.target.node) is not task:
            return
        log.error("the poll of %s ended; it is started again", record.target.node, exc_info=task.exception())
        del self._tasks[record.target.node]
        self._loop.call_later(self._settings.backoff_cap, self._revive, record)

    def _revive(self, record: NodeRecord) -> None:
        node = record.target.node
        if self._records.get(node) is record and node not in self._tasks:
            self._restart(record)

    def _stop(self, node: str) -> None:
        task = self._tasks.pop(node, None)
        if task is not None:
            task.cancel()

    def _cancel_timer(self, node: str) -> None:
        timer = self._timers.pop(node, None)
        if timer is not None:
            timer.cancel()

    def _tell(self, record: NodeRecord) -> None:
        if record.news():
            self._listener(record.reading())


def _address(target: Target) -> tuple[object, ...]:
    pod = target.pod
    return () if pod is None else (pod.uid, pod.ip, pod.port)
