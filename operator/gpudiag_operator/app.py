"""The whole operator: starts and stops the parts that :mod:`.wiring` makes.

Order of the start: the server for health and metrics, so that probes see a start that takes long; the first list of
GPUDiagnostics, which waits for API server and kinds; the reflectors; then, with complete lists at hand, the Leases. A
standby knows; only who holds a Lease calls agents and writes. What a Lease obliges to begins when it is taken:
collection of its nodes, or judging, and there kopf last, since its feed only repeats what a list said.

At the end, whatever ended it: no write any more, then the Leases are given up, then everything else stops.
"""

import asyncio
import logging
import time
from typing import Any

from gpudiag_operator.agent_tls.keeper import Keeper, keep
from gpudiag_operator.agent_tls.made import CertificateCollector, make_keeper, make_token, make_trust
from gpudiag_operator.agent_tls.trust import AgentTrust
from gpudiag_operator.collect.agent_client import AgentClient
from gpudiag_operator.collect.resources import calm_garbage_collector, collect_garbage, raise_open_files
from gpudiag_operator.diagnostics.feed import KopfFeed
from gpudiag_operator.diagnostics.sync import first_list
from gpudiag_operator.fleet import Fleet
from gpudiag_operator.kube.access import Access, load_access
from gpudiag_operator.kube.api import KubeAPI
from gpudiag_operator.kube.client import KubeClient
from gpudiag_operator.leadership.claims import Claim, Leadership
from gpudiag_operator.leadership.fence import FencedAPI
from gpudiag_operator.leadership.keeper import LeadershipLostError
from gpudiag_operator.observability import logs, tracing
from gpudiag_operator.observability.health import Health
from gpudiag_operator.observability.http import Server
from gpudiag_operator.observability.metrics import Metrics
from gpudiag_operator.publish.publisher import Publisher
from gpudiag_operator.settings import Settings
from gpudiag_operator.supervisor import PartDiedError, Supervisor
from gpudiag_operator.wiring import (
    Diagnostics,
    Reflectors,
    Stores,
    collect_settings,
    collect_stats,
    make_diagnostics,
    make_fleet,
    make_leadership,
    make_publisher,
    make_reflectors,
    make_route,
    stuck,
    timing,
)

log = logging.getLogger(__name__)

ACCESS_SECONDS = 3.0


def run(settings: Settings) -> int:
    """Run the operator; gives the exit status: 0 when told to stop, 1 when a part died."""
    logs.configure(level=settings.log_level, json=settings.log_format == "json")
    raise_open_files()
    calm_garbage_collector()
    try:
        with tracing.exported() as spans, asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(Operator(settings, spans).run())
    except KeyboardInterrupt:  # before the loop caught signals
        return 0


def _loop_factory() -> Any:
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return None
    return uvloop.new_event_loop


