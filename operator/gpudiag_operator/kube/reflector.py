"""The reflector: a copy of what the API server holds, of which only a projection is kept.

The operator's own, because kopf's index is quadratic in the number of objects and a typed list of 5,000 Nodes takes
750 MB. What it promises: after ``synced`` the copy is that of some recent moment; deletions that happened while the
watch was down are found by the next list and told like any other; and an API server that is away for any time only
makes the copy older.

The first copy, and each one after a gap, is streamed where the server can (``WatchList``, on by default from Kubernetes
1.34: the server needs not hold a whole list in memory), else listed in chunks.
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

from gpudiag_operator.kube import heads
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


_NO_WATCH_LIST = frozenset({400, 422})
"""What servers say that cannot stream a list: an unknown parameter, or a feature that is switched off."""


class Reflector(Generic[T]):
    """A copy of one collection (cluster-scoped, or of one namespace), by object name.

    Args:
        api: where to read.
        path: the collection, for example ``/api/v1/nodes``.
        project: takes one object's JSON and gives what is kept of it, comparable with ``==``; None when the object
            is of no interest. ``msgspec.DecodeError`` from it skips that object with a warning.
        label_selector: for the API server, in text form.
        resource: the name in logs and metrics; default: the end of ``path``.
        qualified: name objects ``namespace/name``: for a collection over all namespaces.
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
        qualified: bool = False,
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
        self._qualified = qualified
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
        self._streams = True
        """Until the server says that it cannot."""
        self._heard_at: float | None = None
        self._behind_since: float | None = None

    @property
    def items(self) -> Mapping[str, T]:
        """The copy, by name. A live, read-only view."""
        return MappingProxyType(self._items)

    def last_event_age(self) -> float | None:
        """Seconds since the API server last said anything (page, event or bookmark); None before the first time."""
        return None if self._heard_at is None else self._monotonic() - self._heard_at

    def lag(self) -> float:
        """Seconds since a list or watch failed after which nothing was heard; 0 while the copy is current."""
        return 0.0 if self._behind_since is None else self._monotonic() - self._behind_since

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
                if self._version is None and not self._streams:
                    await self._list()
                await self._watch()
                continue
            except ApiError as error:
                if self._version is None and self._streams and error.status in _NO_WATCH_LIST:
                    self._streams = False
                    continue
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

    def _heard(self) -> None:
        self._heard_at = self._monotonic()
        self._behind_since = None

    def _note(self, reason: str, error: Exception) -> None:
        if self._behind_since is None:
            self._behind_since = self._monotonic()
        log.warning("%s: %s; going on from there", self.resource, error)
        if self._metrics is not None:
            self._metrics.watch_failed(self.resource, reason)

    async def _list(self) -> None:
        found: dict[str, T] = {}
        version = ""
        pages = self._api.list_pages(self._path, label_selector=self._selector, limit=self._page)
        async with aclosing(pages):
            async for page in pages:
                self._heard()
                version = page.resource_version
                for raw in page.items:
                    name = heads.head(raw).key(qualified=self._qualified)
                    item = self._read(name, raw)
                    if item is not None:
                        found[name] = item
        self._complete(found, version)

    def _complete(self, found: dict[str, T], version: str) -> None:
        """Take a complete list for the truth: what it lacks was deleted while nobody looked."""
        self._replace(found)
        self._version = version
        self._backoff.reset()
        if self._metrics is not None:
            self._metrics.listed(self.resource, len(found))
        self.synced.set()

    def _replace(self, found: dict[str, T]) -> None:
        for name in [name for name in self._items if name not in found]:
            self._delete(name)
        for name, item in found.items():
            self._upsert(name, item)

    async def _watch(self) -> None:
        """Watch from where we are; from nowhere, every object that is there comes first."""
        initial: dict[str, T] | None = {} if self._version is None else None
        events = self._api.watch(
            self._path,
            resource_version=self._version or "",
            label_selector=self._selector,
            initial_events=initial is not None,
            timeout_seconds=round(self._watch_seconds * self._rng.uniform(0.9, 1.1)),
            inactivity_seconds=self._inactivity,
        )
        began = self._monotonic()
        async with aclosing(events):
            async for event in events:
                self._heard()
                if initial is None:
                    self._apply(event)
                elif self._collect(event, initial):
                    initial = None
                self._barren = 0
                self._backoff.reset()
        if self._monotonic() - began < 1.0:
            # A server, or something between, that ends watches at once must not be asked in a tight loop.
            raise ApiUnavailable(f"watch of {self._path}: ended at once")

    def _collect(self, event: WatchEvent, found: dict[str, T]) -> bool:
        """Take one of the objects that are there already; true when these are all."""
        if event.type == "BOOKMARK":
            version = heads.end_of_initial_events(event.object)
            if version is not None:
                self._complete(found, version)
            return version is not None
        name = heads.head(event.object).key(qualified=self._qualified)
        item = None if event.type == "DELETED" else self._read(name, event.object)
        if item is None:
            found.pop(name, None)
        else:
            found[name] = item
        return False

    def _apply(self, event: WatchEvent) -> None:
        head = heads.head(event.object)
        name = head.key(qualified=self._qualified)
        if event.type == "DELETED":
            self._delete(name)
        elif event.type != "BOOKMARK":
            item = self._read(name, event.object)
            if item is None:
                self._delete(name)
            else:
                self._upsert(name, item)
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
