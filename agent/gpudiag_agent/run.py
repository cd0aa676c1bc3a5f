"""Puts the parts together and runs them until a signal says stop."""

import asyncio
import contextlib
import functools
import logging
import signal
import socket
from collections.abc import Callable, Coroutine

from aiohttp import web

from gpudiag_agent import listening, pci_bus
from gpudiag_agent.assess import Assessor
from gpudiag_agent.checks.registry import all_checks
from gpudiag_agent.clock import Clock, SystemClock
from gpudiag_agent.kernel_log import boot
from gpudiag_agent.kernel_log.decode import Decoder
from gpudiag_agent.kernel_log.reader import KernelLogReader
from gpudiag_agent.kernel_log.record import Record, parse
from gpudiag_agent.options import Options
from gpudiag_agent.publisher import Publisher
from gpudiag_agent.sample import Source
from gpudiag_agent.sampler import Sampler
from gpudiag_agent.server.app import Server
from gpudiag_agent.server.metrics import Metrics
from gpudiag_api.version import __version__
from gpudiag_api.wire import AgentInfo

_log = logging.getLogger(__name__)

_CATCH_UP = 1.0
"""Seconds that the first sample waits for the kernel log of this boot, so that the first report is complete."""
_CLOSE = 1.0
"""Seconds that a source has to let go; a child in D state is left behind."""


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
        self._decoder = Decoder(this_boot)
        info = AgentInfo(
            version=__version__,
            node_name=options.node_name,
            boot_id=this_boot.id,
            source=options.source,
            sampling_interval_seconds=options.interval,
        )
        self._assessor = Assessor(agent=info, checks=all_checks(options.interval))
        self._publisher = Publisher()
        self._reader = self._kernel_log()
        metrics = Metrics(
            assessor=self._assessor,
            publisher=self._publisher,
            clock=self._clock,
            lost_records=lambda: self._reader.lost_records if self._reader else 0,
        )
        scan = functools.partial(pci_bus.scan, options.sysfs_pci) if options.source == "nvml" else None
        self._sampler = Sampler(
            source=source,
            assessor=self._assessor,
            publisher=self._publisher,
            clock=self._clock,
            interval=options.interval,
            scan_pci=scan,
            observer=metrics,
        )
        self._server = Server(publisher=self._publisher, sampler=self._sampler, metrics=metrics)
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
        )
        await runner.setup()
        await web.SockSite(runner, sock).start()
        parts = [asyncio.create_task(part) for part in self._parts()]
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
            await runner.cleanup()
        for part in done - {stopping}:
            part.result()

    async def _stopped(self) -> None:
        await self._stop.wait()

    def _parts(self) -> list[Coroutine[None, None, None]]:
        parts = [self._sample()]
        if self._reader is not None:
            parts.append(self._reader.run())
        if self._watch_lines is not None:
            parts.append(self._watch_lines(self._line))
        return parts

    async def _sample(self) -> None:
        if self._reader is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CATCH_UP):
                    await self._reader.caught_up.wait()
        await self._sampler.run()

    def _kernel_log(self) -> KernelLogReader | None:
        if self._options.kmsg is None:
            return None
        return KernelLogReader(
            self._options.kmsg, clock=self._clock, on_record=self._record, on_change=self._log_changed
        )

    def _log_changed(self) -> None:
        self._assessor.kernel_log_problem = self._reader.problem if self._reader else None
        self._sampler.refresh()

    def _line(self, line: str) -> None:
        record = parse(line.encode())
        if record is not None:
            self._record(record)

    def _record(self, record: Record) -> None:
        event = self._decoder.feed(record, self._clock.now())
        if event is not None:
            self._sampler.heard(event)


async def serve(options: Options, sock: socket.socket) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Raises:
        ScenarioError: the scenario cannot be used.
    """
    clock = SystemClock()
    if options.source == "simulated":
        from gpudiag_agent.simulated import scenario  # noqa: PLC0415 - only one source is ever loaded
        from gpudiag_agent.simulated.source import SimulatedSource  # noqa: PLC0415

        path = scenario.find(options.scenario or scenario.DEFAULT)
        simulated = SimulatedSource(path, node_name=options.node_name, clock=clock)
        agent = Agent(options, source=simulated, clock=clock, watch_lines=simulated.watch)
    else:
        from gpudiag_agent.nvml.source import NVMLSource  # noqa: PLC0415

        agent = Agent(options, source=NVMLSource(), clock=clock)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    where = listening.url(sock)
    _log.info("serving", extra={"url": where, "node": options.node_name, "version": __version__})
    if not listening.is_loopback(options.host):
        _log.warning("plain HTTP without authentication on an address others can reach", extra={"url": where})
    await agent.run(sock)
    _log.info("stopped")
