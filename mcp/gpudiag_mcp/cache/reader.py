"""What one caller may read. There is no other way from a tool to the copies, so no read can forget to ask.

The copies are filled with the process's own identity. On stdio that is the caller's as well; over HTTP every read is
preceded by a SubjectAccessReview for the caller (``Caller.require``).
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from gpudiag_mcp.cache.fleet import OPERATOR_LEASE, FleetCopy, Place
from gpudiag_mcp.cache.pool import BOUND_SECONDS, Caches
from gpudiag_mcp.kube.api import GPUDIAGNOSTICS, GPUNODES, LEASES, Headers, JSONObject, KubeAPI, Resource
from gpudiag_mcp.kube.copy import Copy
from gpudiag_mcp.kube.errors import ApiError, ApiUnavailable
from gpudiag_mcp.objects.diagnostic import GPUDiagnostic, diagnostic_from_json
from gpudiag_mcp.objects.node import GPUNode
from gpudiag_mcp.questions.freshness import OperatorSign

T = TypeVar("T")


class Caller(Protocol):
    """Who asks, and what they may do."""

    @property
    def name(self) -> str:
        """The principal, for limits, logs and provenance; empty: the process's own identity."""
        ...

    async def require(
        self, api: KubeAPI, verb: str, resource: Resource, *, namespace: str = "", name: str = ""
    ) -> None:
        """Refuse what the caller may not do.

        Raises:
            ApiError: 403, with what was asked.
        """
        ...

    def headers(self) -> Headers:
        """Headers of a write on the caller's behalf: impersonation, or none."""
        ...


class OwnIdentity:
    """The caller of stdio: the process's own identity, whose rights the API server itself checks."""

    name = ""

    async def require(
        self, api: KubeAPI, verb: str, resource: Resource, *, namespace: str = "", name: str = ""
    ) -> None:
        """Nothing to ask: whatever is in the copy was read with the caller's own rights."""

    def headers(self) -> Headers:
        """No impersonation."""
        return ()


class Reader:
    """Reads and creates for one call. Make it with :func:`read`.

    All methods raise ApiError (refused), AccessError (no credentials) and ApiUnavailable (no answer).
    """

    def __init__(self, fleet: FleetCopy, caller: Caller) -> None:
        self._fleet = fleet
        self._caller = caller
        self.warnings: list[str] = []
        """Sentences that belong into the answer: what could not be read and why that matters."""
        self._sign_hidden: OperatorSign | None = None

    @property
    def place(self) -> Place:
        """Cluster and identity."""
        return self._fleet.place

    @property
    def caller(self) -> Caller:
        """Who asks."""
        return self._caller

    @property
    def api(self) -> KubeAPI:
        """The API server, for ``Caller.require``."""
        return self._fleet.api

    @property
    def sees_all_diagnostics(self) -> bool:
        """Whether GPUDiagnostics are read cluster-wide, or namespace by namespace."""
        return self._fleet.diagnostics.refused is None

    @property
    def sign(self) -> OperatorSign:
        """What the caller may know of the operator's Lease."""
        return self._sign_hidden or self._fleet.sign

    async def look_for_lease(self) -> None:
        """Ask whether the caller may get the Lease; without that right, freshness is unknown to them (design §6)."""
        namespace = self._fleet.operator_namespace
        try:
            await self._caller.require(self._fleet.api, "get", LEASES, namespace=namespace, name=OPERATOR_LEASE)
        except ApiError:
            why = f"the Lease {OPERATOR_LEASE} in namespace {namespace} may not be read (get leases)"
            self._sign_hidden = OperatorSign(problem=why)
        except ApiUnavailable:
            why = "whether the operator's Lease may be read could not be asked: the API server does not answer"
            self._sign_hidden = OperatorSign(problem=why)

    @property
    def age_seconds(self) -> float:
        """Age of the copy: seconds since the API server last confirmed it."""
        return self._fleet.age_seconds or 0.0

    async def nodes(self, name: str = "") -> Sequence[GPUNode]:
        """All GPUNodes, or the one of that name as far as it exists."""
        verb = "get" if name else "list"
        await self._caller.require(self._fleet.api, verb, GPUNODES, name=name)
        items = self._items(self._fleet.nodes)
        if name:
            return (items[name],) if name in items else ()
        return tuple(items.values())

    async def diagnostics(self, namespace: str = "") -> Sequence[GPUDiagnostic]:
        """The GPUDiagnostics of a namespace, or of all.

        An identity that may list only single namespaces has no copy; its namespace is read directly then.
        """
        await self._caller.require(self._fleet.api, "list", GPUDIAGNOSTICS, namespace=namespace)
        refused = self._fleet.diagnostics.refused
        if namespace and isinstance(refused, ApiError) and refused.status == 403:
            pages = self._fleet.api.pages(GPUDIAGNOSTICS, namespace=namespace)
            return tuple([diagnostic_from_json(raw) async for page in pages for raw in page.items])
        items = self._items(self._fleet.diagnostics)
        return tuple(one for one in items.values() if not namespace or one.metadata.namespace == namespace)

    async def full_results(self) -> Sequence[GPUDiagnostic]:
        """All GPUDiagnostics that the caller may list, to look for results in; none, with a warning, if refused."""
        try:
            return await self.diagnostics()
        except ApiError as error:
            if error.status != 403:
                raise
            self.warnings.append("GPUDiagnostics could not be searched for results: list gpudiagnostics is forbidden.")
            return ()

    async def diagnostic(self, namespace: str, name: str) -> GPUDiagnostic | None:
        """One GPUDiagnostic; None when there is none."""
        await self._caller.require(self._fleet.api, "get", GPUDIAGNOSTICS, namespace=namespace, name=name)
        copy = self._fleet.diagnostics
        if isinstance(copy.refused, ApiError) and copy.refused.status == 403:
            return await self.stored_diagnostic(namespace, name)
        return self._items(copy).get(f"{namespace}/{name}")

    async def stored_diagnostic(self, namespace: str, name: str) -> GPUDiagnostic | None:
        """The same from the API server itself, where a copy that is milliseconds behind would mislead."""
        await self._caller.require(self._fleet.api, "get", GPUDIAGNOSTICS, namespace=namespace, name=name)
        try:
            return diagnostic_from_json(await self._fleet.api.get(GPUDIAGNOSTICS, name, namespace=namespace))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    @property
    def change_of_diagnostics(self) -> asyncio.Event:
        """Set at the next change of any GPUDiagnostic; take it before looking."""
        return self._fleet.diagnostics.change

    async def create_diagnostic(self, body: JSONObject, *, namespace: str, dry_run: bool) -> GPUDiagnostic:
        """Create one as the caller."""
        answer = await self._fleet.api.create(
            GPUDIAGNOSTICS, body, namespace=namespace, dry_run=dry_run, headers=self._caller.headers()
        )
        return diagnostic_from_json(answer)

    def _items(self, copy: Copy[T]) -> Mapping[str, T]:
        if copy.refused is not None:
            raise copy.refused
        age = copy.age_seconds
        if age is not None and age > BOUND_SECONDS:
            self.warnings.append(f"The API server has not been heard for {age:.0f} s ({copy.trouble}); this is older.")
        return copy.items


async def read(caches: Caches, caller: Caller, context: str) -> Reader:
    """What ``caller`` may read of ``context``; raises as ``Caches.use`` does."""
    reader = Reader(await caches.use(context), caller)
    await reader.look_for_lease()
    return reader
