"""The operator's view of the Kubernetes API: seven methods over raw JSON.

A Protocol, so that tests and a later client library fit behind it. Lists and watches hand out undecoded objects
(``msgspec.Raw``): 5,000 Nodes are 79 MB of JSON, of which the operator keeps a few hundred bytes each, so whoever
reads them decodes only the fields it keeps.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Literal, Protocol

import msgspec

JSONObject = Mapping[str, Any]


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One chunk of a list."""

    items: list[msgspec.Raw]
    resource_version: str
    """Of the whole list: the same on each of its pages, where a watch goes on from."""
    final: bool


class WatchEvent(msgspec.Struct, frozen=True):
    """One line of a watch. ``ERROR`` never gets here: the client raises it as an ApiError."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: msgspec.Raw


class KubeAPI(Protocol):
    """Raw access to the API server.

    ``path`` is the absolute URL path of a collection or an object, for example ``/api/v1/nodes/n1``.
    Every method raises ``ApiError`` when the server refuses and ``ApiUnavailable`` when it does not answer.
    """

    def list_pages(
        self, path: str, *, label_selector: str = "", field_selector: str = "", limit: int = 500
    ) -> AsyncGenerator[Page, None]:
        """List in chunks of ``limit``; a page that fails is repeated a few times, a 410 half way is raised."""
        ...

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
        """Watch from ``resource_version`` on, bookmarks included, until the server ends it.

        With ``initial_events`` all present objects come first, as if added, ended by a bookmark that says so
        (``WatchList``, KEP-3157); ``resource_version`` is then "". A server without it answers 400 or 422.

        Raises ApiUnavailable when nothing at all arrives for ``inactivity_seconds``.
        """
        ...

    async def get(self, path: str) -> dict[str, Any]:
        """Read one object. Repeated a few times on faults that may pass."""
        ...

    async def create(self, path: str, body: JSONObject) -> dict[str, Any]:
        """POST ``body`` to the collection ``path``. Never repeated by itself."""
        ...

    async def patch(self, path: str, body: JSONObject, *, resource_version: str | None = None) -> dict[str, Any]:
        """Merge-patch an object; with ``resource_version`` only that state of it (else 409). Never repeated."""
        ...

    async def patch_status(self, path: str, body: JSONObject, *, resource_version: str | None = None) -> dict[str, Any]:
        """Merge-patch the status subresource of the object ``path``; ``body`` is ``{"status": …}``."""
        ...

    async def delete(self, path: str, *, uid: str | None = None, resource_version: str | None = None) -> None:
        """Delete an object, with ``uid`` only that very one, with ``resource_version`` only in that state (else 409).

        Never repeated.
        """
        ...
