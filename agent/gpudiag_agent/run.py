"""Puts the parts together and runs them until a signal says stop."""

import asyncio
import contextlib
import functools
import logging
import signal
import socket
from collections.abc import Callable, Coroutine

from aiohttp import web

from gpudiag_agent import listening, patience, reporting
from gpudiag_agent.assess import Assessor
from gpudiag_agent.attribution import kubelet
from gpudiag_agent.attribution.model import Owner, Usage
from gpudiag_agent.attribution.poller import Attribution
from gpudiag_agent.attribution.processes import pids, rows
from gpudiag_agent.attribution.procfs import Resolver
from gpudiag_agent.auth.gate import Gate
from gpudiag_agent.auth.reviews import APIServer
from gpudiag_agent.checks.counters import Counters
from gpudiag_agent.checks.infiniband.baseline import PortBaseline
from gpudiag_agent.checks.nvlink.baseline import LinkBaseline
from gpudiag_agent.checks.registry import all_checks
from gpudiag_agent.clock import Clock, SystemClock
from gpudiag_agent.configuration import Configuration
from gpudiag_agent.host.reader import HostReader
from gpudiag_agent.host.watch import HostWatch
from gpudiag_agent.kernel_log import boot
from gpudiag_agent.kernel_log.decode import Decoder, KernelEvent
from gpudiag_agent.kernel_log.intake import Intake
from gpudiag_agent.kernel_log.memory import KernelLogMemory
from gpudiag_agent.kernel_log.parse import XIDLine
from gpudiag_agent.kernel_log.reader import KernelLogReader
from gpudiag_agent.kernel_log.record import Record, parse
from gpudiag_agent.nvml.event import NVMLEvent
from gpudiag_agent.nvml.events import NVMLEvents
from gpudiag_agent.options import Options
from gpudiag_agent.publisher import Publisher
from gpudiag_agent.recorder.history import History
from gpudiag_agent.sample import Source
from gpudiag_agent.sampler import Sampler
from gpudiag_agent.server.access_metrics import AccessMetrics
from gpudiag_agent.server.app import Server
from gpudiag_agent.server.details import Details
from gpudiag_agent.server.metrics import Metrics
from gpudiag_agent.serving import Serving
from gpudiag_agent.state.store import Section, StateStore
from gpudiag_api.version import __version__
from gpudiag_api.wire import AgentInfo, Report

_log = logging.getLogger(__name__)

_CATCH_UP = 1.0
"""Seconds that the first sample waits for kernel log and kubelet, so that the first report is complete."""
_CLOSE = 1.0
"""Seconds that a source has to let go; a child in D state is left behind."""

_KERNEL_LOG = "kernel-log"
"""The part of the memory with the cursor and the XIDs before it."""
_NOT_READ = "The kernel log is not read, as --kmsg and --journal are none: XID errors cannot be seen."


