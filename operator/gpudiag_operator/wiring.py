"""Makes the parts of an operator and connects them; :mod:`.app` starts and stops them."""

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from gpudiag_api.kinds import GROUP, VERSION
from gpudiag_operator.agent_tls.trust import AgentTrust
from gpudiag_operator.collect.agent_client import AgentClient
from gpudiag_operator.collect.collector import Collector
from gpudiag_operator.collect.outcome import Fetcher
from gpudiag_operator.collect.routes import DirectRoute, ProxyRoute, Route
from gpudiag_operator.collect.settings import BreakerSettings, CollectSettings
from gpudiag_operator.diagnostics.expiry import Expiry
from gpudiag_operator.diagnostics.once import OnceRuns, RunSpans
from gpudiag_operator.diagnostics.ports import Surroundings
from gpudiag_operator.diagnostics.registry import DiagnosticRegistry, Key
from gpudiag_operator.diagnostics.scheduler import Scheduler
from gpudiag_operator.diagnostics.sync import resync
from gpudiag_operator.diagnostics.targets import TargetIndex
from gpudiag_operator.diagnostics.writer import StatusWriter
from gpudiag_operator.discover.discovery import Discovery
from gpudiag_operator.discover.projections import node_projection, project_pod
from gpudiag_operator.domain import AgentPod, NodeInfo
from gpudiag_operator.fleet import Fleet
from gpudiag_operator.gpunodes import GPUNodeFeed, Seen
from gpudiag_operator.kube.access import Access
from gpudiag_operator.kube.api import KubeAPI
from gpudiag_operator.kube.reflector import Reflector
from gpudiag_operator.kube.selectors import parse as parse_selector
from gpudiag_operator.leadership.claims import Leadership, claims_of
from gpudiag_operator.leadership.critical import CriticalCodes, critical_codes
from gpudiag_operator.leadership.election import Timing
from gpudiag_operator.leadership.fence import Fence
from gpudiag_operator.leadership.recalled import RecalledNodes
from gpudiag_operator.leadership.shards import Share
from gpudiag_operator.observability.metrics import CollectStats, Metrics
from gpudiag_operator.publish.diagnostic import DiagnosticPublisher
from gpudiag_operator.publish.publisher import Pace, Publisher
from gpudiag_operator.settings import Settings
from gpudiag_operator.store import MemoryNodeStore

NO_DIRECT_WAY = (
    "No Ready agent at all can be reached by its Pod IP. Usual causes: a NetworkPolicy that keeps this operator from "
    "the agents, or an overlay network that drops traffic between subnets (encapsulation off, MTU). With "
    "--routing=proxy the operator goes through the API server instead."
)
BEHIND_SECONDS = 150.0
"""A watch of a collection in which nothing changes has a bookmark about once a minute."""
STUCK_SECONDS = 120.0
"""No call to any agent began or ended for so long although some are under way: a poll takes 35 s."""


@dataclass(frozen=True, kw_only=True)
class Reflectors:
    """The watched collections."""

    nodes: Reflector[NodeInfo]
    pods: Reflector[AgentPod]
    gpunodes: Reflector[Seen]
    critical: Reflector[frozenset[int]] | None
    """XID codes that GPUDiagnostics call critical; None: the scheduler, which knows, is in the same process."""

    def all(self) -> tuple[Reflector[Any], ...]:
        """All there are."""
        return self.nodes, self.pods, self.gpunodes, *([self.critical] if self.critical else [])

    def problem(self) -> str | None:
        """Which copy may be behind for so long that what is done with it is old news."""
        behind = {one.resource: one.lag() for one in self.all()}
        worst = max(behind, key=lambda resource: behind[resource])
        if behind[worst] < BEHIND_SECONDS:
            return None
        return f"nothing was heard of {worst} since a watch failed {behind[worst]:.0f} s ago"

    async def synced(self) -> None:
        """Wait for the first complete lists."""
        for reflector in self.all():
            await reflector.synced.wait()


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """The parts that serve GPUDiagnostics."""

    registry: DiagnosticRegistry
    scheduler: Scheduler
    writer: StatusWriter
    expiry: Expiry

    def feed(self, kind: str | None, body: Any) -> None:
        """Take an event of kopf."""
        metadata = body["metadata"]
        if kind == "DELETED":
            self.registry.delete(Key(metadata.get("namespace", ""), metadata["name"]), metadata["uid"])
        else:
            self.registry.upsert(body)

    def running(self, api: KubeAPI) -> tuple[tuple[str, Coroutine[Any, Any, Any]], ...]:
        """What is to be run, by name."""
        return (
            ("writer", self.writer.run()),
            ("expiry", self.expiry.run()),
            ("scheduler", self.scheduler.run()),
            ("resync", resync(api, self.registry)),
        )


