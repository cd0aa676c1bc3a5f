"""Writes one status of a GPUDiagnostic: its Event first, then one PATCH of ``/status``, never spec or metadata.

A status must not land on a namesake that was made since: a ``Once`` run would look complete that never ran. The API
server ignores a uid in a status patch (measured), so the object is read and patched at exactly that version.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_operator.kube.errors import ApiError
from gpudiag_operator.publish.bucket import TokenBucket
from gpudiag_operator.publish.events import EventSpec, ObjectRef, Told, Writer
from gpudiag_operator.publish.occasions import of_diagnostic
from gpudiag_operator.publish.patch import status_patch

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""For an object that is changed by others between reading and writing it."""


class DiagnosticRef(msgspec.Struct, frozen=True, kw_only=True):
    """Which object: another one of that name is left alone."""

    namespace: str
    name: str
    uid: str

    @property
    def path(self) -> str:
        """Path of the object."""
        return f"/apis/gpudiag.dev/v1alpha1/namespaces/{self.namespace}/gpudiagnostics/{self.name}"


class DiagnosticPublisher:
    """Writes statuses at a bounded rate, Events included.

    Args:
        api: where to.
        rate: writes per second.
        clock: monotonic seconds.
        wall: Unix seconds.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        api: Writer,
        *,
        rate: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._wall = wall
        self._bucket = TokenBucket(rate, clock=clock, sleep=sleep)
        self._told = Told()

    async def publish(
        self, ref: DiagnosticRef, *, previous: GPUDiagnosticStatus | None, status: GPUDiagnosticStatus
    ) -> bool:
        """Write a status, once the rate allows. The same call may be made again.

        Args:
            ref: the object.
            previous: the status before, for the Event about a change of verdict.
            status: the new one.

        Returns:
            Whether it was written; False: the object is gone, or another has its name.

        Raises:
            ApiError: refused; a conflict when the object changes too fast.
            ApiUnavailable: no answer.
        """
        event = of_diagnostic(previous, status)
        if event is not None:
            await self._emit(ref, event)
        await self._bucket.take()
        body = status_patch(status)
        for left in range(ATTEMPTS - 1, -1, -1):
            try:
                exists = await self._write(ref, body)
            except ApiError as error:
                if error.conflict and left:
                    continue
                raise
            self._told.settled(ref.name, ref.namespace)
            return exists
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _write(self, ref: DiagnosticRef, body: dict[str, Any]) -> bool:
        """One attempt; whether the object still exists."""
        try:
            metadata = (await self._api.get(ref.path))["metadata"]
            if metadata["uid"] != ref.uid:
                return False
            await self._api.patch_status(ref.path, body, resource_version=metadata["resourceVersion"])
        except ApiError as error:
            if error.not_found:
                return False
            raise
        return True

    async def _emit(self, ref: DiagnosticRef, event: EventSpec) -> None:
        await self._bucket.take()
        about = ObjectRef(kind="GPUDiagnostic", name=ref.name, namespace=ref.namespace, uid=ref.uid)
        await self._told.emit(self._api, about, event, now=self._wall())