class Agent:
    """One node's agent.

    Args:
        options: what was asked for.
        source: where samples come from.
        clock: for every time and wait.
        watch_lines: runs for ever and passes on the kernel lines of a simulated node.
    """

    def __init__(
        self,
        options: Options,
        *,
        source: Source,
        clock: Clock | None = None,
        watch_lines: Callable[[Callable[[str], None]], Coroutine[None, None, None]] | None = None,
    ) -> None:
        self._options = options
        self._source = source
        self._clock = clock or SystemClock()
        self._watch_lines = watch_lines
        this_boot = boot.current()
        self._decoder = Decoder(this_boot, times=boot.KernelTimes())
        self._intake = Intake(boot_id=this_boot.id, now=self._clock.now, on_record=self._record, on_gap=self._remember)
        info = AgentInfo(
            version=__version__,
            node_name=options.node_name,
            boot_id=this_boot.id,
            source=options.source,
            sampling_interval_seconds=options.interval,
        )
        self._configuration = Configuration(options.config, clock=self._clock, on_change=self._configured)
        self._counters = Counters(this_boot.id)
        self._links = LinkBaseline(this_boot.id)
        self._ports = PortBaseline()
        self._assessor = Assessor(
            agent=info,
            checks=all_checks(
                options.interval,
                counters=self._counters,
                links=self._links,
                ports=self._ports,
                thresholds=self._configuration.thresholds,
            ),
            thresholds=self._configuration.thresholds,
        )
        self._publisher = Publisher()
        self._reader = self._kernel_log()
        if self._reader is None and options.source == "nvml":
            self._assessor.kernel_log_problem = _NOT_READ
        metrics = Metrics(
            assessor=self._assessor,
            publisher=self._publisher,
            clock=self._clock,
            lost_records=lambda: self._intake.lost_records,
            failed_state_writes=lambda: self._store.failed_writes,
            dcgm_host_label=None if options.dcgm_metrics == "off" else options.dcgm_metrics,
        )
        # Another life of the agent, another numbering of what it tells.
        history = History(interval=options.interval, epoch=f"{int(self._clock.now()):x}")
        self._sampler = Sampler(
            source=source,
            assessor=self._assessor,
            publisher=self._publisher,
            clock=self._clock,
            interval=options.interval,
            host=self._host() if options.source == "nvml" else None,
            observer=metrics,
            history=history,
        )
        details = Details(
            node_name=options.node_name,
            history=history,
            clock=self._clock,
            sample=lambda: self._assessor.sample,
            processes=lambda sample: rows(sample, self._attribution.usage.owners),
            gaps=lambda: [reporting.gap(gap) for gap in self._intake.gaps],
        )
        self._serving = Serving(options, clock=self._clock)
        access = AccessMetrics(self._serving, tokens=options.auth == "tokenreview")
        metrics.add(access)
        self._gate = self._guarded(access)
        self._server = Server(
            publisher=self._publisher,
            sampler=self._sampler,
            metrics=metrics,
            details=details,
            admit=None if self._gate is None else self._gate.admit,
            mutual=options.tls_client_auth == "require",
            anonymous=options.anonymous_paths,
            unready=self._serving.unready,
        )
        self._attribution = self._attributing(this_boot)
        self._store = self._memory()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Ask :meth:`run` to end."""
        self._stop.set()

    async def run(self, sock: socket.socket) -> None:
        """Serve on the socket until :meth:`stop`; raises what any part of the agent died of."""
        runner = web.AppRunner(
            self._server.application(),
            access_log=None,
            # A client that goes away frees its place among those who wait.
            handler_cancellation=True,
            shutdown_timeout=_CLOSE / 2,
            keepalive_timeout=300,
            **patience.NO_BODIES,
        )
        await self._store.restore()
        await runner.setup()
        listening_parts = await self._serving.start(runner, sock, self._server.probes())
        parts = [asyncio.create_task(part) for part in (*listening_parts, *self._parts())]
        stopping = asyncio.create_task(self._stopped())
        try:
            done, _ = await asyncio.wait({*parts, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._publisher.close()
            stopping.cancel()
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, stopping, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE):
                    await self._source.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE):
                    await self._store.close()
            if self._gate is not None:
                await self._gate.close()
            await self._serving.close()
            await runner.cleanup()
        for part in done - {stopping}:
            part.result()

    async def once(self) -> Report:
        """Look once, serve nothing, and let go of everything."""
        parts = [asyncio.create_task(part) for part in self._parts(looking=False)]
        try:
            await self._caught_up()
            await self._sampler.fresh()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await self._source.close()
        assert self._publisher.current is not None, "a look ends with a report"
        return self._publisher.current.report

    def _guarded(self, metrics: AccessMetrics) -> Gate | None:
        options = self._options
        if options.auth == "none" or options.api_server is None:
            return None
        audience = options.auth_audience
        return Gate(
            APIServer(options.api_server, folder=options.service_account_dir, audience=audience),
            allowed=options.allowed_service_accounts,
            scrapers=options.metrics_service_accounts,
            audience=audience,
            clock=self._clock,
            count=metrics.asked,
            count_review=metrics.reviewed,
        )

    async def _stopped(self) -> None:
        await self._stop.wait()

    def _parts(self, *, looking: bool = True) -> list[Coroutine[None, None, None]]:
        parts = [self._attribution.run(), self._configuration.watch()]
        if looking:
            parts.append(self._sample())
            if self._options.state_dir is not None:
                parts.append(self._store.run())
        if self._reader is not None:
            parts.append(self._reader.run())
        if self._options.nvml_events and looking:
            parts.append(NVMLEvents(on_event=self._nvml_event, clock=self._clock).run())
        if self._watch_lines is not None:
            parts.append(self._watch_lines(self._line))
        return parts

    async def _sample(self) -> None:
        await self._caught_up()
        await self._sampler.run()

    async def _caught_up(self) -> None:
        """Wait a moment for kernel log and kubelet."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_UP):
                if self._reader is not None:
                    await self._reader.caught_up.wait()
                await self._attribution.ready.wait()

    def _attributing(self, this_boot: boot.Boot) -> Attribution:
        options = self._options
        ask = None if options.pod_resources is None else functools.partial(kubelet.ask, options.pod_resources)
        resolver = None
        if options.source == "nvml":  # Simulated processes are nobody's.
            resolver = Resolver(
                clock=self._clock, booted_at=this_boot.started_at, proc=options.proc, pod_logs=options.pod_logs
            )
        return Attribution(
            ask=ask,
            resolver=resolver,
            pids=lambda: pids(self._assessor.sample),
            on_look=self._used,
            clock=self._clock,
            interval=options.interval,
        )

    def _used(self, usage: Usage) -> None:
        before, self._assessor.usage = self._assessor.usage, usage
        # Who runs where is judged with the next sample; who holds what is told at once.
        if (before.pods, before.pods_problem, before.owners_problem) != (
            usage.pods,
            usage.pods_problem,
            usage.owners_problem,
        ):
            self._sampler.refresh()

    def _host(self) -> HostWatch:
        options = self._options
        reader = HostReader(
            clock=self._clock,
            sysfs_pci=options.sysfs_pci,
            sysfs_infiniband=options.sysfs_infiniband,
            proc=options.proc,
        )
        return HostWatch(reader.scan, clock=self._clock)

    def _kernel_log(self) -> KernelLogReader | None:
        if self._options.kmsg is None and self._options.journal is None:
            return None
        return KernelLogReader(
            self._options.kmsg,
            journal=self._options.journal,
            intake=self._intake,
            clock=self._clock,
            on_change=self._log_changed,
        )

    def _memory(self) -> StateStore:
        store = StateStore(self._options.state_dir, clock=self._clock)
        store.register(Section(name="counters", dump=self._counters.dump, load=self._counters.load))
        store.register(Section(name="nvlinks", dump=self._links.dump, load=self._links.load))
        store.register(Section(name="infiniband", dump=self._ports.dump, load=self._ports.load))
        inventory = self._assessor.inventory
        store.register(Section(name="inventory", dump=inventory.dump, load=inventory.load))
        # A scenario tells its lines anew at every start.
        if self._reader is not None:
            kept = KernelLogMemory(
                intake=self._intake, decoder=self._decoder, history=self._assessor.ledger, now=self._clock.now
            )
            store.register(Section(name=_KERNEL_LOG, dump=kept.dump, load=kept.load))
        return store

    def _configured(self) -> None:
        self._assessor.thresholds_problem = self._configuration.problem
        self._sampler.refresh()

    def _log_changed(self) -> None:
        self._assessor.kernel_log_problem = self._reader.problem if self._reader else None
        self._sampler.refresh()

    def _line(self, line: str) -> None:
        record = parse(line.encode())
        if record is not None:
            self._record(record)

    def _record(self, record: Record) -> None:
        live = self._reader is not None and self._reader.caught_up.is_set()
        event = self._decoder.feed(record, self._clock.now(), live=live)
        if event is not None:
            self._sampler.heard(event, owner=self._owner(event), live=live)
            self._remember()

    def _owner(self, event: KernelEvent) -> Owner | None:
        """The process that an XID names, asked for at once: it may be gone in a moment."""
        if not isinstance(event.what, XIDLine) or event.what.process_id is None:
            return None
        self._attribution.refresh()
        return self._attribution.owner_of(event.what.process_id, at=event.at)

    def _nvml_event(self, event: NVMLEvent) -> None:
        self._assessor.ledger.hear_nvml(
            code=event.code,
            pci=event.pci,
            at=self._clock.now(),
            uuid=event.uuid or None,
            gpu_instance=event.gpu_instance,
            compute_instance=event.compute_instance,
        )
        self._sampler.refresh()
        self._remember()

    def _remember(self) -> None:
        self._store.mark(_KERNEL_LOG)


