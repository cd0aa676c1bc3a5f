"""Slow values are read rarely, and every sample is complete all the same."""

import re
from pathlib import Path

import msgspec
import pytest

from gpudiag_agent.clock import ManualClock
from gpudiag_agent.nvml.lasting import _VALUES, CALLS, FAILING_SECONDS, PERIOD_SECONDS, Lasting
from gpudiag_agent.sample import CallError, GPUSample, NVLinkSample, PCIeSample, Sample, SourceFault
from gpudiag_api.vocabulary import Capability

from .conftest import Boot, Open

LOST = (CallError(call="nvmlDeviceGetUUID", code=15, name="NVML_ERROR_GPU_IS_LOST"),)
SLOW = ("nvmlDeviceValidateInforom", "nvmlDeviceGetVbiosVersion", "nvmlDeviceGetNvLinkRemotePciInfo_v2")


def node(*gpus: GPUSample, driver: str = "570") -> Sample:
    return Sample(taken_at=1.0, driver_version=driver, gpus=gpus)


def read(index: int = 0, uuid: str = "GPU-a") -> GPUSample:
    return GPUSample(
        index=index,
        uuid=uuid,
        inforom_valid=True,
        vbios_version="96",
        pcie=PCIeSample(generation=5, generation_max=5, width=16, width_max=16),
        nvlinks=(NVLinkSample(link=0, active=True, remote_pci="0000:07:00.0", remote_kind="switch", version=4),),
    )


def glimpsed(index: int = 0, uuid: str = "GPU-a", errors: tuple[CallError, ...] = ()) -> GPUSample:
    """The same GPU in a quick look, one of its links now down."""
    pcie, links = PCIeSample(generation=1, width=8), (NVLinkSample(link=0, active=False, errors={"replay": 3}),)
    return GPUSample(index=index, uuid=uuid, pcie=pcie, nvlinks=links, errors=errors)


def test_a_quick_look_is_completed_and_keeps_what_it_saw() -> None:
    lasting = Lasting(ManualClock().monotonic)
    lasting.complete(node(read()), full=True)
    (gpu,) = lasting.complete(node(glimpsed()), full=False).gpus
    assert (gpu.inforom_valid, gpu.vbios_version) == (True, "96")
    assert gpu.pcie == PCIeSample(generation=1, generation_max=5, width=8, width_max=16)
    assert gpu.nvlinks == (
        NVLinkSample(
            link=0, active=False, remote_pci="0000:07:00.0", remote_kind="switch", version=4, errors={"replay": 3}
        ),
    )


def test_every_look_is_full_until_one_was_and_again_after_ten_minutes() -> None:
    clock = ManualClock()
    lasting = Lasting(clock.monotonic)
    assert lasting.due
    lasting.complete(node(read()), full=True)
    clock.advance(PERIOD_SECONDS - 1)
    assert not lasting.due
    clock.advance(1)
    assert lasting.due


@pytest.mark.parametrize(
    "changed",
    [
        node(glimpsed(uuid="GPU-b")),
        node(glimpsed(errors=LOST)),
        node(glimpsed(), driver="575"),
        node(glimpsed(), glimpsed(1, "GPU-b")),
        node(),
        Sample(taken_at=1.0, fault=SourceFault(Capability.DRIVER_HUNG, "…")),
    ],
)
def test_anything_that_may_have_changed_the_machine_asks_for_a_full_look(changed: Sample) -> None:
    lasting = Lasting(ManualClock().monotonic)
    lasting.complete(node(read()), full=True)
    assert not lasting.due
    lasting.complete(changed, full=False)
    assert lasting.due


def test_a_gpu_that_is_lost_for_good_is_not_read_in_full_every_time() -> None:
    lasting = Lasting(ManualClock().monotonic)
    lasting.complete(node(read()), full=True)
    lasting.complete(node(glimpsed(errors=LOST)), full=False)
    lasting.complete(node(glimpsed(errors=LOST)), full=True)
    lasting.complete(node(glimpsed(errors=LOST)), full=False)
    assert not lasting.due


def failed(call: str) -> tuple[CallError, ...]:
    return (CallError(call=call, code=999, name="NVML_ERROR_UNKNOWN"),)


def test_a_slow_read_that_failed_once_is_tried_again_at_once_and_forgotten() -> None:
    lasting = Lasting(ManualClock().monotonic)
    broken = msgspec.structs.replace(read(), inforom_valid=None, unread=failed("nvmlDeviceValidateInforom"))
    lasting.complete(node(broken), full=True)
    assert lasting.due
    lasting.complete(node(read()), full=True)
    assert not lasting.due
    assert lasting.complete(node(glimpsed()), full=False).gpus[0].unread == ()


