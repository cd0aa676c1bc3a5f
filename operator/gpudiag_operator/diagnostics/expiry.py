"""Deletes GPUDiagnostics whose ``ttlAfterFinished`` has passed: that very object, in the very state that was judged."""

import asyncio
import logging
from typing import NoReturn

from gpudiag_operator.diagnostics.paths import path_of
from gpudiag_operator.diagnostics.registry import Diagnostic, DiagnosticRegistry, Key
from gpudiag_operator.kube.api import KubeAPI
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable

log = logging.getLogger(__name__)


class Expiry:
    """Deletes what it is given, one after the other; ``run`` it beside.

    A deletion that fails is dropped: the scheduler asks again for what is still there.
    """

    def __init__(self, api: KubeAPI, registry: DiagnosticRegistry) -> None:
        self._api = api
        self._registry = registry
        self._queue: dict[Key, Diagnostic] = {}
        self._filled = asyncio.Event()

    @property
    def depth(self) -> int:
        """Deletions that wait."""
        return len(self._queue)

    def delete(self, diagnostic: Diagnostic) -> None:
        """Have it deleted."""
        self._queue[diagnostic.key] = diagnostic
        self._filled.set()

    async def run(self) -> NoReturn:
        """Delete for ever."""
        while True:
            await self._filled.wait()
            while self._queue:
                await self._one(self._queue.pop(next(iter(self._queue))))
            self._filled.clear()

    async def _one(self, diagnostic: Diagnostic) -> None:
        try:
            await self._api.delete(
                path_of(diagnostic.key), uid=diagnostic.uid, resource_version=diagnostic.resource_version
            )
        except ApiUnavailable as error:
            log.warning("%s: not deleted yet: %s", diagnostic.key, error)
        except ApiError as error:
            if error.not_found:
                self._registry.delete(diagnostic.key, diagnostic.uid)
            elif not error.conflict:
                log.warning("%s: not deleted yet: %s", diagnostic.key, error)
        else:
            log.info("%s: deleted, its ttlAfterFinished has passed", diagnostic.key)