def make(options: Options) -> Agent:
    """An agent with the source that was asked for.

    Raises:
        ScenarioError: the scenario cannot be used.
        ConfigurationError: the thresholds cannot be used.
    """
    clock = SystemClock()
    if options.source == "simulated":
        from gpudiag_agent.simulated import scenario  # noqa: PLC0415 - only one source is ever loaded
        from gpudiag_agent.simulated.source import SimulatedSource  # noqa: PLC0415

        path = scenario.find(options.scenario or scenario.DEFAULT)
        simulated = SimulatedSource(path, node_name=options.node_name, clock=clock)
        return Agent(options, source=simulated, clock=clock, watch_lines=simulated.watch)
    from gpudiag_agent.nvml.source import NVMLSource  # noqa: PLC0415

    return Agent(options, source=NVMLSource(), clock=clock)


async def serve(options: Options, sock: socket.socket) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Raises:
        ScenarioError: the scenario cannot be used.
        ConfigurationError: the thresholds cannot be used.
    """
    agent = make(options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    where = listening.url(sock, tls=options.tls_cert_dir is not None)
    _log.info("serving", extra={"url": where, "node": options.node_name, "version": __version__})
    if not listening.is_loopback(options.host) and (options.tls_cert_dir is None or options.auth == "none"):
        lacks = [*(["TLS"] if options.tls_cert_dir is None else []), *(["tokens"] if options.auth == "none" else [])]
        _log.warning("served without %s on an address others can reach", " and ".join(lacks), extra={"url": where})
    await agent.run(sock)
    _log.info("stopped")
