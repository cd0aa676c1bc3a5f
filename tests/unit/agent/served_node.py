"""A served node whose samples a test chooses: the agent's HTTP side over a real socket."""

import asyncio

import aiohttp
import msgspec

from gpudiag_agent.assess import Assessor
from gpudiag_agent.attribution.processes import rows
from gpudiag_agent.checks.registry import all_checks
from gpudiag_agent.clock import ManualClock
from gpudiag_agent.kernel_log.decode import KernelEvent
from gpudiag_agent.kernel_log.parse import XIDLine
from gpudiag_agent.publisher import Publisher
from gpudiag_agent.recorder.history import History
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_agent.sampler import Sampler
from gpudiag_agent.server.app import Server
from gpudiag_agent.server.details import Details
from gpudiag_agent.server.metrics import Metrics
from gpudiag_api import wire
from gpudiag_api.wire import AgentInfo

GPU = GPUSample(
    index=3,
    uuid="GPU-3",
    pci="0000:3b:00.0",
    model="NVIDIA H100 80GB HBM3",
    temperature_celsius=41,
    power_milliwatts=212_500,
    utilization_percent=50,
    memory_used_bytes=7,
    ecc_uncorrected_volatile=0,
    ecc_corrected_volatile=4,
)


class Node:
    """A served node whose samples the test chooses."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.next = Sample(taken_at=0, driver_version="570", gpus=(GPU,))
        self.looks = 0
        self.publisher = Publisher()
        assessor = Assessor(agent=AgentInfo(version="0.1.0", node_name="n"), checks=all_checks(10))
        metrics = Metrics(assessor=assessor, publisher=self.publisher, clock=self.clock, lost_records=lambda: 2)
        history = History(interval=10, epoch="e")
        self.sampler = Sampler(
            source=self,
            assessor=assessor,
            publisher=self.publisher,
            clock=self.clock,
            interval=10,
            observer=metrics,
            history=history,
        )
        details = Details(
            node_name="n",
            history=history,
            clock=self.clock,
            sample=lambda: assessor.sample,
            processes=lambda sample: rows(sample, {}),
            gaps=lambda: self.gaps,
        )
        self.gaps: tuple[wire.KernelLogGap, ...] = ()
        self.metrics = metrics
        self.server = Server(publisher=self.publisher, sampler=self.sampler, metrics=metrics, details=details)
        self.application = self.server.application()
        self.url = ""
        self.client: aiohttp.ClientSession

    async def sample(self) -> Sample:
        self.looks += 1
        return msgspec.structs.replace(self.next, taken_at=self.clock.now())

    async def close(self) -> None: ...

    async def look(self, **values: object) -> None:
        if values:
            self.next = msgspec.structs.replace(self.next, gpus=(msgspec.structs.replace(GPU, **values),))
        self.clock.advance(1)
        await self.sampler.fresh()

    def xid(self, number: int) -> None:
        line = XIDLine(code=31, pci="0000:3b:00.0", message="x", process_name=f"p{number}")
        self.sampler.heard(KernelEvent(id=f"b/{number}", at=self.clock.now(), what=line))

    async def get(self, path: str, method: str = "GET", **headers: str) -> tuple[aiohttp.ClientResponse, bytes]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.request(method, self.url + path, headers=sent) as answer:
            return answer, await answer.read()

    async def waiting(self, count: int) -> None:
        async with asyncio.timeout(5):
            while self.publisher.waiting != count:
                await asyncio.sleep(0.001)