def collect_settings(settings: Settings) -> CollectSettings:
    """How agents are read."""
    return CollectSettings(
        node_timeout=settings.node_timeout,
        concurrency=settings.max_concurrency,
        unreachable_after=settings.unreachable_after,
        breaker=BreakerSettings(
            consecutive_failures=settings.breaker_failures,
            failure_ratio=settings.breaker_failure_rate,
            minimum_calls=settings.breaker_min_calls,
            window_seconds=settings.breaker_window,
            open_seconds=settings.breaker_open,
            max_open_seconds=settings.breaker_open_max,
            successes_to_close=settings.breaker_successes,
        ),
    )


def collect_stats(agents: AgentClient, fleet: Fleet) -> CollectStats:
    """How reading the agents goes."""
    limiter = fleet.collector.limiter
    return CollectStats(
        calls={stage.value: number for stage, number in agents.calls.items()},
        opened=agents.opened,
        waiting=limiter.waiting,
        waits=limiter.waits,
        waited_seconds=limiter.waited_seconds,
    )


def make_route(settings: Settings, access: Access, trust: AgentTrust | None) -> Route:
    """The way to the agents."""
    if settings.routing == "proxy":
        return ProxyRoute(access, namespace=settings.namespace, port=settings.agent_port, tls=trust is not None)
    return DirectRoute(settings.agent_port, trust)


@dataclass(frozen=True, kw_only=True)
class Stores:
    """What is known of the nodes.

    Attributes:
        own: those that this process reads; exported as metrics.
        judged: those that GPUDiagnostics are judged by: the same, or all that GPUNodes tell of when there are shards.
    """

    own: MemoryNodeStore
    judged: MemoryNodeStore

    @classmethod
    def of(cls, shards: int) -> "Stores":
        """Stores for so many shards."""
        own = MemoryNodeStore()
        return cls(own=own, judged=own if shards == 1 else MemoryNodeStore())


def make_leadership(settings: Settings) -> Leadership:
    """What there is to hold. Call it inside the running loop."""
    return Leadership(claims_of(settings.shards), Fence())


def timing(settings: Settings) -> Timing:
    """How Leases are kept."""
    return Timing(
        lease_duration=settings.lease_duration,
        renew_deadline=settings.renew_deadline,
        retry_period=settings.retry_period,
    )


def make_fleet(settings: Settings, *, stores: Stores, publisher: Publisher, agents: Fetcher, metrics: Metrics) -> Fleet:
    """Discovery, collection and assessment, connected to store and publisher. Call it inside the running loop."""
    fleet = Fleet(stores.own, publisher, rejected=metrics.rejected)
    collector = Collector(
        agents, collect_settings(settings), listener=fleet.on_reading, metrics=metrics, strangers=fleet.stranger
    )
    share = Share(collector, settings.shards)
    discovery = Discovery(share)
    recalled = None if stores.judged is stores.own else RecalledNodes(stores.judged, discovery, wall=time.time)
    fleet.connect(collector=collector, discovery=discovery, share=share, recalled=recalled)
    return fleet