def test_a_slow_read_that_keeps_failing_lasts_through_quick_looks_and_is_tried_every_minute() -> None:
    clock = ManualClock()
    lasting = Lasting(clock.monotonic)
    broken = msgspec.structs.replace(read(), inforom_valid=None, unread=failed("nvmlDeviceValidateInforom"))
    for _ in range(2):
        lasting.complete(node(broken), full=True)
    assert not lasting.due
    for _ in range(3):
        (gpu,) = lasting.complete(node(glimpsed()), full=False).gpus
        assert (gpu.unread, gpu.inforom_valid) == (broken.unread, None)
        assert not lasting.due
    clock.advance(FAILING_SECONDS)
    assert lasting.due


@pytest.mark.parametrize("where", ["errors", "unread"])
def test_what_every_look_reads_is_not_dragged_along(where: str) -> None:
    lasting = Lasting(ManualClock().monotonic)
    broken = msgspec.structs.replace(read(), **{where: failed("nvmlDeviceGetNvLinkState")})
    lasting.complete(node(broken), full=True)
    (gpu,) = lasting.complete(node(glimpsed()), full=False).gpus
    assert not gpu.incomplete


async def test_only_full_looks_make_the_calls_that_last(
    boot: Boot, open_source: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUDIAG_NVMLFAKE_LOG", str(tmp_path / "calls"))
    boot("h100-8").set({"count": 1})
    source = open_source(deadline=10)
    await source.sample()
    full = set((tmp_path / "calls").read_text().split())
    (tmp_path / "calls").unlink()
    await source.sample()
    quick = set((tmp_path / "calls").read_text().split())
    assert {re.sub(r"_v\d$", "", name) for name in full - quick} == CALLS


def test_another_gpu_at_the_same_place_inherits_nothing() -> None:
    lasting = Lasting(ManualClock().monotonic)
    lasting.complete(node(read()), full=True)
    assert lasting.complete(node(glimpsed(uuid="GPU-b")), full=False).gpus == (glimpsed(uuid="GPU-b"),)


def test_a_lost_gpu_is_not_dressed_up() -> None:
    lasting = Lasting(ManualClock().monotonic)
    lasting.complete(node(read()), full=True)
    assert lasting.complete(node(glimpsed(errors=LOST)), full=False).gpus == (glimpsed(errors=LOST),)


@pytest.mark.parametrize("machine", ["h100-8", "a100-8-mig", "t4-1", "gb300-4", "rtx-6000-workstation-2"])
async def test_quick_and_full_looks_say_the_same(machine: str, boot: Boot, open_source: Open) -> None:
    boot(machine)
    source = open_source(deadline=10)
    full = await source.sample()
    assert not source._lasting.due
    quick = await source.sample()
    assert quick == msgspec.structs.replace(full, taken_at=quick.taken_at)
    assert set(_VALUES) <= {field.name for field in msgspec.structs.fields(GPUSample)}


async def test_slow_calls_are_made_once_in_ten_minutes(
    boot: Boot, open_source: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUDIAG_NVMLFAKE_LOG", str(tmp_path / "calls"))
    boot("h100-8").set({"count": 1, "gpu.0.nvlink.count": 1})
    clock = ManualClock()
    source = open_source(deadline=10, monotonic=clock.monotonic)
    for _ in range(4):
        await source.sample()
        clock.advance(10)
    calls = (tmp_path / "calls").read_text().split()
    assert [calls.count(name) for name in SLOW] == [1, 1, 1]
    assert calls.count("nvmlDeviceGetNvLinkState") == 8
    clock.advance(PERIOD_SECONDS)
    await source.sample()
    assert (tmp_path / "calls").read_text().split().count(SLOW[0]) == 2


async def test_an_inforom_that_breaks_is_seen_within_ten_minutes(boot: Boot, open_source: Open) -> None:
    machine, clock = boot("h100-8"), ManualClock()
    source = open_source(deadline=10, monotonic=clock.monotonic)
    await source.sample()
    machine.set({"gpu.2.inforom": 14})
    assert {gpu.inforom_valid for gpu in (await source.sample()).gpus} == {True}
    clock.advance(PERIOD_SECONDS)
    assert [gpu.inforom_valid for gpu in (await source.sample()).gpus] == [True, True, False] + [True] * 5
