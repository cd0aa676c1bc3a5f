"""A driver that hangs, dies or lies never takes the agent with it."""

import asyncio
import signal
from collections.abc import Callable
from unittest.mock import ANY

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.nvml import frames
from gpudiag_agent.nvml.process import ChildDiedError
from gpudiag_agent.nvml.source import NVMLSource
from gpudiag_agent.sample import CallError, GPUSample, Sample, SourceFault
from gpudiag_api.vocabulary import Capability

GOOD = Sample(taken_at=1.0, gpus=(GPUSample(index=0, uuid="GPU-0", pci="0000:3b:00.0", model="H100", serial="s"),))
LOST = Sample(
    taken_at=2.0,
    gpus=(GPUSample(index=0, errors=(CallError(call="nvmlDeviceGetUUID", code=15, name="NVML_ERROR_GPU_IS_LOST"),)),),
)


class FakeChild:
    """A process whose behaviour is given: samples, ``hang``, ``die`` or ``babble``; it may refuse to be killed."""

    def __init__(
        self, *answers: Sample | str, unkillable: bool = False, code: int = -signal.SIGKILL, starts: bool = True
    ) -> None:
        self.pid = 4711
        self.answers = list(answers)
        self.unkillable = unkillable
        self.code = code
        self.starts = starts
        self.kills = 0
        self.deaf = False
        self.requests: list[bool] = []
        self.asked = asyncio.Event()
        self.end = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self.end.is_set()

    async def ready(self) -> None:
        if not self.starts:
            await asyncio.Event().wait()

    async def sample(self, *, full: bool) -> Sample:
        self.requests.append(full)
        self.asked.set()
        answer = self.answers.pop(0) if self.answers else "hang"
        if isinstance(answer, Sample):
            return answer
        if answer == "die":
            self.end.set()
        if answer == "babble":
            self.deaf = True
            raise ChildDiedError("no frame")
        await self.end.wait()
        raise ChildDiedError("end of file")

    def release(self) -> None:
        if not (self.unkillable or self.deaf):
            self.end.set()

    def kill(self) -> None:
        self.kills += 1
        if not self.unkillable:
            self.end.set()

    async def wait(self) -> int:
        await self.end.wait()
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
def make() -> Make:
    def build(*children: FakeChild, deadline: float = 0.01) -> tuple[NVMLSource, Spawner, Clock]:
        spawner, clock = Spawner(*children), Clock()
        source = NVMLSource(deadline=deadline, start_deadline=0.01, grace=0.01, spawn=spawner, monotonic=clock)
        return source, spawner, clock

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
    assert source.abandoned
    for _ in range(50):
        clock.now += 3600
        assert await source.sample() == msgspec.structs.replace(first, taken_at=ANY)
    assert (spawner.spawned, stuck.kills) == (1, 1)
    stuck.end.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not source.abandoned
    assert await source.sample() == GOOD
    await source.close()


async def test_looks_at_an_abandoned_child_end_at_once(make: Make) -> None:
    source, _, _ = make(FakeChild("hang", unkillable=True))
    await source.sample()
    source._deadline = source._grace = 60.0
    async with asyncio.timeout(1):
        assert reason(await source.sample()) is Capability.DRIVER_HUNG
    await source.close()


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT])
async def test_a_library_that_crashes_is_named_by_its_signal(number: signal.Signals, make: Make) -> None:
    source, _, _ = make(FakeChild("die", code=-number))
    sample = await source.sample()
    assert sample.fault is not None
    assert sample.fault.reason is Capability.DRIVER_HUNG
    assert number.name in sample.fault.message


@pytest.mark.parametrize(
    ("code", "words"),
    [(-signal.SIGKILL, "memory limit"), (1, "exit code 1"), (0, "end of file"), (-32, "signal 32")],
)
async def test_an_end_that_is_not_the_drivers_does_not_accuse_the_driver(code: int, words: str, make: Make) -> None:
    source, _, _ = make(FakeChild("die", code=code))
    sample = await source.sample()
    assert sample.fault is not None
    assert sample.fault.reason is Capability.PERMISSION_DENIED
    assert words in sample.fault.message


async def test_a_child_that_talks_nonsense_is_killed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpudiag_agent.nvml.source._FAREWELL_SECONDS", 0.01)
    babbling = FakeChild("babble")
    source, _, _ = make(babbling)
    sample = await source.sample()
    assert sample.fault is not None
    assert sample.fault.reason is Capability.PERMISSION_DENIED
    assert "answered nonsense and was killed (no frame)" in sample.fault.message
    assert babbling.kills == 1