def make_publisher(settings: Settings, api: KubeAPI) -> Publisher:
    """The writer of GPUNodes."""
    pace = Pace(rate=settings.write_rate, first_fill_rate=settings.first_fill_rate)
    return Publisher(api, pace=pace, mirror_labels=settings.mirror_labels)


def make_reflectors(
    settings: Settings, *, api: KubeAPI, fleet: Fleet, publisher: Publisher, metrics: Metrics
) -> Reflectors:
    """The reflectors, connected to discovery, fleet and publisher."""
    discovery = fleet.discovery
    selector = parse_selector(settings.gpu_node_selector) if settings.gpu_node_selector else None
    feed = GPUNodeFeed(discovery.gpunodes, changed=fleet.gpunode_changed, deleted=fleet.gpunode_deleted)
    found = Reflectors(
        nodes=Reflector(api, "/api/v1/nodes", node_projection(selector), metrics=metrics),
        pods=Reflector(
            api,
            f"/api/v1/namespaces/{settings.namespace}/pods",
            project_pod,
            label_selector=settings.agent_selector,
            metrics=metrics,
        ),
        gpunodes=Reflector(api, f"/apis/{GROUP}/{VERSION}/gpunodes", feed.project, metrics=metrics),
        critical=None
        if fleet.recalled is None
        else Reflector(api, f"/apis/{GROUP}/{VERSION}/gpudiagnostics", critical_codes, qualified=True, metrics=metrics),
    )
    found.nodes.add_listener(discovery.nodes)
    found.nodes.add_listener(fleet)
    if fleet.recalled is not None:
        found.nodes.add_listener(fleet.recalled)
    if found.critical is not None:
        found.critical.add_listener(CriticalCodes(publisher))
    found.pods.add_listener(discovery.pods)
    found.gpunodes.add_listener(feed)
    return found


def make_diagnostics(
    settings: Settings,
    *,
    api: KubeAPI,
    store: MemoryNodeStore,
    publisher: Publisher,
    fleet: Fleet,
    warm: Callable[[], bool],
    stale: Callable[[], str],
    spans: RunSpans,
) -> Diagnostics:
    """The parts that serve GPUDiagnostics, connected to each other and to the fleet."""

    def critical(codes: frozenset[int]) -> None:
        if fleet.recalled is None:  # else every process watches for itself
            publisher.critical_xids = codes

    def notice(key: Key) -> None:
        scheduler.notice(key)

    def runs(freed: Callable[[], None]) -> OnceRuns:
        return OnceRuns(
            fleet.read_fresh,
            most=settings.max_runs,
            wall=time.time,
            monotonic=time.monotonic,
            freed=freed,
            spans=spans,
        )

    registry = DiagnosticRegistry(
        notice, most=settings.max_diagnostics, most_per_namespace=settings.max_diagnostics_per_namespace
    )
    writer = StatusWriter(DiagnosticPublisher(api, rate=settings.diagnostic_write_rate), gone=registry.delete)
    expiry = Expiry(api, registry)
    around = Surroundings(
        warm=warm,
        stale=stale,
        critical_xids=critical,
        monotonic=time.monotonic,
        wall=time.time,
        own_namespace=settings.namespace,
        no_way=NO_DIRECT_WAY if settings.routing == "direct" else "",
        unwritten=fleet.unwritten,
    )
    scheduler = Scheduler(registry, TargetIndex(store), writer=writer, deleter=expiry, runs=runs, around=around)
    store.subscribe(scheduler.node_changed)
    return Diagnostics(registry=registry, scheduler=scheduler, writer=writer, expiry=expiry)


def stuck(collector: Collector) -> str | None:
    """Whether collection makes no progress, in a sentence; None when it does."""
    age = collector.progress_age()
    if age > STUCK_SECONDS:
        return f"no call to an agent began or ended for {age:.0f} s"
    return None
