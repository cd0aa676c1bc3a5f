"""Counts the writes that the API server accepted, whoever made them."""

import re
from collections.abc import AsyncGenerator, Callable
from typing import Any

from gpudiag_operator.kube.api import JSONObject, KubeAPI, Page, WatchEvent

_RESOURCE = re.compile(r"/(?:api|apis/[^/]+)/[^/]+/(?:namespaces/[^/]+/)?(?P<resource>[a-z]+)(?:/|$)")


class CountedAPI:
    """A ``KubeAPI`` that tells each accepted write.

    Args:
        api: does the work.
        written: called with resource (``gpunodes``, ``gpudiagnostics``, ``events`` …) and verb.
    """

    def __init__(self, api: KubeAPI, written: Callable[[str, str], None]) -> None:
        self._api = api
        self._written = written

    def list_pages(
        self, path: str, *, label_selector: str = "", field_selector: str = "", limit: int = 500
    ) -> AsyncGenerator[Page, None]:
        """See ``KubeAPI.list_pages``."""
        return self._api.list_pages(path, label_selector=label_selector, field_selector=field_selector, limit=limit)

    def watch(
        self,
        path: str,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        initial_events: bool = False,
        timeout_seconds: int = 290,
        inactivity_seconds: float = 120.0,
    ) -> AsyncGenerator[WatchEvent, None]:
        """See ``KubeAPI.watch``."""
        return self._api.watch(
            path,
            resource_version=resource_version,
            initial_events=initial_events,
            label_selector=label_selector,
            field_selector=field_selector,
            timeout_seconds=timeout_seconds,
            inactivity_seconds=inactivity_seconds,
        )

    async def get(self, path: str) -> dict[str, Any]:
        """See ``KubeAPI.get``."""
        return await self._api.get(path)

    async def create(self, path: str, body: JSONObject) -> dict[str, Any]:
        """See ``KubeAPI.create``."""
        answer = await self._api.create(path, body)
        self._count(path, "create")
        return answer

    async def patch(self, path: str, body: JSONObject, *, resource_version: str | None = None) -> dict[str, Any]:
        """See ``KubeAPI.patch``."""
        answer = await self._api.patch(path, body, resource_version=resource_version)
        self._count(path, "patch")
        return answer

    async def patch_status(self, path: str, body: JSONObject, *, resource_version: str | None = None) -> dict[str, Any]:
        """See ``KubeAPI.patch_status``."""
        answer = await self._api.patch_status(path, body, resource_version=resource_version)
        self._count(path, "patch")
        return answer

    async def delete(self, path: str, *, uid: str | None = None, resource_version: str | None = None) -> None:
        """See ``KubeAPI.delete``."""
        await self._api.delete(path, uid=uid, resource_version=resource_version)
        self._count(path, "delete")

    def _count(self, path: str, verb: str) -> None:
        match = _RESOURCE.match(path)
        self._written(match["resource"] if match else "other", verb)
