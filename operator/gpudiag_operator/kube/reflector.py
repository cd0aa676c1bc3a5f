"""The reflector: a copy of what the API server holds, of which only a projection is kept.

The operator's own, because kopf's index is quadratic in the number of objects and a typed list of 5,000 Nodes takes
750 MB. What it promises: after ``synced`` the copy is that of some recent moment; deletions that happened while the
watch was down are found by the next list and told like any other; and an API server that is away for any time only
makes the copy older.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Generic, NoReturn, Protocol, TypeVar

import msgspec

from gpudiag_operator.kube.api import KubeAPI, WatchEvent
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable
from gpudiag_operator.kube.retry import Backoff

log = logging.getLogger(__name__)

T = TypeVar("T")
L_contra = TypeVar("L_contra", contravariant=True)

FAULTS_BEFORE_RELIST = 3
"""Watches in a row that ended in a fault without one event: the resource version itself may be what is refused."""


class Listener(Protocol[L_contra]):
    """Told of changes of the projection; changes that it does not show (heartbeats) are not told.

    Called in the reflector's task, so it must be quick. An exception is a bug and ends the reflector.
    """

    def upsert(self, name: str, item: L_contra) -> None:
        """An object is new or looks different."""
        ...

    def delete(self, name: str) -> None:
        """An object is gone, or no longer of interest."""
        ...


class ReflectorMetrics(Protocol):
    """Counted by the application."""

    def listed(self, resource: str, count: int) -> None:
        """A complete list arrived with so many objects of interest."""
        ...

    def watch_failed(self, resource: str, reason: str) -> None:
        """A list or watch ended in a fault: ``Unavailable``, ``Gone`` or the API server's HTTP status."""
        ...


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    resource_version: str = ""


class _Head(msgspec.Struct):
    metadata: _Meta


_head_decoder = msgspec.json.Decoder(_Head)


