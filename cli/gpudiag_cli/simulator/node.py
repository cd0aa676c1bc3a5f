"""One simulated node: its faults, who waits for news of it, and the answer its agent gives now.

The body is made when the state or the sample changes, not for each request, and a poll that ends in 304 needs none
at all: so 5,000 nodes in one process stay cheap.
"""

import asyncio
import gzip
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gpudiag_api.meaning import etag
from gpudiag_api.wire import GPU, Allocation, Report, encode
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


def travelling(plain: bytes) -> Body:
    """A body and, where that pays, its compressed form."""
    # Level 1: better levels would make the simulator the bottleneck of what is measured with it.
    packed = gzip.compress(plain, compresslevel=1, mtime=0) if len(plain) > GZIP_FROM_BYTES else None
    return Body(plain, packed)


class SimulatedNode:
    """A node and its agent; ``interval`` (seconds), ``vary``, ``seed``, ``clock``: see :class:`Fleet`."""

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
        seed: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.spec = spec
        self.address = address
        """Where the agent listens: a loopback address of its own."""
        self.port = port
        self.faults: tuple[Injected, ...] = ()
        self.requests = 0
        """Requests that have reached the agent."""
        self.connections = 0
        """Connections that were opened to it."""
        self.interval = interval
        """Seconds between two samples."""
        self._vary = vary
        self._clock = clock
        # Its own, so that what one node does depends on no other.
        self._random = random.Random(f"{seed}/{spec.name}")  # noqa: S311 (latencies)
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
        if any(each.fault.of_cluster and each.fault.ends_agent for each in self.faults):
            return Fault.REFUSE
        return next((each.fault for each in reversed(self.faults) if each.fault.exclusive), None)

    @property
    def gpus(self) -> tuple[GPU, ...]:
        """Its GPUs, as they were sold."""
        return self._gpus

    @property
    def boot(self) -> str:
        """The kernel's boot id."""
        return self._report.agent.boot_id

    def delay(self) -> float:
        """Seconds by which the next answer is late; drawn anew for each."""
        late = [each for each in self.faults if each.fault is Fault.LATENCY]
        latency = self.spec.latency + sum(each.latency for each in late)
        jitter = self.spec.jitter + sum(each.jitter for each in late)
        return max(0.0, latency + self._random.uniform(-jitter, jitter)) if latency or jitter else 0.0

    def slowness(self) -> float:
        """Seconds that a slow body takes."""
        return sum(each.latency for each in self.faults if each.fault is Fault.SLOW_BODY)

    def now(self) -> float:
        """Unix seconds."""
        return self._clock()

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
        if fresh or self._vary or now - self._sampled_at >= self.interval:
            self._sampled_at = now
        stale = any(each.fault is Fault.STALE for each in self.faults)
        return self._sampled_at - STALE_SECONDS if stale else self._sampled_at

    @property
    def allocations(self) -> tuple[Allocation, ...]:
        """Which containers hold which GPUs."""
        return self._report.allocations

    def report(self, sampled_at: float) -> Report:
        """The report of the sample taken then (Unix seconds)."""
        return with_telemetry(self._report, self.spec, self.faults, sampled_at)

    def body(self, sampled_at: float) -> Body:
        """That report as it travels."""
        if self._body is None or self._body[0] != sampled_at:
            self._body = (sampled_at, travelling(encode(self.report(sampled_at))))
        return self._body[1]

    def _compose(self) -> None:
        self._report = compose(self.spec, self._gpus, self.faults, jobs=self._jobs, interval=self.interval)
        self.etag = etag(self._report)
        self._body = None
