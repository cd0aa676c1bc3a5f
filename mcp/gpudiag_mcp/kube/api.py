"""The port to the Kubernetes API: all that the facade may ever ask of it. There is no update, patch or delete."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from gpudiag_api.kinds.base import GROUP, VERSION

JSONObject = dict[str, Any]

Headers = Sequence[tuple[str, str]]
"""Header fields of a request; a name may come more than once."""


@dataclass(frozen=True)
class Resource:
    """A collection of the API server."""

    group: str
    version: str
    plural: str
    namespaced: bool

    def path(self, *, namespace: str = "", name: str = "") -> str:
        """The path of the collection or of one object; names are quoted, so none can lead elsewhere."""
        root = f"/apis/{self.group}/{self.version}"
        within = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced and namespace else ""
        item = f"/{quote(name, safe='')}" if name else ""
        return f"{root}{within}/{self.plural}{item}"


GPUNODES = Resource(GROUP, VERSION, "gpunodes", namespaced=False)
GPUDIAGNOSTICS = Resource(GROUP, VERSION, "gpudiagnostics", namespaced=True)
LEASES = Resource("coordination.k8s.io", "v1", "leases", namespaced=True)
SELF_SUBJECT_REVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", namespaced=False)
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", namespaced=False)
SUBJECT_ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", namespaced=False)


@dataclass(frozen=True)
class Page:
    """A chunk of a list; ``final`` when it is the last one."""

    items: list[msgspec.Raw]
    resource_version: str
    final: bool


@dataclass(frozen=True)
class WatchEvent:
    """ADDED, MODIFIED, DELETED or BOOKMARK, and the object."""

    type: str
    object: msgspec.Raw


class KubeAPI(Protocol):
    """One API server as one identity. All methods raise ApiError, ApiUnavailable and AccessError."""

    def pages(self, resource: Resource, *, namespace: str = "", limit: int = 500) -> AsyncGenerator[Page, None]:
        """List a collection in chunks."""
        ...

    def watch(
        self, resource: Resource, *, resource_version: str, timeout_seconds: int
    ) -> AsyncGenerator[WatchEvent | None, None]:
        """Watch a collection until the server ends it; None says that the watch was accepted."""
        ...

    async def get(self, resource: Resource, name: str, *, namespace: str = "") -> bytes:
        """One object as JSON."""
        ...

    async def create(
        self,
        resource: Resource,
        body: JSONObject,
        *,
        namespace: str = "",
        dry_run: bool = False,
        headers: Headers = (),
    ) -> bytes:
        """Create an object, unknown fields refused (``fieldValidation=Strict``).

        Args:
            resource: the collection.
            body: the object.
            namespace: where; empty for a cluster-scoped resource.
            dry_run: let the server do everything but store it.
            headers: of this request only, for example ``Impersonate-User``.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