class Reflector(Generic[T]):
    """A copy of one collection (cluster-scoped, or of one namespace), by object name.

    Args:
        api: where to read.
        path: the collection, for example ``/api/v1/nodes``.
        project: takes one object's JSON and gives what is kept of it, comparable with ``==``; None when the object
            is of no interest. ``msgspec.DecodeError`` from it skips that object with a warning.
        label_selector: for the API server, in text form.
        resource: the name in logs and metrics; default: the end of ``path``.
        page: objects per chunk of a list.
        watch_seconds: how long one watch lasts, ± 10 % so that watches do not end together.
        backoff: delays after faults; default 0.5 s doubling to 30 s.
        inactivity_seconds: a watch without a byte for so long is opened anew. API servers send a bookmark about once a
            minute, but may stay silent on a resource that never changes, so this is no fault by itself.
    """

    def __init__(
        self,
        api: KubeAPI,
        path: str,
        project: Callable[[msgspec.Raw], T | None],
        *,
        label_selector: str = "",
        resource: str | None = None,
        page: int = 500,
        watch_seconds: float = 290.0,
        inactivity_seconds: float = 120.0,
        metrics: ReflectorMetrics | None = None,
        rng: random.Random | None = None,
        backoff: Backoff | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.resource = resource or path.rpartition("/")[2]
        self.synced = asyncio.Event()
        """Set after the first complete list was told to the listeners. Never cleared."""
        self._api = api
        self._path = path
        self._project = project
        self._selector = label_selector
        self._page = page
        self._watch_seconds = watch_seconds
        self._inactivity = inactivity_seconds
        self._metrics = metrics
        self._rng = rng or random.Random()  # noqa: S311  (spreads load, protects nothing)
        self._monotonic = monotonic
        self._backoff = backoff or Backoff(rng=self._rng)
        self._items: dict[str, T] = {}
        self._listeners: list[Listener[T]] = []
        self._version: str | None = None
        self._barren = 0
        self._heard_at: float | None = None

    @property
    def items(self) -> Mapping[str, T]:
        """The copy, by name. A live, read-only view."""
        return MappingProxyType(self._items)

    def last_event_age(self) -> float | None:
        """Seconds since the API server last said anything (page, event or bookmark); None before the first time."""
        return None if self._heard_at is None else self._monotonic() - self._heard_at

    def add_listener(self, listener: Listener[T]) -> None:
        """Tell ``listener`` of all present objects now, and of every change from now on."""
        for name, item in self._items.items():
            listener.upsert(name, item)
        self._listeners.append(listener)

    async def run(self) -> NoReturn:
        """Keep the copy until cancelled. Survives an API server outage of any length."""
        while True:
            asked: float | None = None
            try:
                if self._version is None:
                    await self._list()
                await self._watch(self._version or "")
                continue
            except ApiError as error:
                if error.gone:
                    self._note("Gone", error)
                    self._version = None
                    # Listing anew is the cure, not a repetition; but a server that only says 410 is not hammered.
                    await asyncio.sleep(self._backoff.next() if self._barren else 0)
                    self._barren += 1
                    continue
                self._note(str(error.status), error)
                asked = error.retry_after
            except ApiUnavailable as error:
                self._note("Unavailable", error)
            self._barren += 1
            if self._barren >= FAULTS_BEFORE_RELIST:
                self._version = None
            await asyncio.sleep(self._backoff.next(asked))

    def _note(self, reason: str, error: Exception) -> None:
        log.warning("%s: %s; going on from there", self.resource, error)
        if self._metrics is not None:
            self._metrics.watch_failed(self.resource, reason)

    async def _list(self) -> None:
        found: dict[str, T] = {}
        version = ""
        pages = self._api.list_pages(self._path, label_selector=self._selector, limit=self._page)
        async with aclosing(pages):
            async for page in pages:
                self._heard_at = self._monotonic()
                version = page.resource_version
                for raw in page.items:
                    name = _head(raw).name
                    item = self._read(name, raw)
                    if item is not None:
                        found[name] = item
        self._replace(found)
        self._version = version
        self._backoff.reset()
        if self._metrics is not None:
            self._metrics.listed(self.resource, len(found))
        self.synced.set()

    def _replace(self, found: dict[str, T]) -> None:
        """Take a complete list for the truth: what it lacks was deleted while nobody looked."""
        for name in [name for name in self._items if name not in found]:
            self._delete(name)
        for name, item in found.items():
            self._upsert(name, item)

    async def _watch(self, version: str) -> None:
        events = self._api.watch(
            self._path,
            resource_version=version,
            label_selector=self._selector,
            timeout_seconds=round(self._watch_seconds * self._rng.uniform(0.9, 1.1)),
            inactivity_seconds=self._inactivity,
        )
        began = self._monotonic()
        async with aclosing(events):
            async for event in events:
                self._heard_at = self._monotonic()
                self._apply(event)
                self._barren = 0
                self._backoff.reset()
        if self._monotonic() - began < 1.0:
            # A server, or something between, that ends watches at once must not be asked in a tight loop.
            raise ApiUnavailable(f"watch of {self._path}: ended at once")

    def _apply(self, event: WatchEvent) -> None:
        head = _head(event.object)
        if event.type == "DELETED":
            self._delete(head.name)
        elif event.type != "BOOKMARK":
            item = self._read(head.name, event.object)
            if item is None:
                self._delete(head.name)
            else:
                self._upsert(head.name, item)
        self._version = head.resource_version or self._version

    def _read(self, name: str, raw: msgspec.Raw) -> T | None:
        try:
            return self._project(raw)
        except msgspec.DecodeError as error:
            log.warning("%s %s: cannot be read, keeping what was known: %s", self.resource, name, error)
            return self._items.get(name)

    def _upsert(self, name: str, item: T) -> None:
        if name in self._items and self._items[name] == item:
            return
        self._items[name] = item
        for listener in self._listeners:
            listener.upsert(name, item)

    def _delete(self, name: str) -> None:
        if self._items.pop(name, None) is not None:
            for listener in self._listeners:
                listener.delete(name)


def _head(raw: msgspec.Raw) -> _Meta:
    """Name and resource version of any object.

    Raises:
        ApiUnavailable: it has no metadata, so it is no object of an API server.
    """
    try:
        return _head_decoder.decode(raw).metadata
    except msgspec.DecodeError as error:
        raise ApiUnavailable(f"not an object of an API server: {error}") from error
