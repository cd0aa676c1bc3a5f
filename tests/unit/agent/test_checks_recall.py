"""Every state that a GPU can be in and should not: one row per fault, what is said of it, and what clears it.

Rates and windows (temperature, throttling, counters) have files of their own.
"""

from pathlib import Path

import msgspec
import pytest
from tests.unit.agent.judged_node import HOPPER, Node, only

from gpudiag_agent.sample import CallError, GPUSample, PCIeSample, RowHistogram
from gpudiag_api import documentation
from gpudiag_api.vocabulary import Action, Blame, Check, Health, Severity

ROOT = Path(__file__).resolve().parents[3]
WORKING = msgspec.structs.replace(
    HOPPER,
    performance_state=0,
    mig_pending=False,
    ecc_pending=True,
    sram_threshold_exceeded=False,
    remap_histogram=RowHistogram(639, 1, 0, 0, 0),
    bank_remap_pending=False,
    channel_repair_pending=False,
    tpc_repair_pending=False,
    unrepairable_memory=False,
    power_default_limit_milliwatts=700_000,
    application_clock_mhz=1980,
    application_clock_default_mhz=1980,
    persistence_mode=True,
    inforom_valid=True,
    pcie=PCIeSample(generation=5, generation_max=5, width=16, width_max=16, replays=9),
)
VOLTA = msgspec.structs.replace(
    WORKING,
    model="Tesla V100-SXM2-32GB",
    remap_pending=None,
    remap_failure=None,
    remap_histogram=None,
    bank_remap_pending=None,
    sram_threshold_exceeded=None,
    retired_pages_single_bit=2,
    retired_pages_double_bit=0,
    retired_pages_pending=False,
)


def error(code: int, name: str) -> tuple[CallError, ...]:
    return (CallError("nvmlDeviceGetInforomImageVersion", code, name),)


def link(**values: object) -> PCIeSample:
    return msgspec.structs.replace(WORKING.pcie or PCIeSample(), **values)


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    values: dict[str, object]
    check: Check
    reason: str
    severity: Severity
    blame: Blame
    action: Action
    shown: tuple[str, str, str | None]
    """Name, value and threshold of the first evidence."""
    seconds: float = 0
    """Until it is raised: at once, or only when it lasts."""
    healthy: GPUSample = WORKING


W, C, INFO = Severity.WARNING, Severity.CRITICAL, Severity.INFO
HARD, SITE = Blame.HARDWARE, Blame.ENVIRONMENT
IDLE_RESET, RESEAT, REPLACE = Action.RESET_GPU_WHEN_IDLE, Action.RESEAT_OR_CHECK_LINK, Action.REPLACE_GPU


def fault(
    values: dict[str, object],
    check: Check,
    reason: str,
    judged: tuple[Severity, Blame, Action],
    shown: tuple[str, str, str | None],
    *,
    seconds: float = 0,
    healthy: GPUSample = WORKING,
) -> Fault:
    severity, blame, action = judged
    return Fault(
        values=values, check=check, reason=reason, severity=severity, blame=blame, action=action,
        shown=shown, seconds=seconds, healthy=healthy,
    )  # fmt: skip


