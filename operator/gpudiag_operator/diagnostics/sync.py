"""Complete lists of GPUDiagnostics: one before anything starts, and one now and then.

kopf tells changes, but after a lost watch it lists anew and says nothing of what is gone (measured on 1.45.2), and it
gives up on a kind that is not served yet. So the first list waits for API server and CRD, and later ones find what
was deleted unseen.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing

import msgspec

from gpudiag_operator.diagnostics.paths import COLLECTION
from gpudiag_operator.diagnostics.registry import DiagnosticRegistry, Key
from gpudiag_operator.kube.api import KubeAPI
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable

log = logging.getLogger(__name__)

WAIT_SECONDS = 3.0
RESYNC_SECONDS = 600.0


async def first_list(api: KubeAPI, registry: DiagnosticRegistry, *, sleep_seconds: float = WAIT_SECONDS) -> None:
    """List until it works: an API server that is away, or kinds not installed yet, are waited for, with a log line."""
    while True:
        try:
            await list_into(api, registry)
        except ApiUnavailable as error:
            log.warning("waiting for the API server: %s", error)
        except ApiError as error:
            if error.not_found:
                log.warning("waiting for the kind GPUDiagnostic: apply the CustomResourceDefinitions of gpudiag.dev")
            else:
                log.warning("waiting for leave to list GPUDiagnostics: %s", error)
        else:
            return
        await asyncio.sleep(sleep_seconds)


async def list_into(api: KubeAPI, registry: DiagnosticRegistry) -> None:
    """Make the registry what one complete list says, save for what came after it began.

    Raises:
        ApiError, ApiUnavailable: the list failed; the registry may have taken a part of it, which is no harm.
    """
    before = registry.uids()
    found: dict[Key, str] = {}
    pages = api.list_pages(COLLECTION)
    async with aclosing(pages):
        async for page in pages:
            for raw in page.items:
                body = msgspec.json.decode(raw)
                metadata = body["metadata"]
                found[Key(metadata["namespace"], metadata["name"])] = metadata["uid"]
                registry.upsert(body)
    registry.retain(found, among=before)


async def resync(
    api: KubeAPI, registry: DiagnosticRegistry, *, jitter: Callable[[float, float], float] = random.uniform
) -> None:
    """List every ten minutes or so, for ever; a list that fails is left to the next time."""
    while True:
        await asyncio.sleep(RESYNC_SECONDS * jitter(0.8, 1.2))
        try:
            await list_into(api, registry)
        except (ApiError, ApiUnavailable) as error:
            log.info("listing GPUDiagnostics again failed: %s", error)
