"""One node's endless poll, and the one guarded call that polls and fresh reads share.

Order around a call, outermost first: deadline, global limit, breaker, retry (budgeted), timeout of each attempt.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from gpudiag_api.vocabulary import BreakerState, Health
from gpudiag_operator.collect.details import fetch_details
from gpudiag_operator.collect.limiter import Limiter, RetryBudget, Slot
from gpudiag_operator.collect.outcome import ANSWERED, REPEATABLE, Answer, CollectMetrics, Fetcher, FetchError
from gpudiag_operator.collect.permit import Permit
from gpudiag_operator.collect.record import NodeRecord
from gpudiag_operator.collect.settings import CollectSettings
from gpudiag_operator.domain import NodeDetails
from gpudiag_operator.kube.retry import Backoff

_RETRY_PAUSE = (0.05, 0.15)
"""Seconds, from and to: enough for a Pod's proxy to see that its container was replaced."""


class Caller:
    """Makes calls to agents: limit, budgeted retry, metrics. One for all nodes."""

    def __init__(
        self, fetcher: Fetcher, settings: CollectSettings, metrics: CollectMetrics, rng: random.Random
    ) -> None:
        self.settings = settings
        self.limiter = Limiter(settings.concurrency)
        self.rng = rng
        self._fetcher = fetcher
        self._metrics = metrics
        self._budget = RetryBudget(ratio=settings.retry_ratio)
        self._under_way = 0
        self._moved_at = time.monotonic()

    def progress_age(self) -> float:
        """Seconds since a call last began or ended while one is under way; 0 when none is."""
        return time.monotonic() - self._moved_at if self._under_way else 0.0

    async def poll(self, record: NodeRecord, slot: Slot) -> Answer:
        """Poll an agent, with the slot held; hold it back only when all is well, so that trouble shows at once."""
        calm = record.cause is None and record.breaker.state in (BreakerState.CLOSED, BreakerState.FORCED_CLOSED)
        wait = self.settings.wait_seconds if calm else 0.0
        return await self._measured(slot, lambda again: self._poll(record, slot, 0.0 if again else wait))

    async def fresh(self, record: NodeRecord, slot: Slot, run_id: str) -> Answer:
        """Read an agent afresh, with the slot held, for a ``Once`` run."""
        return await self._measured(slot, lambda _: self._fresh(record, slot, run_id))

    async def details(self, record: NodeRecord, slot: Slot, run_id: str) -> NodeDetails:
        """Ask for what a report does not hold, with the slot held; what does not come is named in the result."""
        pod = record.target.pod
        assert pod is not None, "only unblocked targets are read"

        async def get(path: str) -> bytes:
            await slot.hold()
            return await self._fetcher.get(pod, slot, path, seconds=self.settings.node_timeout, run_id=run_id)

        return await fetch_details(record.target.node, get)

    async def _poll(self, record: NodeRecord, slot: Slot, wait: float) -> Answer:
        pod = record.target.pod
        assert pod is not None, "only unblocked targets are polled"
        return await self._fetcher.fetch(
            pod, slot, seconds=self.settings.node_timeout, wait=wait, etag=record.etag, known=record.report
        )

    async def _fresh(self, record: NodeRecord, slot: Slot, run_id: str) -> Answer:
        pod = record.target.pod
        assert pod is not None, "only unblocked targets are read"
        return await self._fetcher.fetch(pod, slot, seconds=self.settings.fresh_timeout, fresh=True, run_id=run_id)

    async def _measured(self, slot: Slot, attempt: Callable[[bool], Awaitable[Answer]]) -> Answer:
        began = self._moved_at = time.monotonic()
        self._under_way += 1
        try:
            answer = await self._attempts(slot, attempt)
        except FetchError as error:
            self._metrics.call_finished(error.reason, time.monotonic() - began)
            raise
        finally:
            self._under_way -= 1
            self._moved_at = time.monotonic()
        self._metrics.call_finished("NotModified" if answer.report is None else "OK", time.monotonic() - began)
        return answer

    async def _attempts(self, slot: Slot, attempt: Callable[[bool], Awaitable[Answer]]) -> Answer:
        self._budget.earn()
        try:
            return await attempt(False)  # noqa: FBT003  (positional: a callback)
        except FetchError as error:
            if error.ignored or error.reason not in REPEATABLE or not self._budget.spend():
                raise
        slot.drop()
        await asyncio.sleep(self.rng.uniform(*_RETRY_PAUSE))
        await slot.hold()
        return await attempt(True)  # noqa: FBT003


class PollListener(Protocol):
    """What a poll tells the collector."""

    def on_answer(self, record: NodeRecord, answer: Answer) -> None:
        """A good answer came."""
        ...

    def on_failure(self, record: NodeRecord, error: FetchError) -> None:
        """A call, its retries included, gave nothing usable."""
        ...


async def poll_forever(record: NodeRecord, caller: Caller, listener: PollListener) -> None:
    """Poll one node until cancelled. The only task that the node has."""
    settings = caller.settings
    loop = asyncio.get_running_loop()
    backoff = Backoff(initial=settings.backoff_initial, cap=settings.backoff_cap, rng=caller.rng)
    while True:
        delay = record.breaker.delay()
        if delay is None:  # whoever stops forcing it open starts another poll
            return
        if delay > 0:
            await asyncio.sleep(delay)
        began = loop.time()
        if not await _poll_once(record, caller, listener):
            pause = backoff.next()
            if not record.declared:
                pause = min(pause, settings.unreachable_after / 4)
            # While the breaker is open, its own time says when to call again.
            await asyncio.sleep(0 if record.breaker.state is BreakerState.OPEN else pause)
            continue
        backoff.reset()
        if record.breaker.state is not BreakerState.HALF_OPEN:
            await asyncio.sleep(max(0.0, began + settings.minimum_interval - loop.time()))


async def _poll_once(record: NodeRecord, caller: Caller, listener: PollListener) -> bool:
    urgent = record.report is not None and record.report.health is Health.UNHEALTHY
    slot = Slot(caller.limiter, urgent=urgent)
    await slot.hold()
    try:
        permit = record.breaker.acquire()
        if permit is None:
            return False
        try:
            answer = await caller.poll(record, slot)
        except FetchError as error:
            _settle(permit, error)
            listener.on_failure(record, error)
            return False
        except BaseException:  # cancelled: the call says nothing of the agent
            permit.ignore()
            raise
        permit.success()
    finally:
        slot.drop()
    listener.on_answer(record, answer)
    return True


def _settle(permit: Permit, error: FetchError) -> None:
    if error.ignored:
        permit.ignore()
    elif error.reason in ANSWERED:
        permit.success()
    else:
        permit.failure()
