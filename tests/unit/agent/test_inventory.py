"""GPUs keep their names over a restart of the agent, as the driver may be dead by then."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudiag_agent.assess import Assessor
from gpudiag_agent.checks.registry import all_checks
from gpudiag_agent.inventory import Inventory
from gpudiag_agent.kernel_log.decode import KernelEvent
from gpudiag_agent.kernel_log.parse import XIDLine
from gpudiag_agent.sample import CallError, GPUSample, Sample, SourceFault
from gpudiag_api import wire
from gpudiag_api.meaning import etag
from gpudiag_api.vocabulary import Capability, Health
from gpudiag_api.wire import AgentInfo, Report

START = 1_800_000_000.0
GPUS = tuple(
    GPUSample(index=index, uuid=f"GPU-{index}", pci=f"0000:1{index}:00.0", model="NVIDIA H100", serial=f"s{index}")
    for index in range(2)
)
HUNG = Sample(taken_at=START, fault=SourceFault(Capability.DRIVER_HUNG, "hangs"))
LOST = GPUSample(index=1, errors=(CallError("nvmlDeviceGetUUID", 15, "NVML_ERROR_GPU_IS_LOST"),))


def agent(kept: object = None, *, boot: str = "boot") -> Assessor:
    made = Assessor(agent=AgentInfo(version="1", node_name="n", boot_id=boot), checks=all_checks(10.0))
    if kept is not None:
        made.inventory.load(msgspec.json.decode(msgspec.json.encode(kept)))
    return made


def look(assessor: Assessor, sample: Sample) -> Report:
    assessor.sampled(sample)
    report = assessor.report(START)
    assert report is not None
    return wire.decode(wire.encode(report))


@pytest.fixture
def kept() -> object:
    first = agent()
    look(first, Sample(taken_at=START, gpus=GPUS))
    return first.inventory.dump()


def test_a_driver_that_is_dead_by_then_leaves_names_and_meaning_as_they_were(kept: object) -> None:
    first = agent()
    look(first, Sample(taken_at=START, gpus=GPUS))
    before, after = look(first, HUNG), look(agent(kept), HUNG)
    assert [(gpu.index, gpu.uuid, gpu.serial, gpu.health) for gpu in after.gpus] == [
        (0, "GPU-0", "s0", Health.UNKNOWN), (1, "GPU-1", "s1", Health.UNKNOWN)
    ]  # fmt: skip
    assert etag(after) == etag(before)


def test_a_kernel_line_names_its_gpu_by_index_and_uuid(kept: object) -> None:
    now = agent(kept)
    line = XIDLine(code=48, pci="0000:11:00.0", message="x")
    now.heard(KernelEvent(id="boot/1", at=START, what=line))
    (xid,) = look(now, HUNG).xids
    assert (xid.subject.gpu_index, xid.subject.gpu_uuid, xid.subject.serial) == (1, "GPU-1", "s1")


def test_a_lost_gpu_that_does_not_say_who_it_is_has_a_name(kept: object) -> None:
    report = look(agent(kept), Sample(taken_at=START, gpus=(GPUS[0], LOST)))
    (finding,) = report.findings
    assert (finding.reason, finding.subject.gpu_uuid, finding.subject.pci) == ("GPULost", "GPU-1", "0000:11:00.0")


def test_one_that_was_taken_out_while_the_agent_was_away_is_not_lost(kept: object) -> None:
    now = agent(kept)
    report = look(now, Sample(taken_at=START, gpus=GPUS[:1]))
    assert (len(report.gpus), report.findings) == (1, ())
    assert len(look(now, HUNG).gpus) == 1, "nor is it listed when the driver dies later"
    assert look(agent(), Sample(taken_at=START, gpus=GPUS[:1])).findings == ()


def test_a_driver_that_lists_none_after_the_restart_has_lost_none(kept: object) -> None:
    none = Sample(taken_at=START, fault=SourceFault(Capability.NO_GPUS, "lists no GPU"))
    assert "GPULost" not in {one.reason for one in look(agent(kept), none).findings}


def test_one_that_goes_under_the_agents_eyes_is_lost_as_ever(kept: object) -> None:
    now = agent(kept)
    look(now, Sample(taken_at=START, gpus=GPUS))
    assert [one.reason for one in look(now, Sample(taken_at=START, gpus=GPUS[:1])).findings] == ["GPULost"]


@pytest.mark.parametrize("boot", ["another", ""])
def test_in_another_boot_there_may_be_other_boards(boot: str, kept: object) -> None:
    assert look(agent(kept, boot=boot), HUNG).gpus == ()


_VALUES = st.none() | st.integers(-3, 300) | st.text(max_size=70)
_NAMES = ("uuid", "index", "pci", "model", "serial", "memory_bytes")


@settings(max_examples=30)
@given(st.lists(st.fixed_dictionaries(dict.fromkeys(_NAMES, _VALUES)), max_size=3))
def test_whatever_is_stored_is_refused_or_fits_the_wire(gpus: list[dict[str, object]]) -> None:
    now = agent()
    try:
        now.inventory.load({"boot": "boot", "gpus": gpus})
    except msgspec.ValidationError:
        assert now.inventory.known == ()
    look(now, HUNG)


def test_what_it_keeps_it_understands() -> None:
    first, second = Inventory("b"), Inventory("b")
    first.take(Sample(taken_at=START, gpus=GPUS), uuids={}, serials={})
    second.load(msgspec.json.decode(msgspec.json.encode(first.dump())))
    assert second.known == first.known
