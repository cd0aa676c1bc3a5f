"""The parts of a running facade, put together. Nothing here knows MCP or a transport.

A transport adds two things: who calls, and whether they may now (``server.dispatch.CallerOf``, which may refuse), and
where the metrics are shown (``Service.metrics.registry``).
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from gpudiag_mcp.cache.fleet import FleetCopy, Place
from gpudiag_mcp.cache.pool import Caches
from gpudiag_mcp.create.creating import Creator
from gpudiag_mcp.create.policy import Policy
from gpudiag_mcp.kube import kubeconfig
from gpudiag_mcp.kube.access import open_access
from gpudiag_mcp.kube.api import SELF_SUBJECT_REVIEWS, KubeAPI
from gpudiag_mcp.kube.client import KubeClient
from gpudiag_mcp.kube.errors import ApiError, ApiUnavailable
from gpudiag_mcp.metrics import Metrics
from gpudiag_mcp.objects.node import GPUNode
from gpudiag_mcp.options import Options


@dataclass(kw_only=True)
class Service:
    """What the tools work with."""

    contexts: tuple[str, ...]
    """Names of the kubeconfig's contexts; the argument ``context`` exists when there are several."""
    caches: Caches
    creator: Creator | None
    """None: read-only."""
    unattended: bool = False
    """Create also where nobody can be asked."""
    metrics: Metrics = field(default_factory=Metrics)
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sweep the caches meanwhile; forget everything at the end."""
        sweeper = asyncio.create_task(self.caches.run())
        try:
            yield
        finally:
            sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sweeper
            await self.caches.clear()


def assemble(options: Options) -> Service:
    """The service of a process; reads the kubeconfig's names, connects to nothing."""
    names = kubeconfig.load(options.kubeconfig).names

    async def open_fleet(context: str) -> FleetCopy:
        # Read anew each time: contexts and credentials change while an assistant's session lasts for days.
        chosen = kubeconfig.load(options.kubeconfig).context(context)
        api = KubeClient(await open_access(chosen))
        place = Place(
            context=chosen.name,
            cluster=chosen.cluster_name,
            identity=await whoami(api) or chosen.user_name,
            namespace=chosen.namespace,
        )
        return FleetCopy(api, place, operator_namespace=options.namespace)

    def known() -> Iterable[GPUNode]:
        return (node for fleet in caches.opened() for node in tuple(fleet.nodes.items.values()))

    metrics = Metrics(known)
    caches = Caches(open_fleet, metrics=metrics)
    policy = Policy(
        namespaces=options.create_namespaces,
        max_active=options.create_max_active,
        per_minute=options.create_per_minute,
    )
    creator = Creator(policy, clock=time.time, monotonic=time.monotonic) if options.allow_create else None
    return Service(
        contexts=names,
        caches=caches,
        creator=creator,
        unattended=options.allow_unattended_create,
        metrics=metrics,
    )


async def connect(options: Options) -> KubeAPI:
    """The API server of the current context, as ourselves.

    Raises:
        AccessError: there is no usable context or credential.
    """
    return KubeClient(await open_access(kubeconfig.load(options.kubeconfig).context("")))


class _User(msgspec.Struct, frozen=True):
    username: str = ""


class _Reviewed(msgspec.Struct, rename="camel", frozen=True):
    user_info: _User = _User()


class _Review(msgspec.Struct):
    status: _Reviewed = _Reviewed()


async def whoami(api: KubeAPI) -> str:
    """The API server's name for us (SelfSubjectReview, 1.28 and newer); empty if it does not say."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = await api.create(SELF_SUBJECT_REVIEWS, body)
        return msgspec.json.decode(answer, type=_Review).status.user_info.username
    except (ApiError, ApiUnavailable, msgspec.DecodeError):
        return ""
