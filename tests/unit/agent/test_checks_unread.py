"""What was found stands for as long as what it was read from cannot be read: a failing call is no recovery."""

from collections.abc import Callable, Sequence

import msgspec
import pytest

from gpudiag_agent.checks.base import Check, View
from gpudiag_agent.checks.c2c.rule import C2C
from gpudiag_agent.checks.counters import Counters
from gpudiag_agent.checks.fabric.rule import Fabric
from gpudiag_agent.checks.memory_repair.rule import MemoryRepair
from gpudiag_agent.checks.nvlink.baseline import LinkBaseline
from gpudiag_agent.checks.nvlink.rule import NVLink
from gpudiag_agent.checks.nvlink_errors.rule import NVLinkErrors
from gpudiag_agent.checks.pcie_link.rule import PCIeLink
from gpudiag_agent.checks.row_remap.rule import RowRemap
from gpudiag_agent.checks.sram_ecc.rule import SRAMECC
from gpudiag_agent.checks.xid.rule import XIDRule
from gpudiag_agent.host.facts import HostFacts
from gpudiag_agent.sample import (
    C2CLinkSample,
    CallError,
    FabricSample,
    GPUSample,
    NVLinkSample,
    PCIeSample,
    RowHistogram,
    Sample,
)

UNKNOWN = CallError("nvmlDeviceGetWhatever", 999, "NVML_ERROR_UNKNOWN")
ILL = 1


def links(down: int | None = None, replays: int = 0) -> tuple[NVLinkSample, ...]:
    return tuple(
        NVLinkSample(link=link, active=link != down, remote_kind="switch", errors={"recovery": replays})
        for link in range(4)
    )


def c2c(*, first: bool | None = True) -> tuple[C2CLinkSample, ...]:
    return C2CLinkSample(link=0, active=first), C2CLinkSample(link=1, active=True)


def gpu(index: int, **values: object) -> GPUSample:
    model = "NVIDIA H100 80GB HBM3"
    return GPUSample(index=index, uuid=f"GPU-{index}", pci=f"0000:1{index}:00.0", model=model, **values)  # type: ignore[arg-type]


UNFIT = FabricSample(state=3, status=0, health_summary=2)
FINE = FabricSample(state=3, status=0, health_summary=1)
FAULTS: list[tuple[Callable[[], Check], dict[str, object], dict[str, object], dict[str, object], str]] = [
    (lambda: NVLink(LinkBaseline()), {"nvlinks": links()}, {"nvlinks": links(2)}, {"nvlinks": None}, "LinkDown"),
    (
        lambda: NVLinkErrors(Counters()),
        {"nvlinks": links()},
        {"nvlinks": links(replays=50)},
        {"nvlinks": None},
        "RecoveryErrors",
    ),
    (Fabric, {"fabric": FINE}, {"fabric": UNFIT}, {"fabric": None}, "FabricUnhealthy"),
    (lambda: C2C(Counters()), {"c2c": c2c()}, {"c2c": c2c(first=False)}, {"c2c": None}, "LinkInactive"),
    (lambda: C2C(Counters()), {"c2c": c2c()}, {"c2c": c2c(first=False)}, {"c2c": c2c(first=None)}, "LinkInactive"),
    (XIDRule, {"recovery_action": 0}, {"recovery_action": 1}, {"recovery_action": None}, "RecoveryActionRequired"),
    (
        SRAMECC,
        {"sram_threshold_exceeded": False},
        {"sram_threshold_exceeded": True},
        {"sram_threshold_exceeded": None},
        "SRAMThresholdExceeded",
    ),
    (
        MemoryRepair,
        {"unrepairable_memory": False},
        {"unrepairable_memory": True},
        {"unrepairable_memory": None},
        "UnrepairableMemory",
    ),
    (
        RowRemap,
        {"remap_histogram": RowHistogram(1, 0, 0, 0, 0)},
        {"remap_histogram": RowHistogram(0, 0, 0, 0, 1)},
        {"remap_histogram": None},
        "SpareRowsExhausted",
    ),
    (
        PCIeLink,
        {"pcie": PCIeSample(width=16, width_max=16)},
        {"pcie": PCIeSample(width=8, width_max=16)},
        {"pcie": PCIeSample(width_max=16)},
        "LinkWidthReduced",
    ),
]


class Looks:
    """One check, looking at two GPUs every 10 s; what is given is about the second."""

    def __init__(self, check: Check, usual: dict[str, object]) -> None:
        self.check, self.now = check, 1_800_000_000.0
        self.usual = [gpu(index, **usual) for index in range(2)]

    def see(self, values: dict[str, object], *, looks: int = 4, unread: tuple[CallError, ...] = ()) -> Sequence[str]:
        said: list[str] = []
        for _ in range(looks):
            self.now += 10
            ill = msgspec.structs.replace(self.usual[ILL], **values, unread=unread)
            sample = Sample(taken_at=self.now, gpus=(self.usual[0], ill))
            self.check.observe(sample)
            view = View(now=self.now, sample=sample, host=HostFacts(nvswitches=4))
            problems = list(self.check.judge(view))
            assert {problem.subject.gpu_index for problem in problems} <= {ILL}
            said = [problem.reason for problem in problems]
        return said


@pytest.mark.parametrize(("check", "usual", "fault", "unread", "reason"), FAULTS)
def test_a_finding_stands_while_it_cannot_be_read_and_ends_when_it_is_read_again(
    check: Callable[[], Check],
    usual: dict[str, object],
    fault: dict[str, object],
    unread: dict[str, object],
    reason: str,
) -> None:
    node = Looks(check(), usual)
    assert node.see({}) == []
    assert node.see(fault) == [reason]
    assert node.see(unread, looks=6, unread=(UNKNOWN,)) == [reason]
    if reason != "RecoveryErrors":  # That one ends with an hour without errors.
        assert node.see(usual) == []


@pytest.mark.parametrize(("check", "usual", "fault", "unread", "reason"), FAULTS)
def test_what_cannot_be_read_is_no_fault(
    check: Callable[[], Check],
    usual: dict[str, object],
    fault: dict[str, object],
    unread: dict[str, object],
    reason: str,
) -> None:
    node = Looks(check(), usual)
    assert node.see({}) == []
    assert node.see(unread, looks=40, unread=(UNKNOWN,)) == []
