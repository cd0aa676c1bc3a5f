"""Hands statuses of GPUDiagnostics to the publisher: the newest of each object, the worst verdict first.

Only the newest status of an object matters, so what waits for its turn is replaced, never queued behind itself. A
server that is away or overloaded is waited for; an object that is gone is dropped.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_api.vocabulary import Health
from gpudiag_operator.diagnostics.registry import Key
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable
from gpudiag_operator.kube.retry import Backoff
from gpudiag_operator.publish.diagnostic import DiagnosticRef

log = logging.getLogger(__name__)

REFUSED_SECONDS = 10.0
"""After a status that the API server will not have."""

WORKERS = 8
"""Writes in flight at the same moment: enough for the rate when the API server takes 400 ms per write."""


class Publish(Protocol):
    """``publish.DiagnosticPublisher``: one rate-limited write."""

    async def publish(
        self, ref: DiagnosticRef, *, previous: GPUDiagnosticStatus | None, status: GPUDiagnosticStatus
    ) -> bool:
        """Write; False: that object is gone. Raises ApiError, ApiUnavailable."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Job:
    ref: DiagnosticRef
    previous: GPUDiagnosticStatus | None
    status: GPUDiagnosticStatus
    since: float

    @property
    def badness(self) -> int:
        return Health(self.status.verdict).badness


class StatusWriter:
    """Writes what is submitted; ``run`` it beside.

    Args:
        publisher: makes one write.
        gone: told when the object is found gone.
        monotonic: for the order of what waits.
        backoff: delays after faults of the API server.
    """

    def __init__(
        self,
        publisher: Publish,
        *,
        gone: Callable[[Key, str], None],
        monotonic: Callable[[], float] = time.monotonic,
        backoff: Backoff | None = None,
    ) -> None:
        self._publisher = publisher
        self._gone = gone
        self._monotonic = monotonic
        self._backoff = backoff or Backoff(cap=15.0)
        self._waiting: dict[Key, _Job] = {}
        self._flying: set[Key] = set()
        self._changed = asyncio.Event()

    @property
    def depth(self) -> int:
        """Statuses not written yet."""
        return len(self._waiting.keys() | self._flying)

    def submit(self, key: Key, uid: str, *, previous: GPUDiagnosticStatus | None, status: GPUDiagnosticStatus) -> None:
        """Have this status written, in place of any older one that still waits.

        Args:
            key: the object.
            uid: its uid; a namesake is left alone.
            previous: the status that was submitted before this one, or else the stored one.
            status: the new one.
        """
        before = self._waiting.get(key)
        same = before is not None and before.ref.uid == uid
        self._waiting[key] = _Job(
            ref=DiagnosticRef(namespace=key.namespace, name=key.name, uid=uid),
            previous=before.previous if before is not None and same else previous,
            status=status,
            since=before.since if before is not None and same else self._monotonic(),
        )
        self._changed.set()

    def forget(self, key: Key) -> None:
        """The object is gone: what waits for it is dropped."""
        self._waiting.pop(key, None)

    async def run(self) -> NoReturn:
        """Write for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())
        raise AssertionError("unreachable: workers never end")

    async def _work(self) -> NoReturn:
        while True:
            key, job = await self._next()
            delay = await self._write(key, job)
            if delay is not None:
                # Rests as one in flight: during an outage there are as many attempts as workers, not as objects.
                await asyncio.sleep(delay)
                newer = self._waiting.get(key)
                if newer is None:
                    self._waiting[key] = job
                elif newer.ref.uid == job.ref.uid:
                    self.submit(key, job.ref.uid, previous=job.previous, status=newer.status)
            self._flying.discard(key)
            self._changed.set()

    async def _next(self) -> tuple[Key, _Job]:
        """The most urgent job whose object is not being written; marks it as being written."""
        while True:
            free = [(key, job) for key, job in self._waiting.items() if key not in self._flying]
            if free:
                key, job = max(free, key=lambda one: (one[1].badness, -one[1].since))
                del self._waiting[key]
                self._flying.add(key)
                return key, job
            self._changed.clear()
            await self._changed.wait()

    async def _write(self, key: Key, job: _Job) -> float | None:
        """One attempt; gives the seconds after which to try again, None when done with it."""
        try:
            exists = await self._publisher.publish(job.ref, previous=job.previous, status=job.status)
        except ApiUnavailable as error:
            log.warning("%s: status not written yet: %s", key, error)
            return self._backoff.next()
        except ApiError as error:
            if error.retryable or error.conflict or error.status in (401, 403):
                log.warning("%s: status not written yet: %s", key, error)
                return self._backoff.next(error.retry_after)
            # An older CRD, or somebody's webhook that may be away: rarely tried again, never for good given up.
            log.error("%s: the API server refuses this status: %s", key, error)  # noqa: TRY400  (said in full)
            return REFUSED_SECONDS
        self._backoff.reset()
        if not exists:
            log.info("%s is gone", key)
            self._gone(key, job.ref.uid)
        return None
