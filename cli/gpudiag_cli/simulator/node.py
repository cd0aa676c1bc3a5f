"""One simulated node: its faults, who waits for news of it, and the answer its agent gives now.

The body is made when the state or the sample changes, not for each request, and a poll that ends in 304 needs none
at all: so 5,000 nodes in one process stay cheap.
"""

import asyncio
import gzip
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gpudiag_api.meaning import etag
from gpudiag_api.wire import Report, encode
from gpudiag_cli.simulator.faults import Fault, Injected
from gpudiag_cli.simulator.machines import Machine
from gpudiag_cli.simulator.report import NodeSpec, compose, with_telemetry

GZIP_FROM_BYTES = 1024
STALE_SECONDS = 600.0


@dataclass(frozen=True)
class Body:
    """A report as it travels; ``compressed`` is None below 1 KB."""

    plain: bytes
    compressed: bytes | None


class SimulatedNode:
    """A node and its agent; ``interval`` (seconds), ``vary`` and ``clock`` are explained at :class:`Fleet`."""

    etag: str
    """Weak ETag of what the agent says now."""

    def __init__(
        self,
        spec: NodeSpec,
        address: str,
        port: int,
        *,
        interval: float = 10.0,
        vary: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.spec = spec
        self.address = address
        """Where the agent listens: a loopback address of its own."""
        self.port = port
        self.faults: tuple[Injected, ...] = ()
        self.requests = 0
        """Requests that have reached the agent."""
        self._interval = interval
        self._vary = vary
        self._clock = clock
        self._jobs = 0
        self._sampled_at = 0.0
        self._blind_since: float | None = None
        self._body: tuple[float, Body] | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._gpus = spec.machine.gpus(spec.name)
        self._compose()

    @property
    def name(self) -> str:
        """Name of the node."""
        return self.spec.name

    @property
    def machine(self) -> Machine:
        """What the node is."""
        return self.spec.machine

    @property
    def url(self) -> str:
        """Scheme, address and port of the agent."""
        return f"http://{self.address}:{self.port}"

    @property
    def behaviour(self) -> Fault | None:
        """The misbehaviour that decides the answer now, if any."""
        return next((each.fault for each in reversed(self.faults) if each.fault.exclusive), None)

    @property
    def latency(self) -> float:
        """Seconds by which every answer is late."""
        return sum(each.latency for each in self.faults)

    # State -------------------------------------------------------------------------------------------------------

    def set_faults(self, faults: Iterable[Injected]) -> None:
        """Make these the faults of the node, and wake all who wait for a change."""
        self.faults = tuple(faults)
        # Without the driver there is no new sample: what was sampled before grows old.
        blind = any(each.fault in {Fault.DRIVER_HUNG, Fault.NO_DRIVER} for each in self.faults)
        self._blind_since = (self._blind_since or self.sample()) if blind else None
        self._compose()
        self._wake()

    def next_job(self) -> None:
        """Change the report's meaning without a fault: another job holds the first GPU."""
        self._jobs += 1
        self._compose()
        self._wake()

    async def changed(self, within: float | None = None) -> bool:
        """Wait for the next change of state, at most so many seconds; gives whether there was one."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            async with asyncio.timeout(within):
                await future
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(future)
        return True

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    # What the agent says -----------------------------------------------------------------------------------------

    def sample(self, *, fresh: bool = False) -> float:
        """Unix seconds of the sample that an answer given now rests on; ``fresh`` takes one first."""
        if self._blind_since is not None:
            return self._blind_since
        now = self._clock()
        if fresh or self._vary or now - self._sampled_at >= self._interval:
            self._sampled_at = now
        stale = any(each.fault is Fault.STALE for each in self.faults)
        return self._sampled_at - STALE_SECONDS if stale else self._sampled_at

    def report(self, sampled_at: float) -> Report:
        """The report of the sample taken then (Unix seconds)."""
        return with_telemetry(self._report, self.spec, self.faults, sampled_at)

    def body(self, sampled_at: float) -> Body:
        """That report as it travels."""
        if self._body is None or self._body[0] != sampled_at:
            plain = encode(self.report(sampled_at))
            # Level 1: better levels would make the simulator the bottleneck of what is measured with it.
            packed = gzip.compress(plain, compresslevel=1, mtime=0) if len(plain) > GZIP_FROM_BYTES else None
            self._body = (sampled_at, Body(plain, packed))
        return self._body[1]

    def _compose(self) -> None:
        self._report = compose(self.spec, self._gpus, self.faults, jobs=self._jobs, interval=self._interval)
        self.etag = etag(self._report)
        self._body = None
