"""A driver that hangs, dies or lies never takes the agent with it."""

import asyncio
import signal
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.nvml import frames
from gpudiag_agent.nvml.process import ChildDiedError
from gpudiag_agent.nvml.source import NVMLSource
from gpudiag_agent.sample import CallError, GPUSample, Sample
from gpudiag_api.vocabulary import Capability

GOOD = Sample(taken_at=1.0, gpus=(GPUSample(index=0, uuid="GPU-0", pci="0000:3b:00.0", model="H100", serial="s"),))
LOST = Sample(
    taken_at=2.0,
    gpus=(GPUSample(index=0, errors=(CallError(call="nvmlDeviceGetUUID", code=15, name="NVML_ERROR_GPU_IS_LOST"),)),),
)


class FakeChild:
    """A process whose behaviour is given: a list of samples, ``hang`` or ``die``; it may refuse to be killed."""

    def __init__(self, *answers: Sample | str, unkillable: bool = False, code: int = -signal.SIGKILL) -> None:
        self.pid = 4711
        self.answers = list(answers)
        self.unkillable = unkillable
        self.code = code
        self.kills = 0
        self.ended = asyncio.Event()

    async def sample(self) -> Sample:
        answer = self.answers.pop(0) if self.answers else "hang"
        if isinstance(answer, Sample):
            return answer
        if answer == "die":
            self.ended.set()
            raise ChildDiedError("end of file")
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    def kill(self) -> None:
        self.kills += 1
        if not self.unkillable:
            self.ended.set()

    async def wait(self) -> int:
        await self.ended.wait()
        return self.code


class Clock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Spawner:
    """Hands out children in order and counts them."""

    def __init__(self, *children: FakeChild) -> None:
        self.children = list(children)
        self.spawned = 0

    async def __call__(self) -> FakeChild:
        self.spawned += 1
        return self.children.pop(0)


Make = Callable[..., tuple[NVMLSource, Spawner, Clock]]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr("gpudiag_agent.nvml.source._START_SECONDS", 0.01)

    def build(*children: FakeChild) -> tuple[NVMLSource, Spawner, Clock]:
        spawner, clock = Spawner(*children), Clock()
        return NVMLSource(deadline=0.01, grace=0.01, spawn=spawner, monotonic=clock), spawner, clock

    return build


def reason(sample: Sample) -> Capability | None:
    return None if sample.fault is None else sample.fault.reason


async def test_one_child_serves_many_samples(make: Make) -> None:
    source, spawner, _ = make(FakeChild(GOOD, GOOD))
    assert await source.sample() == GOOD
    assert await source.sample() == GOOD
    assert spawner.spawned == 1


async def test_a_hung_call_is_killed_and_reported_as_a_hung_driver(make: Make) -> None:
    child = FakeChild("hang")
    source, _, _ = make(child)
    sample = await source.sample()
    assert reason(sample) is Capability.DRIVER_HUNG
    assert sample.gpus == ()
    assert child.kills == 1


async def test_a_killed_child_is_replaced_after_a_pause_that_grows(make: Make) -> None:
    source, spawner, clock = make(FakeChild("hang"), FakeChild("hang"), FakeChild(GOOD))
    await source.sample()
    clock.now += 0.9
    assert reason(await source.sample()) is Capability.DRIVER_HUNG
    assert spawner.spawned == 1
    clock.now += 0.2
    await source.sample()
    assert spawner.spawned == 2
    clock.now += 1.1
    await source.sample()
    assert spawner.spawned == 2
    clock.now += 1.0
    assert await source.sample() == GOOD


async def test_an_unkillable_child_is_abandoned_and_nothing_is_started_beside_it(make: Make) -> None:
    stuck = FakeChild("hang", unkillable=True)
    source, spawner, clock = make(stuck, FakeChild(GOOD))
    first = await source.sample()
    assert first.fault is not None
    assert "hangs in the kernel" in first.fault.message
    for _ in range(50):
        clock.now += 3600
        assert reason(await source.sample()) is Capability.DRIVER_HUNG
    assert spawner.spawned == 1
    stuck.ended.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await source.sample() == GOOD
    await source.close()


async def test_a_library_that_crashes_is_named_by_its_signal(make: Make) -> None:
    source, _, _ = make(FakeChild("die", code=-signal.SIGSEGV))
    sample = await source.sample()
    assert sample.fault is not None
    assert sample.fault.reason is Capability.DRIVER_HUNG
    assert "SIGSEGV" in sample.fault.message


async def test_a_cancelled_look_leaves_no_answer_for_the_next_one(make: Make) -> None:
    child = FakeChild("hang")
    source, spawner, _ = make(child, FakeChild(GOOD))
    source._deadline = 60
    looking = asyncio.ensure_future(source.sample())
    await asyncio.sleep(0)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert child.kills == 1
    assert await source.sample() == GOOD
    assert spawner.spawned == 2


async def test_a_process_that_cannot_be_started_is_a_fault_not_an_exception() -> None:
    async def refuse() -> FakeChild:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    sample = await NVMLSource(spawn=refuse).sample()
    assert sample.fault is not None
    assert "could not be started" in sample.fault.message


async def test_a_lost_gpu_keeps_the_identity_it_had(make: Make) -> None:
    source, _, _ = make(FakeChild(GOOD, LOST))
    await source.sample()
    gpu = (await source.sample()).gpus[0]
    assert (gpu.uuid, gpu.pci, gpu.serial) == ("GPU-0", "0000:3b:00.0", "s")
    assert gpu.lost


async def test_a_gpu_that_moved_to_another_index_does_not_lend_its_identity(make: Make) -> None:
    moved = Sample(taken_at=3.0, gpus=(LOST.gpus[0], GPUSample(index=1, uuid="GPU-0")))
    source, _, _ = make(FakeChild(GOOD, moved))
    await source.sample()
    assert (await source.sample()).gpus[0].uuid == ""


@given(st.binary(max_size=200))
def test_any_body_is_a_sample_or_a_frame_error(body: bytes) -> None:
    try:
        assert isinstance(frames.decode(body), Sample)
    except frames.FrameError:
        return


@given(st.binary(min_size=4, max_size=4))
def test_a_header_never_asks_for_more_than_the_bound(header: bytes) -> None:
    try:
        assert frames.body_length(header) <= frames.MAX_FRAME_BYTES
    except frames.FrameError:
        return


def test_a_sample_survives_the_pipe() -> None:
    frame = frames.encode(LOST)
    assert frames.body_length(frame[:4]) == len(frame) - 4
    assert frames.decode(frame[4:]) == LOST
    assert msgspec.structs.asdict(frames.decode(frame[4:]).gpus[0])["errors"] == LOST.gpus[0].errors
