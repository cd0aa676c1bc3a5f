"""Sampling: one look at a time, kernel lines that wait for nobody, waiters that wake when the meaning changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gpudiag_agent.assess import Assessor
from gpudiag_agent.checks.registry import all_checks
from gpudiag_agent.clock import ManualClock
from gpudiag_agent.kernel_log.decode import KernelEvent
from gpudiag_agent.kernel_log.parse import XIDLine
from gpudiag_agent.publisher import MAX_WAITERS, Publisher, TooManyWaitersError
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_agent.sampler import Sampler
from gpudiag_api.wire import AgentInfo


class Source:
    """Gives samples when the test says so."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.gate = asyncio.Event()
        self.gate.set()
        self.looks = 0
        self.fails = False
        self.ecc = 0

    async def sample(self) -> Sample:
        self.looks += 1
        await self.gate.wait()
        if self.fails:
            raise RuntimeError("a bug of the agent")
        gpu = GPUSample(index=0, uuid="GPU-0", pci="0000:3b:00.0", ecc_uncorrected_volatile=self.ecc)
        return Sample(taken_at=self.clock.now(), gpus=(gpu,))

    async def close(self) -> None: ...


class Rig:
    """A sampler with everything around it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.source = Source(self.clock)
        self.publisher = Publisher()
        assessor = Assessor(agent=AgentInfo(version="1", node_name="n"), checks=all_checks(10))
        self.sampler = Sampler(
            source=self.source,
            assessor=assessor,
            publisher=self.publisher,
            clock=self.clock,
            interval=10,
        )

    @property
    def etag(self) -> str:
        assert self.publisher.current is not None
        return self.publisher.current.etag

    async def settle(self, looks: int) -> None:
        async with asyncio.timeout(5):
            while self.source.looks < looks or self.publisher.current is None:
                await asyncio.sleep(0.001)
            await self.sampler.fresh()
            while not self.clock.sleeping:  # else the clock is turned before the loop looks at it
                await asyncio.sleep(0)

    def xid(self, number: int, code: int = 48) -> None:
        line = XIDLine(code=code, pci="0000:3b:00.0", message="x")
        self.sampler.heard(KernelEvent(id=f"b/{number}", at=self.clock.now(), what=line))


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    task = asyncio.create_task(rig.sampler.run())
    try:
        yield rig
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_looks_every_interval() -> None:
    async with running(Rig()) as rig:
        await rig.settle(1)
        for look in (2, 3):
            await asyncio.sleep(0.01)
            rig.clock.advance(9.9)
            await asyncio.sleep(0.01)
            assert rig.source.looks == look - 1
            rig.clock.advance(0.1)
            await rig.settle(look)


async def test_fresh_looks_are_shared_and_at_most_one_a_second() -> None:
    rig = Rig()
    rig.source.gate.clear()
    asked = [asyncio.create_task(rig.sampler.fresh()) for _ in range(20)]
    await asyncio.sleep(0.01)
    rig.source.gate.set()
    await asyncio.gather(*asked)
    await rig.sampler.fresh()
    assert rig.source.looks == 1
    rig.clock.advance(1)
    await rig.sampler.fresh()
    assert rig.source.looks == 2


async def test_a_client_that_gives_up_does_not_end_the_look_of_others() -> None:
    rig = Rig()
    rig.source.gate.clear()
    impatient, patient = (asyncio.create_task(rig.sampler.fresh()) for _ in range(2))
    await asyncio.sleep(0.01)
    impatient.cancel()
    await asyncio.sleep(0)
    rig.source.gate.set()
    await patient
    assert rig.publisher.current is not None


async def test_a_kernel_line_does_not_wait_for_a_hung_driver() -> None:
    async with running(Rig()) as rig:
        await rig.settle(1)
        before = rig.etag
        rig.source.gate.clear()
        rig.clock.advance(10)
        waiting = asyncio.create_task(rig.publisher.wait_for_change(5))
        async with asyncio.timeout(5):
            while rig.source.looks < 2:
                await asyncio.sleep(0)
        rig.xid(1)
        async with asyncio.timeout(0.2):
            await waiting
        assert rig.etag != before
        assert rig.source.looks == 2


async def test_a_source_that_never_answers_is_a_hung_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpudiag_agent.sampler.SOURCE_DEADLINE", 0.01)
    rig = Rig()
    rig.source.gate.clear()
    await rig.sampler.fresh()
    assert rig.publisher.current is not None
    assert [gap.reason for gap in rig.publisher.current.report.capabilities] == ["DriverHung"]


async def test_the_agents_own_bug_is_no_verdict_and_grows_old(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    await rig.sampler.fresh()
    before = rig.publisher.current
    assert before is not None
    rig.source.fails = True
    rig.clock.advance(60)
    await rig.sampler.fresh()
    assert rig.publisher.current is not None
    assert rig.etag == before.etag
    assert rig.publisher.current.report.sampled_at == before.report.sampled_at
    assert "sampling failed" in caplog.text


async def test_only_a_change_of_meaning_wakes_those_who_wait() -> None:
    rig = Rig()
    await rig.sampler.fresh()
    waiting = asyncio.create_task(rig.publisher.wait_for_change(5))
    rig.clock.advance(1)
    await rig.sampler.fresh()
    assert not waiting.done()
    rig.source.ecc = 1
    rig.clock.advance(1)
    await rig.sampler.fresh()
    await waiting
    assert rig.publisher.waiting == 0


async def test_waiting_ends_by_itself_and_is_bounded() -> None:
    publisher = Publisher()
    await publisher.wait_for_change(0.01)
    waiting = [asyncio.create_task(publisher.wait_for_change(5)) for _ in range(MAX_WAITERS)]
    await asyncio.sleep(0.01)
    with pytest.raises(TooManyWaitersError):
        await publisher.wait_for_change(5)
    waiting[0].cancel()
    await asyncio.sleep(0.01)
    assert publisher.waiting == MAX_WAITERS - 1
    publisher.close()
    await asyncio.gather(*waiting[1:])
    await publisher.wait_for_change(5)