async def test_a_child_that_does_not_start_does_not_accuse_the_driver(make: Make) -> None:
    slow = FakeChild(starts=False)
    source, _, _ = make(slow)
    sample = await source.sample()
    assert sample.fault is not None
    assert sample.fault.reason is Capability.PERMISSION_DENIED
    assert "did not start within 0.01 s" in sample.fault.message
    assert slow.kills == 1


async def test_the_first_look_is_a_full_one_and_may_take_twice_as_long(make: Make) -> None:
    child = FakeChild(GOOD, GOOD, "hang")
    source, _, _ = make(child)
    await source.sample()
    await source.sample()
    quick = await source.sample()
    assert child.requests == [True, False, False]
    assert quick.fault is not None
    assert "within 0.01 s" in quick.fault.message
    source, _, _ = make(FakeChild("hang"))
    full = await source.sample()
    assert full.fault is not None
    assert "within 0.02 s" in full.fault.message


async def test_a_cancelled_look_leaves_no_answer_for_the_next_one(make: Make) -> None:
    child = FakeChild("hang")
    source, spawner, _ = make(child, FakeChild(GOOD), deadline=60)
    await cancel_a_look(source, child)
    assert child.kills == 1
    assert await source.sample() == GOOD
    assert spawner.spawned == 2


async def test_a_cancelled_look_at_an_unkillable_child_still_abandons_it(make: Make) -> None:
    stuck = FakeChild("hang", unkillable=True)
    source, spawner, _ = make(stuck, FakeChild(GOOD), deadline=60)
    await cancel_a_look(source, stuck)
    sample = await source.sample()
    assert sample.fault is not None
    assert sample.fault.reason is Capability.DRIVER_HUNG
    assert "did not answer within 120 s" in sample.fault.message
    assert source.abandoned
    assert spawner.spawned == 1
    await source.close()


async def cancel_a_look(source: NVMLSource, child: FakeChild) -> None:
    looking = asyncio.ensure_future(source.sample())
    await child.asked.wait()
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking


async def test_two_callers_share_one_child(make: Make) -> None:
    source, spawner, _ = make(FakeChild(GOOD, GOOD))
    assert list(await asyncio.gather(source.sample(), source.sample())) == [GOOD, GOOD]
    assert spawner.spawned == 1


async def test_a_process_that_cannot_be_started_is_a_fault_not_an_exception() -> None:
    tries = 0

    async def refuse() -> FakeChild:
        nonlocal tries
        tries += 1
        raise BlockingIOError(11, "Resource temporarily unavailable")

    source = NVMLSource(spawn=refuse, monotonic=Clock())
    for _ in range(2):
        sample = await source.sample()
        assert sample.fault is not None
        assert sample.fault.reason is Capability.PERMISSION_DENIED
        assert "could not be started" in sample.fault.message
    assert tries == 1


@pytest.mark.parametrize("why", [Capability.NO_DRIVER, Capability.DRIVER_MISMATCH, Capability.PERMISSION_DENIED])
async def test_a_child_with_a_faulty_library_is_let_go_without_a_pause(why: Capability, make: Make) -> None:
    broken = FakeChild(Sample(taken_at=1.0, fault=SourceFault(why, "nvmlInit …")))
    source, spawner, _ = make(broken, FakeChild(GOOD))
    assert reason(await source.sample()) is why
    assert (broken.ended, broken.kills) == (True, 0)
    assert await source.sample() == GOOD
    assert spawner.spawned == 2


async def test_a_driver_without_gpus_is_asked_by_the_same_child(make: Make) -> None:
    source, spawner, _ = make(FakeChild(Sample(taken_at=1.0, fault=SourceFault(Capability.NO_GPUS, "…")), GOOD))
    assert reason(await source.sample()) is Capability.NO_GPUS
    assert await source.sample() == GOOD
    assert spawner.spawned == 1


async def test_close_ends_a_look_that_is_under_way(make: Make) -> None:
    child = FakeChild("hang")
    source, _, _ = make(child, deadline=60)
    looking = asyncio.ensure_future(source.sample())
    await child.asked.wait()
    async with asyncio.timeout(1):
        await source.close()
    assert child.kills == 1
    sample = await looking
    assert sample.fault is not None
    assert "ending" in sample.fault.message


async def test_close_does_not_wait_for_a_child_that_cannot_die(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpudiag_agent.nvml.source._FAREWELL_SECONDS", 0.01)
    source, _, _ = make(FakeChild(GOOD, unkillable=True))
    assert await source.sample() == GOOD
    async with asyncio.timeout(1):
        await source.close()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*left, return_exceptions=True)
    assert all(task.done() for task in left)


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
