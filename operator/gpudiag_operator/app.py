"""The whole operator: starts and stops the parts that :mod:`.wiring` makes.

Order of the start: the server for health and metrics, so that probes see a start that takes long; the first list of
GPUDiagnostics, which waits for API server and kinds; the reflectors; then, with complete lists at hand, discovery,
collection and judging; kopf last, since its feed only repeats what the first list said.

A Lease for several replicas belongs between the reflectors and discovery: a standby may know, only the leader calls
agents and writes.
"""

import asyncio
import gc
import logging
import time
from typing import Any

from gpudiag_operator.collect.agent_client import AgentClient
from gpudiag_operator.collect.resources import raise_open_files
from gpudiag_operator.counted import CountedAPI
from gpudiag_operator.diagnostics.feed import KopfFeed
from gpudiag_operator.diagnostics.sync import first_list
from gpudiag_operator.fleet import Fleet
from gpudiag_operator.kube.access import Access, load_access
from gpudiag_operator.kube.api import KubeAPI
from gpudiag_operator.kube.client import KubeClient
from gpudiag_operator.observability import logs
from gpudiag_operator.observability.health import Health
from gpudiag_operator.observability.http import Server
from gpudiag_operator.observability.metrics import Metrics
from gpudiag_operator.publish.publisher import Publisher
from gpudiag_operator.settings import Settings
from gpudiag_operator.store import MemoryNodeStore
from gpudiag_operator.supervisor import PartDiedError, Supervisor
from gpudiag_operator.wiring import (
    Diagnostics,
    Reflectors,
    collect_settings,
    make_diagnostics,
    make_fleet,
    make_publisher,
    make_reflectors,
    stuck,
)

log = logging.getLogger(__name__)

ACCESS_SECONDS = 3.0


def run(settings: Settings) -> int:
    """Run the operator; gives the exit status: 0 when told to stop, 1 when a part died."""
    logs.configure(level=settings.log_level, json=settings.log_format == "json")
    raise_open_files()
    # Imports are for good: the collector of garbage need not look at them again and again.
    gc.freeze()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(Operator(settings).run())
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

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._health = Health()
        self._store = MemoryNodeStore()
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
        try:
            await self._with_api()
        except PartDiedError as error:
            log.critical("%s; exiting, to be started again", error, exc_info=error.__cause__)
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
        async with KubeClient(access) as client:
            api = CountedAPI(client, self._metrics.written)
            agents = AgentClient(collect_settings(self._settings))
            try:
                await self._with_agents(api, agents)
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

    async def _with_agents(self, api: KubeAPI, agents: AgentClient) -> None:
        settings, metrics = self._settings, self._metrics
        publisher = make_publisher(settings, api)
        fleet = make_fleet(settings, store=self._store, publisher=publisher, agents=agents, metrics=metrics)
        diagnostics = make_diagnostics(
            settings,
            api=api,
            store=self._store,
            publisher=publisher,
            fleet=fleet,
            warm=lambda: self._is_warm(fleet),
        )
        reflectors = make_reflectors(settings, api=api, fleet=fleet, metrics=metrics)
        self._observe(publisher, diagnostics, fleet, reflectors)
        try:
            if await self._learn(api, diagnostics, reflectors):
                await self._serve(api, publisher, diagnostics, fleet)
        finally:
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

    async def _serve(self, api: KubeAPI, publisher: Publisher, diagnostics: Diagnostics, fleet: Fleet) -> None:
        """Everything is known: act on it until the end."""
        self._warm_until = time.monotonic() + self._settings.unreachable_after + 2 * self._settings.node_timeout
        fleet.start()
        self._starting = ""
        log.info("%d GPU nodes to read, %d GPUDiagnostics", len(fleet.discovery.targets), len(diagnostics.registry))
        self._supervisor.start("publisher", publisher.run())
        for name, part in diagnostics.running(api):
            self._supervisor.start(name, part)
        feed = KopfFeed(diagnostics.feed, kubeconfig=self._settings.kubeconfig)
        self._health.ready["kopf"] = lambda: None if feed.ready.is_set() else "kopf has not started yet"
        self._supervisor.start("kopf", feed.run())
        await self._supervisor.run_until()

    def _is_warm(self, fleet: Fleet) -> bool:
        """Every node was read once, or had its time: a restart must not show a fleet of Unknown nodes."""
        if not self._warm and (fleet.pending() == 0 or time.monotonic() > self._warm_until):
            self._warm = True
            log.info("%d nodes are known; judging GPUDiagnostics", len(self._store))
        return self._warm

    def _observe(self, publisher: Publisher, parts: Diagnostics, fleet: Fleet, reflectors: Reflectors) -> None:
        metrics, health = self._metrics, self._health
        metrics.watch_fleet(lambda: list(self._store.all()))
        metrics.watch_ages(lambda: {one.resource: one.last_event_age() for one in reflectors.all()})
        metrics.watch_depth("gpunodes", lambda: len(publisher))
        metrics.watch_depth("gpudiagnostics", lambda: parts.writer.depth)
        health.live["collection"] = lambda: stuck(fleet.collector)
