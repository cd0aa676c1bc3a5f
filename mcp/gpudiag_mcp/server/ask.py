"""One question at work: what a tool function gets besides its arguments."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gpudiag_mcp.answers.models import Source
from gpudiag_mcp.cache.pool import Caches
from gpudiag_mcp.cache.reader import Caller, Reader, read
from gpudiag_mcp.create.policy import Provenance
from gpudiag_mcp.kube.errors import ApiError
from gpudiag_mcp.objects.diagnostic import GPUDiagnostic
from gpudiag_mcp.objects.node import GPUNode
from gpudiag_mcp.questions import fleet, freshness
from gpudiag_mcp.questions.diagnosing import Diagnosing
from gpudiag_mcp.service import Service

Progress = Callable[[float, float, str], Awaitable[None]]
"""Seconds gone, seconds in all, what is going on."""

LOOK_SECONDS = 5.0
"""A wait looks at least this often: it keeps the cache in use and tells the client that it lives."""


async def silent(gone: float, total: float, message: str) -> None:
    """A progress report that nobody asked for."""


@dataclass(kw_only=True)
class Ask:
    """A caller's access for one call."""

    service: Service
    caller: Caller
    context: str
    reader: Reader
    provenance: Provenance
    progress: Progress = silent

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self.service.clock()

    @property
    def diagnosing(self) -> Diagnosing:
        """How to get data that no resource holds."""
        creator = self.service.creator
        default = self.reader.place.namespace
        allowed = creator.policy.namespaces if creator is not None else ()
        return Diagnosing(
            enabled=creator is not None,
            namespace=(allowed or (default,))[0],
            context=self.context if len(self.service.contexts) > 1 else "",
        )

    async def nodes(self, node: str = "") -> Sequence[GPUNode]:
        """The fleet, or the one node.

        Raises:
            Refusal: there is no such node; with the nearest names, if the caller may list them.
        """
        found = await self.reader.nodes(node)
        if not node or found:
            return found
        try:
            known = [one.name for one in await self.reader.nodes()]
        except ApiError:
            known = []
        return [fleet.one(found, node, lambda: known)]

    async def one(self, node: str) -> GPUNode:
        """The one node; raises as :meth:`nodes`."""
        return (await self.nodes(node))[0]

    def freshness(self) -> freshness.Freshness:
        """Whether the resources tell the present."""
        return freshness.of_operator(self.reader.sign, now=self.now, monotonic=self.service.monotonic())

    def source(self) -> Source:
        """Where the answer comes from."""
        place, fresh = self.reader.place, self.freshness()
        return Source(
            context=place.context,
            cluster=place.cluster,
            identity=self.caller.name or place.identity,
            age_s=round(self.reader.age_seconds, 3),
            freshness=fresh.state,
            freshness_reason=fresh.why,
        )

    async def until(
        self, look: Callable[[], Awaitable[GPUDiagnostic]], finished: Callable[[GPUDiagnostic], bool], seconds: float
    ) -> GPUDiagnostic:
        """Look again at every change until ``finished``, for at most ``seconds``; gives what was seen last."""
        began = self.service.monotonic()
        while True:
            change = self.reader.change_of_diagnostics
            one = await look()
            gone = self.service.monotonic() - began
            if finished(one) or gone >= seconds:
                return one
            await self.progress(gone, seconds, f"{one.key}: waiting")
            try:
                async with asyncio.timeout(min(LOOK_SECONDS, seconds - gone)):
                    await change.wait()
            except TimeoutError:
                # A new look may need a new cache: this one may have been closed meanwhile.
                self.reader = await read(self.service.caches, self.caller, self.context)


async def begin(
    service: Service, caller: Caller, context: str, provenance: Provenance, progress: Progress = silent
) -> Ask:
    """Start a call: find or open the cache of its context. Raises as ``Caches.use`` does."""
    caches: Caches = service.caches
    return Ask(
        service=service,
        caller=caller,
        context=context,
        reader=await read(caches, caller, context),
        provenance=provenance,
        progress=progress,
    )
