"""Checks: every fault gives its finding, a healthy machine gives none, and what raises a finding can clear it."""

import msgspec
import pytest
from tests.unit.agent.judged_node import HOPPER, LOST, RESET, Node, only

from gpudiag_agent.sample import CallError, GPUSample, MIGDevice
from gpudiag_api import wire
from gpudiag_api.meaning import etag
from gpudiag_api.vocabulary import Action, Check, Health, Severity

AMPERE = msgspec.structs.replace(
    HOPPER,
    model="NVIDIA A100-SXM4-80GB",
    temperature_celsius=84,
    temperature_slowdown_celsius=89,
    temperature_shutdown_celsius=92,
    temperature_max_celsius=85,
    thermal_margin_celsius=None,
    thermal_margin_slowdown_celsius=None,
    recovery_action=None,
)
TURING = GPUSample(
    index=0,
    model="Tesla T4",
    temperature_celsius=86,
    temperature_slowdown_celsius=93,
    temperature_shutdown_celsius=96,
    temperature_max_celsius=85,
    clock_event_reasons=0x4 | 0x20,
    ecc_uncorrected_volatile=0,
)
HEALTHY_MACHINES = {
    "T4 that holds its temperature by software": [TURING],
    "A100": [AMPERE] * 8,
    "A100 with MIG": [
        msgspec.structs.replace(
            AMPERE,
            mig_current=True,
            utilization_percent=None,
            remap_pending=None,
            remap_failure=None,
            mig=(MIGDevice(uuid="MIG-1", gpu_instance=1, compute_instance=0, profile="1g.10gb"),),
        )
    ]
    * 8,
    "L40S": [msgspec.structs.replace(HOPPER, model="NVIDIA L40S", memory_temperature_celsius=None)] * 4,
    "H100 at its slowdown point": [msgspec.structs.replace(HOPPER, thermal_margin_celsius=-2)] * 8,
    "H100 idle": [msgspec.structs.replace(HOPPER, clock_event_reasons=0x1, performance_state=8)] * 8,
    "B200": [msgspec.structs.replace(HOPPER, model="NVIDIA B200", thermal_margin_slowdown_celsius=-3)] * 8,
    "GB200": [msgspec.structs.replace(HOPPER, model="NVIDIA GB200", clock_event_reasons=0x10)] * 4,
    "a board that gives no limits": [GPUSample(index=0, temperature_celsius=99, memory_temperature_celsius=105)],
}


@pytest.mark.parametrize("machine", HEALTHY_MACHINES)
def test_a_healthy_machine_stays_healthy(machine: str) -> None:
    node = Node(HEALTHY_MACHINES[machine])
    reports = [node.see() for _ in range(20)]
    for report in reports:
        assert report.health == Health.HEALTHY
        assert {gpu.health for gpu in report.gpus} == {Health.HEALTHY}
        assert [f for f in report.findings if f.severity != Severity.INFO] == []
    assert len({etag(report) for report in reports[6:]}) == 1


FAULTS: dict[str, tuple[dict[str, object], Check, str, Severity, Action]] = {
    "lost": ({"errors": LOST}, Check.GPU_LOST, "GPULost", Severity.CRITICAL, Action.REBOOT_NODE),
    "must be reset": (
        {"errors": RESET},
        Check.GPU_LOST,
        "ResetRequired",
        Severity.CRITICAL,
        Action.DRAIN_AND_RESET_GPU,
    ),
    "ECC": (
        {"ecc_uncorrected_volatile": 1},
        Check.ECC_UNCORRECTABLE,
        "UncorrectableErrors",
        Severity.CRITICAL,
        Action.DRAIN_AND_RESET_GPU,
    ),
    "remap pending": (
        {"remap_pending": True},
        Check.ROW_REMAP,
        "RemapPending",
        Severity.WARNING,
        Action.RESET_GPU_WHEN_IDLE,
    ),
    "remap failed": (
        {"remap_failure": True, "remap_pending": True},
        Check.ROW_REMAP,
        "RemapFailed",
        Severity.CRITICAL,
        Action.REPLACE_GPU,
    ),
    "margin": (
        {"thermal_margin_celsius": -3},
        Check.TEMPERATURE,
        "Overheating",
        Severity.WARNING,
        Action.CHECK_COOLING,
    ),
    "memory too hot": (
        {"memory_temperature_celsius": 96},
        Check.TEMPERATURE,
        "MemoryOverheating",
        Severity.WARNING,
        Action.CHECK_COOLING,
    ),
    "driver asks for a reboot": (
        {"recovery_action": 2},
        Check.XID,
        "RecoveryActionRequired",
        Severity.CRITICAL,
        Action.REBOOT_NODE,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_at_once_on_its_gpu_alone(fault: str) -> None:
    values, check, reason, severity, action = FAULTS[fault]
    node = Node()
    node.see()
    report = node.change(1, **values)
    finding = only(report)
    assert (finding.check, finding.reason, finding.severity, finding.action) == (check, reason, severity, action)
    assert finding.subject == wire.Subject(gpu_index=1, gpu_uuid="GPU-1", pci="0000:11:00.0", serial="s1")
    assert "GPU 1 (0000:11:00.0)" in finding.message
    assert finding.evidence
    assert [gpu.health for gpu in report.gpus] == [Health.HEALTHY, severity.health]
    assert report.health == severity.health


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_is_over_clears(fault: str) -> None:
    node = Node()
    before = etag(node.see())
    node.change(1, **FAULTS[fault][0])
    reports = [node.see() for _ in range(8)]
    assert reports[-1].findings == ()
    assert etag(reports[-1]) == before


def test_a_finding_keeps_its_beginning() -> None:
    node = Node()
    first = only(node.change(remap_pending=True))
    second = only(node.change(remap_pending=True))
    assert second.first_seen == first.first_seen == first.last_seen
    assert second.last_seen > first.last_seen


@pytest.mark.parametrize("values", [{"ecc_uncorrected_volatile": 3}, {"remap_pending": True}])
def test_one_failed_read_neither_clears_nor_raises(values: dict[str, object]) -> None:
    node = Node()
    failed = (CallError("nvmlDeviceGetTotalEccErrors", 999, "NVML_ERROR_UNKNOWN"),)
    none = dict.fromkeys(values, None)
    assert node.change(0, errors=failed, **none).findings == ()
    found = only(node.change(0, **values))
    assert only(node.change(0, errors=failed, **none)).reason == found.reason
    assert node.change(0, **none).findings == (), "unsupported from now on"
