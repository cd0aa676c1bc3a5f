"""A watched copy of one collection, of which only a projection is kept.

What it promises: after ``ready`` the copy is that of some recent moment; deletions during a broken watch are seen by
the next list; an API server that is away makes the copy older, never wrong. The first refusal (401, 403, or the kind
is not installed) ends it and empties it: what was read with a right that is gone must not be shown.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Generic, TypeVar

import msgspec

from gpudiag_mcp.kube.api import KubeAPI, Resource, WatchEvent
from gpudiag_mcp.kube.errors import AccessError, ApiError, ApiUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

WATCH_SECONDS = 60
"""How long one watch lasts. Its successor's acceptance is news, so the age of a quiet copy stays below this."""

_BACKOFF_FIRST, _BACKOFF_LAST = 0.5, 15.0


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Head(msgspec.Struct):
    metadata: _Meta


_head_decoder = msgspec.json.Decoder(_Head)


class Copy(Generic[T]):
    """The copy of a collection in all namespaces, by ``name`` or ``namespace/name``.

    Args:
        api: where to read.
        resource: the collection.
        project: one object's JSON to what is kept of it; ``msgspec.DecodeError`` skips the object with a warning.
        monotonic: seconds of a clock that does not jump.
    """

    def __init__(
        self,
        api: KubeAPI,
        resource: Resource,
        project: Callable[[msgspec.Raw], T],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.refused: ApiError | AccessError | None = None
        """Why the copy ended, once it did."""
        self.trouble = ""
        """What went wrong last; empty while all is well."""
        self.version = 0
        """Counts changes: the same number, the same content."""
        self._api = api
        self._resource = resource
        self._project = project
        self._monotonic = monotonic
        self._items: dict[str, T] = {}
        self._at: str | None = None
        self._heard: float | None = None
        self._settled = asyncio.Event()
        self._changed = asyncio.Event()

    @property
    def items(self) -> Mapping[str, T]:
        """The copy: a live, read-only view."""
        return MappingProxyType(self._items)

    @property
    def age_seconds(self) -> float | None:
        """Since the API server last confirmed the copy (page, event, bookmark, new watch); None before the first."""
        return None if self._heard is None else max(0.0, self._monotonic() - self._heard)

    async def settled(self) -> None:
        """Wait until the copy is complete or was refused."""
        await self._settled.wait()

    @property
    def change(self) -> asyncio.Event:
        """Set at the next change. Take it before looking, so that no change falls between look and wait."""
        return self._changed

    async def run(self) -> None:
        """Keep the copy until cancelled or refused."""
        delay = _BACKOFF_FIRST
        while True:
            try:
                if self._at is None:
                    await self._list()
                await self._watch()
            except ApiError as error:
                if error.refuses_us or error.kind_missing:
                    self._refuse(error)
                    return
                if error.gone:
                    self._at = None
                self._note(error)
            except AccessError as error:
                self._refuse(error)
                return
            except ApiUnavailable as error:
                self._note(error)
            else:
                delay = _BACKOFF_FIRST
                continue
            await asyncio.sleep(delay)
            delay = min(delay * 2, _BACKOFF_LAST)
            self._at = None if delay == _BACKOFF_LAST else self._at

    def _note(self, error: Exception) -> None:
        self.trouble = str(error)
        log.warning("%s: %s; going on from there", self._resource.plural, error)

    def _refuse(self, error: ApiError | AccessError) -> None:
        self.refused = error
        self._items.clear()
        self._settled.set()
        self._tell()

    def _tell(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def _list(self) -> None:
        found: dict[str, T] = {}
        version = ""
        async with aclosing(self._api.pages(self._resource)) as pages:
            async for page in pages:
                version = page.resource_version
                for raw in page.items:
                    self._keep(raw, found)
        self._items = found
        self._at = version
        self._hear()
        self._tell()
        self._settled.set()

    async def _watch(self) -> None:
        events = self._api.watch(self._resource, resource_version=self._at or "", timeout_seconds=WATCH_SECONDS)
        began = self._monotonic()
        async with aclosing(events):
            async for event in events:
                self._hear()
                if event is not None:
                    self._apply(event)
        if self._monotonic() - began < 1.0:
            # Something that ends watches at once must not be asked in a tight loop.
            raise ApiUnavailable(f"watch of {self._resource.plural}: ended at once")

    def _hear(self) -> None:
        self._heard = self._monotonic()
        self.trouble = ""

    def _apply(self, event: WatchEvent) -> None:
        meta = _meta(event.object)
        if event.type == "DELETED":
            self._items.pop(_key(meta), None)
        elif event.type != "BOOKMARK":
            self._keep(event.object, self._items)
        self._at = meta.resource_version or self._at
        if event.type != "BOOKMARK":
            self._tell()

    def _keep(self, raw: msgspec.Raw, into: dict[str, T]) -> None:
        key = _key(_meta(raw))
        try:
            into[key] = self._project(raw)
        except msgspec.DecodeError as error:
            log.warning("%s %s cannot be read: %s", self._resource.plural, key, error)


def _key(meta: _Meta) -> str:
    return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name


def _meta(raw: msgspec.Raw) -> _Meta:
    try:
        return _head_decoder.decode(raw).metadata
    except msgspec.DecodeError as error:
        raise ApiUnavailable(f"not an object of an API server: {error}") from error
