"""The loop that looks at the GPUs, and the one place where new knowledge becomes a report.

Two things arrive independently: samples, every interval, and kernel events, whenever they happen. A kernel event is
judged against the latest sample at once; it never waits for the next one, which a hung driver may withhold.
"""

import asyncio
import contextlib
import logging
from typing import Protocol

from gpudiag_agent.assess import Assessor
from gpudiag_agent.attribution.model import Owner
from gpudiag_agent.clock import Clock
from gpudiag_agent.host.watch import HostWatch
from gpudiag_agent.kernel_log.decode import KernelEvent
from gpudiag_agent.publisher import Publisher
from gpudiag_agent.recorder.history import History
from gpudiag_agent.sample import Sample, Source, SourceFault
from gpudiag_api import durations
from gpudiag_api.vocabulary import Capability

_log = logging.getLogger(__name__)

FRESH_PERIOD = 1.0
"""Seconds: ``?fresh=true`` never samples more often than this."""
SOURCE_DEADLINE = 30.0
"""Seconds after which a source that breaks its own deadline is called hung. Sources are much faster than that."""
_COALESCE = 0.02
"""Seconds in which kernel events are judged together: a storm of lines is one report, well within 0.2 s."""


class SampleObserver(Protocol):
    """Who wants to know how sampling goes (the metrics)."""

    def sampled(self, seconds: float, sample: Sample | None) -> None:
        """A sample finished after that long; None: the source failed in a way it should not."""
        ...


class Sampler:
    """Looks every interval and on demand, one look at a time.

    Args:
        source: where samples come from.
        assessor: makes reports of them.
        publisher: takes the reports.
        clock: for waits and times.
        interval: seconds between two looks.
        host: looks at the node beside its GPUs; None: not consulted.
        observer: told about every sample.
        history: remembers samples and reports.
    """

    def __init__(
        self,
        *,
        source: Source,
        assessor: Assessor,
        publisher: Publisher,
        clock: Clock,
        interval: float,
        host: HostWatch | None = None,
        observer: SampleObserver | None = None,
        history: History | None = None,
    ) -> None:
        self._source = source
        self._assessor = assessor
        self._publisher = publisher
        self._clock = clock
        self._interval = interval
        self._host = host
        self._observer = observer
        self._history = history
        self._flight: asyncio.Task[None] | None = None
        self._started_at = float("-inf")
        self._due: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Look every interval until cancelled."""
        try:
            while True:
                began = self._clock.monotonic()
                await self._join()
                spent = self._clock.monotonic() - began
                # A slow driver is not asked without a pause.
                await self._clock.sleep(max(self._interval - spent, self._interval / 10))
        finally:
            if self._due is not None:
                self._due.cancel()
            if self._flight is not None:
                self._flight.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._flight

    async def fresh(self) -> None:
        """Return after a look that is at most a second old: joins one in flight, starts one where there is none."""
        if not self._in_flight() and self._clock.monotonic() - self._started_at < FRESH_PERIOD:
            return
        await self._join()

    def heard(self, event: KernelEvent, *, owner: Owner | None = None, live: bool = False) -> None:
        """Take a kernel event, see :meth:`Assessor.heard`; it is in the report within milliseconds."""
        self._assessor.heard(event, owner=owner, live=live)
        self.refresh()

    def refresh(self) -> None:
        """Judge again soon, with what is known by then."""
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(_COALESCE, self._evaluate)

    def _in_flight(self) -> bool:
        return self._flight is not None and not self._flight.done()

    async def _join(self) -> None:
        if self._flight is None or self._flight.done():
            self._started_at = self._clock.monotonic()
            self._flight = asyncio.create_task(self._look(), name="sample")
        # Shielded: a client that gives up must not end the look that others wait for.
        await asyncio.shield(self._flight)

    async def _look(self) -> None:
        began = self._clock.monotonic()
        sample = None
        try:
            sample = await self._take()
            seen = await self._host.look() if self._host is not None else None
            self._assessor.sampled(sample, host=seen)
            if self._history is not None and self._assessor.sample is not None:
                self._history.sampled(self._assessor.sample)
        except Exception:  # noqa: BLE001 - see below
            # The agent's own fault: the last report stays and grows visibly old. It is no verdict about a GPU.
            _log.exception("sampling failed")
            self._assessor.standings.failed()
        if self._observer is not None:
            self._observer.sampled(self._clock.monotonic() - began, sample)
        self._evaluate()

    async def _take(self) -> Sample:
        try:
            async with asyncio.timeout(SOURCE_DEADLINE):
                return await self._source.sample()
        except TimeoutError:
            message = f"The driver gave no answer within {durations.format(SOURCE_DEADLINE)}: it hangs."
            return Sample(taken_at=self._clock.now(), fault=SourceFault(Capability.DRIVER_HUNG, message))

    def _evaluate(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        try:
            report = self._assessor.report(self._clock.now())
        except Exception:  # noqa: BLE001 - see below
            # One bad line of the kernel log must not end sampling, and what was published still holds.
            _log.exception("judging failed")
            self._assessor.standings.failed()
            return
        if report is not None:
            self._publisher.publish(report)
            if self._history is not None:
                self._history.reported(report, self._clock.now())