class Operator:
    """One operator process, but for the process: no globals, so tests may have several."""

    def __init__(self, settings: Settings, spans: tracing.Spans) -> None:
        self._settings = settings
        self._spans = spans
        self._metrics = Metrics()
        self._health = Health()
        self._stores = Stores.of(settings.shards)
        self._supervisor = Supervisor()
        self._starting = "waiting for the API server"
        self._warm_until = 0.0
        self._warm = False

    async def run(self) -> int:
        """Run until told to stop; gives the exit status."""
        self._supervisor.catch_signals()
        self._health.live["loop"] = self._health.loop_problem
        self._health.ready["start"] = lambda: self._starting or None
        server = Server(self._settings.metrics_addr, health=self._health, registry=self._metrics.registry)
        try:
            port = await server.start()
        except OSError as error:
            log.error("--metrics-addr: cannot listen: %s", error)  # noqa: TRY400  (the sentence says it all)
            return 1
        log.info("serving /healthz, /readyz and /metrics on port %d", port)
        self._supervisor.start("loop watch", self._health.watch_loop())
        self._supervisor.start("garbage collector", collect_garbage())
        try:
            await self._with_api()
        except PartDiedError as error:
            deposed = isinstance(error.__cause__, LeadershipLostError)
            log.critical("%s; exiting, to be started again", error, exc_info=None if deposed else error.__cause__)
            return 1
        else:
            log.info("stopped")
            return 0
        finally:
            await self._supervisor.cancel_all()
            await server.stop()

    async def _with_api(self) -> None:
        access = await self._access()
        if access is None:
            return
        leadership = make_leadership(self._settings)
        async with KubeClient(access) as client:
            trust = make_trust(self._settings)
            agents = AgentClient(
                collect_settings(self._settings),
                route=make_route(self._settings, access, trust),
                token=make_token(self._settings),
                spans=self._spans.call,
            )
            try:
                await self._with_agents(client, leadership, agents, trust)
            finally:
                await self._supervisor.cancel_all()
                await agents.close()

    async def _access(self) -> Access | None:
        """Credentials; waited for like the API server, since a plugin may need the network to get them."""
        found: list[Access] = []

        async def look() -> None:
            while True:
                try:
                    found.append(await load_access(kubeconfig=self._settings.kubeconfig))
                except Exception as error:  # noqa: BLE001  (the package raises what its plugins raise)
                    log.warning("waiting for a usable kubeconfig: %s", error)
                    await asyncio.sleep(ACCESS_SECONDS)
                else:
                    return

        return found[0] if await self._supervisor.or_stop(look()) else None

    async def _with_agents(
        self, client: KubeClient, leadership: Leadership, agents: AgentClient, trust: AgentTrust | None
    ) -> None:
        settings, metrics = self._settings, self._metrics
        api = FencedAPI(client, metrics.written, leadership.fence)
        publisher = make_publisher(settings, api)
        fleet = make_fleet(settings, stores=self._stores, publisher=publisher, agents=agents, metrics=metrics)
        diagnostics = make_diagnostics(
            settings,
            api=api,
            store=self._stores.judged,
            publisher=publisher,
            fleet=fleet,
            warm=lambda: self._is_warm(fleet),
            stale=lambda: stuck(fleet.collector) or leadership.orphaned(),
            spans=self._spans.run,
        )
        reflectors = make_reflectors(settings, api=api, fleet=fleet, publisher=publisher, metrics=metrics)
        self._observe(publisher, diagnostics, fleet, reflectors, leadership)
        metrics.watch_collection(lambda: collect_stats(agents, fleet))
        keeper = make_keeper(settings, trust, api=api, leads=lambda: leadership.aggregates)
        try:
            if await self._learn(api, diagnostics, reflectors) and await self._believe(keeper):
                fleet.start()
                self._compete(client, leadership, fleet)
                await self._serve(api, leadership, publisher, diagnostics, fleet)
        finally:
            await leadership.resign()
            await self._supervisor.cancel_all()
            await fleet.collector.close()

    async def _learn(self, api: KubeAPI, diagnostics: Diagnostics, reflectors: Reflectors) -> bool:
        """Get all first lists; False when told to stop meanwhile."""
        if not await self._supervisor.or_stop(first_list(api, diagnostics.registry)):
            return False
        self._starting = "waiting for the first lists"
        for reflector in reflectors.all():
            self._supervisor.start(f"reflector of {reflector.resource}", reflector.run())
        return await self._supervisor.or_stop(reflectors.synced())

    async def _believe(self, keeper: Keeper | None) -> bool:
        """Know the agents' authorities before the first call; False: told to stop."""
        if keeper is None:
            return True
        self._metrics.registry.register(CertificateCollector(lambda: keeper.ends_at))
        if not await self._supervisor.or_stop(keeper.look()):
            return False
        self._supervisor.start("agent TLS", keep(keeper))
        return True

    def _compete(self, client: KubeClient, leadership: Leadership, fleet: Fleet) -> None:
        """Everything is known: hold what can be held."""
        self._starting = "waiting for a Lease"
        self._health.ready["start"] = lambda: self._starting if self._starting and not leadership.standby() else None
        if not self._settings.leader_elect:
            leadership.without_election()
            return

        def problem() -> str | None:
            return self._health.loop_problem() or stuck(fleet.collector)

        parts = leadership.compete(
            client, namespace=self._settings.namespace, timing=timing(self._settings), problem=problem
        )
        for name, part in parts.items():
            self._supervisor.start(f"Lease {name}", part)

    async def _serve(
        self, api: KubeAPI, leadership: Leadership, publisher: Publisher, diagnostics: Diagnostics, fleet: Fleet
    ) -> None:
        """Begin with what is taken, until the end."""
        taken: list[Claim] = []

        async def take() -> None:
            taken.append(await leadership.acquired.get())

        self._supervisor.start("publisher", publisher.run())
        while await self._supervisor.or_stop(take()):
            claim = taken.pop()
            self._warm_until = time.monotonic() + self._settings.unreachable_after + 2 * self._settings.node_timeout
            if claim.shard is not None:
                fleet.own(claim.shard)
                log.info("%d GPU nodes are known, %d to read first", len(fleet.discovery.targets), fleet.pending())
            if claim.aggregates:
                await self._begin_judging(api, diagnostics)
            self._starting = ""

    async def _begin_judging(self, api: KubeAPI, diagnostics: Diagnostics) -> None:
        """A standby's list may be old by now, and kopf does not tell what is gone."""
        if not await self._supervisor.or_stop(first_list(api, diagnostics.registry)):
            return
        log.info("%d GPUDiagnostics", len(diagnostics.registry))
        for name, part in diagnostics.running(api):
            self._supervisor.start(name, part)
        feed = KopfFeed(diagnostics.feed, kubeconfig=self._settings.kubeconfig)
        self._health.ready["kopf"] = lambda: None if feed.ready.is_set() else "kopf has not started yet"
        self._supervisor.start("kopf", feed.run())

    def _is_warm(self, fleet: Fleet) -> bool:
        """Every node was read once, or had its time: a restart must not show a fleet of Unknown nodes."""
        if not self._warm:
            pending = fleet.pending() if fleet.recalled is None else fleet.recalled.pending()
            if pending == 0 or time.monotonic() > self._warm_until:
                self._warm = True
                log.info("%d nodes are known; judging GPUDiagnostics", len(self._stores.judged))
        return self._warm

    def _observe(
        self,
        publisher: Publisher,
        parts: Diagnostics,
        fleet: Fleet,
        reflectors: Reflectors,
        leadership: Leadership,
    ) -> None:
        metrics, health = self._metrics, self._health
        health.role = leadership.role
        metrics.watch_leases(leadership.leading)
        metrics.watch_fleet(lambda: list(self._stores.own.all()) if leadership.any else None)
        metrics.watch_ages(
            lambda: {one.resource: one.last_event_age() for one in reflectors.all()},
            lambda: {one.resource: one.lag() for one in reflectors.all()},
        )
        health.ready["index"] = reflectors.problem
        metrics.watch_depth("gpunodes", lambda: len(publisher))
        metrics.watch_depth("gpudiagnostics", lambda: parts.writer.depth)
        health.live["collection"] = lambda: stuck(fleet.collector)