FAULTS = {
    "uncorrectable error": fault(
        {"ecc_uncorrected_volatile": 1}, Check.ECC_UNCORRECTABLE, "UncorrectableErrors",
        (C, HARD, Action.DRAIN_AND_RESET_GPU), ("eccUncorrectedVolatile", "1", "0"),
    ),
    "row remap pending": fault(
        {"remap_pending": True}, Check.ROW_REMAP, "RemapPending", (W, HARD, IDLE_RESET),
        ("remapPending", "true", "false"),
    ),
    "bank remap pending": fault(
        {"bank_remap_pending": True}, Check.ROW_REMAP, "RemapPending", (W, HARD, IDLE_RESET),
        ("bankRemapPending", "true", "false"),
    ),
    "row remap failed": fault(
        {"remap_failure": True, "remap_pending": True}, Check.ROW_REMAP, "RemapFailed", (C, HARD, REPLACE),
        ("remapFailure", "true", "false"),
    ),
    "no spare rows": fault(
        {"remap_histogram": RowHistogram(630, 1, 0, 3, 2)}, Check.ROW_REMAP, "SpareRowsExhausted",
        (W, HARD, Action.RUN_DIAGNOSTICS), ("banksWithoutSpares", "2", "0"),
    ),
    "few spare rows": fault(
        {"remap_histogram": RowHistogram(636, 1, 0, 3, 0)}, Check.ROW_REMAP, "SpareRowsLow",
        (INFO, HARD, Action.NONE), ("banksLow", "3", "0"),
    ),
    "SRAM threshold": fault(
        {"sram_threshold_exceeded": True, "sram_uncorrected": {"l2": 9, "sm": 0}}, Check.SRAM_ECC,
        "SRAMThresholdExceeded", (C, HARD, REPLACE), ("sramThresholdExceeded", "true", "false"),
    ),
    "63 retired pages": fault(
        {"retired_pages_single_bit": 60, "retired_pages_double_bit": 3}, Check.RETIRED_PAGES, "RetiredPageLimit",
        (C, HARD, REPLACE), ("retiredPages", "63", "63"), healthy=VOLTA,
    ),
    "page retirement pending": fault(
        {"retired_pages_pending": True}, Check.RETIRED_PAGES, "RetirementPending",
        (W, HARD, Action.DRAIN_AND_RESET_GPU), ("retiredPagesPending", "true", "false"), healthy=VOLTA,
    ),
    "channel repair": fault(
        {"channel_repair_pending": True}, Check.MEMORY_REPAIR, "ChannelRepairPending", (W, HARD, IDLE_RESET),
        ("channelRepairPending", "true", "false"),
    ),
    "TPC repair": fault(
        {"tpc_repair_pending": True}, Check.MEMORY_REPAIR, "TPCRepairPending", (W, HARD, IDLE_RESET),
        ("tpcRepairPending", "true", "false"),
    ),
    "unrepairable memory": fault(
        {"unrepairable_memory": True, "channel_repair_pending": True}, Check.MEMORY_REPAIR, "UnrepairableMemory",
        (C, HARD, REPLACE), ("unrepairableMemory", "true", "false"),
    ),
    "ECC off": fault(
        {"ecc_current": False, "ecc_pending": False}, Check.ECC_MODE, "ECCDisabled", (INFO, SITE, Action.NONE),
        ("eccCurrent", "off", "on"),
    ),
    "ECC to be switched off": fault(
        {"ecc_pending": False}, Check.ECC_MODE, "ECCModePending", (INFO, SITE, IDLE_RESET), ("eccCurrent", "on", "off"),
    ),
    "MIG to be switched on": fault(
        {"mig_pending": True}, Check.MIG, "MIGModePending", (INFO, SITE, IDLE_RESET), ("migCurrent", "off", "on"),
    ),
    "no power": fault(
        {"errors": error(8, "NVML_ERROR_INSUFFICIENT_POWER")}, Check.POWER, "InsufficientPower",
        (C, SITE, Action.CHECK_POWER), ("nvml", "ERROR_INSUFFICIENT_POWER", None),
    ),
    "power limit lowered": fault(
        {"power_limit_milliwatts": 500_000}, Check.POWER, "PowerLimitLowered", (INFO, SITE, Action.NONE),
        ("powerLimit", "500", "700"), seconds=120,
    ),
    "clocks lowered": fault(
        {"application_clock_mhz": 1200}, Check.CLOCKS, "ApplicationClocksLowered", (INFO, SITE, Action.NONE),
        ("applicationClock", "1200", "1980"),
    ),
    "half the lanes": fault(
        {"pcie": link(width=8)}, Check.PCIE_LINK, "LinkWidthReduced", (W, HARD, RESEAT), ("pcieWidth", "8", "16"),
    ),
    "slow link under load": fault(
        {"pcie": link(generation=3)}, Check.PCIE_LINK, "LinkGenerationReduced", (W, HARD, RESEAT),
        ("pcieGeneration", "3", "5"), seconds=30,
    ),
    "corrupt InfoROM": fault(
        {"inforom_valid": False}, Check.INFOROM, "InfoROMCorrupted", (W, HARD, IDLE_RESET),
        ("inforomValid", "false", "true"),
    ),
    "corrupt InfoROM by another call": fault(
        {"errors": error(14, "NVML_ERROR_CORRUPTED_INFOROM")}, Check.INFOROM, "InfoROMCorrupted", (W, HARD, IDLE_RESET),
        ("inforomValid", "false", "true"),
    ),
    "persistence mode off": fault(
        {"persistence_mode": False}, Check.PERSISTENCE_MODE, "PersistenceModeOff", (INFO, SITE, Action.NONE),
        ("persistenceMode", "off", "on"), seconds=120,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_on_its_gpu_alone_and_clears(name: str) -> None:
    row = FAULTS[name]
    node = Node([row.healthy] * 3)
    assert node.see().findings == ()
    report = node.change(1, **row.values)
    began = node.now
    while node.now < began + row.seconds:
        assert report.findings == (), "it must last"
        report = node.change(1, **row.values)
    finding = only(report)
    assert (finding.check, finding.reason) == (row.check, row.reason)
    assert (finding.severity, finding.blame, finding.action) == (row.severity, row.blame, row.action)
    first = finding.evidence[0]
    assert (first.name, first.value, first.threshold) == row.shown
    assert finding.subject.gpu_uuid == "GPU-1"
    assert "GPU 1 (0000:11:00.0)" in finding.message
    assert finding.documentation == documentation.of(row.check)
    assert [gpu.health for gpu in report.gpus] == [Health.HEALTHY, row.severity.health, Health.HEALTHY]
    assert node.see().findings == (), "one healthy look"


@pytest.mark.parametrize("name", [name for name, row in FAULTS.items() if "errors" not in row.values])
def test_looks_that_fail_neither_clear_nor_raise_it(name: str) -> None:
    row = FAULTS[name]
    node = Node([row.healthy] * 2)
    found = only([node.change(0, **row.values) for _ in range(14)][-1])
    failed = (CallError("nvmlDeviceGetSerial", 999, "NVML_ERROR_UNKNOWN"),)
    unread: dict[str, object] = {name: {} if name == "sram_uncorrected" else None for name in row.values}
    for _ in range(3):
        assert only(node.change(0, errors=failed, **unread)).reason == row.reason
    assert only(node.change(0, **row.values)).first_seen == found.first_seen
    assert Node([row.healthy]).change(0, errors=failed, **unread).findings == ()


@pytest.mark.parametrize("model", ["NVIDIA GeForce RTX 4090", "NVIDIA RTX 6000 Ada Generation", "Quadro RTX 8000"])
def test_what_is_ordinary_on_a_workstation(model: str) -> None:
    board = msgspec.structs.replace(WORKING, model=model, ecc_current=False, ecc_pending=False, persistence_mode=False)
    node = Node([board])
    assert [node.see().findings for _ in range(30)] == [()] * 30


def test_a_server_edition_is_no_workstation() -> None:
    board = msgspec.structs.replace(WORKING, model="NVIDIA RTX PRO 6000 Blackwell Server Edition", ecc_current=False)
    assert only(Node([board]).see()).reason == "ECCModePending"


def test_all_that_is_history() -> None:
    past = {"ecc_uncorrected_aggregate": 40, "remapped_rows_uncorrected": 3, "remapped_rows_corrected": 9}
    scarred = msgspec.structs.replace(
        WORKING, **past, sram_uncorrected={"l2": 2}, pcie=link(replays=10**6), ecc_corrected_volatile=10**6
    )
    node = Node([scarred])
    assert [node.see().findings for _ in range(400)] == [()] * 400


@pytest.mark.parametrize("name", FAULTS)
def test_its_page_explains_it(name: str) -> None:
    page = (ROOT / documentation.of(FAULTS[name].check)).read_text()
    row = FAULTS[name]
    words = (f"`{row.reason}`", str(row.severity), str(row.blame), f"`{row.action}`")
    assert any(all(word in line for word in words) for line in page.splitlines())
    assert "## Runbook" in page


class TestConfidentialCompute:
    def test_gpus_that_wait_for_their_attestation(self) -> None:
        node = Node([WORKING])
        node.driver = {"confidential_compute": True, "confidential_compute_ready": False}
        reports = [node.see() for _ in range(32)]
        assert [len(report.findings) for report in reports] == [0] * 30 + [1] * 2
        finding = only(reports[-1])
        assert (finding.check, finding.reason) == (Check.CONFIDENTIAL_COMPUTE, "ConfidentialComputeNotReady")
        assert (finding.severity, finding.blame, finding.action) == (W, SITE, Action.NONE)
        assert (finding.subject.gpu_uuid, reports[-1].health) == (None, Health.DEGRADED)
        node.driver = {"confidential_compute": None}
        assert len(node.see().findings) == 1, "a look that failed"
        node.driver = {"confidential_compute": True, "confidential_compute_ready": True}
        assert node.see().findings == ()

    def test_without_the_mode_there_is_nothing_to_be_ready_for(self) -> None:
        node = Node([WORKING])
        node.driver = {"confidential_compute": False, "confidential_compute_ready": False}
        assert [node.see().findings for _ in range(40)] == [()] * 40
