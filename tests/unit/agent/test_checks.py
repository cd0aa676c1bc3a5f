"""Checks: every fault gives its finding, a healthy machine gives none, and what raises a finding can clear it."""

from collections.abc import Sequence

import msgspec
import pytest

from gpudiag_agent.assess import Assessor
from gpudiag_agent.checks.base import PCIDevice
from gpudiag_agent.checks.registry import all_checks
from gpudiag_agent.checks.xid.catalogue import CATALOGUE
from gpudiag_agent.kernel_log.boot import Boot
from gpudiag_agent.kernel_log.decode import Decoder
from gpudiag_agent.kernel_log.record import Record
from gpudiag_agent.sample import CallError, GPUSample, MIGDevice, Sample, SourceFault
from gpudiag_api import wire
from gpudiag_api.meaning import etag
from gpudiag_api.vocabulary import Action, Blame, Capability, Check, Health, Severity
from gpudiag_api.wire import AgentInfo, Finding, Report

START = 1_800_000_000.0
LOST = (CallError("nvmlDeviceGetTemperature", 15, "NVML_ERROR_GPU_IS_LOST"),)
RESET = (CallError("nvmlDeviceGetTemperature", 16, "NVML_ERROR_RESET_REQUIRED"),)

HOPPER = GPUSample(
    index=0,
    model="NVIDIA H100 80GB HBM3",
    memory_total_bytes=85_520_809_984,
    mig_current=False,
    temperature_celsius=45,
    memory_temperature_celsius=50,
    memory_temperature_max_celsius=95,
    thermal_margin_celsius=40,
    thermal_margin_slowdown_celsius=-2,
    power_milliwatts=300_000,
    power_limit_milliwatts=700_000,
    utilization_percent=100,
    clock_event_reasons=0x4,
    ecc_current=True,
    ecc_uncorrected_volatile=0,
    ecc_corrected_volatile=12,
    ecc_uncorrected_aggregate=2,
    remap_pending=False,
    remap_failure=False,
    recovery_action=0,
)
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


class Node:
    """A node's agent without its edges: samples and kernel lines in, reports out."""

    def __init__(self, gpus: Sequence[GPUSample] = (HOPPER, HOPPER)) -> None:
        self.now = START
        self.gpus = [
            msgspec.structs.replace(
                gpu,
                index=index,
                uuid=f"GPU-{index}",
                pci=f"0000000{8 * (index // 2)}:{0x10 + index:02X}:00.0",
                serial=f"s{index}",
            )
            for index, gpu in enumerate(gpus)
        ]
        self.assessor = Assessor(agent=AgentInfo(version="1", node_name="n"), checks=all_checks(10.0))
        self.decoder = Decoder(Boot("boot", START - 100))
        self.sequence = 0

    def see(
        self,
        gpus: Sequence[GPUSample] | None = None,
        *,
        fault: Capability | None = None,
        pci: tuple[PCIDevice, ...] | None = None,
        seconds: float = 10,
    ) -> Report:
        self.now += seconds
        cause = SourceFault(fault, "why") if fault else None
        seen = () if cause else tuple(self.gpus if gpus is None else gpus)
        self.assessor.sampled(Sample(taken_at=self.now, driver_version="570", gpus=seen, fault=cause), pci=pci)
        return self.report()

    def change(self, index: int = 0, **values: object) -> Report:
        gpus = list(self.gpus)
        gpus[index] = msgspec.structs.replace(gpus[index], **values)
        return self.see(gpus)

    def hear(self, *lines: str) -> Report:
        for line in lines:
            self.sequence += 1
            self.now += 0.001
            microseconds = round((self.now - START + 100) * 1e6)
            event = self.decoder.feed(Record(line, self.sequence, microseconds), self.now)
            if event is not None:
                self.assessor.heard(event)
        return self.report()

    def report(self) -> Report:
        report = self.assessor.report(self.now)
        assert report is not None
        return wire.decode(wire.encode(report))


def only(report: Report) -> Finding:
    (finding,) = report.findings
    return finding


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


class TestTemperature:
    def test_absolute_limits_where_there_is_no_margin(self) -> None:
        node = Node([AMPERE])
        assert node.change(temperature_celsius=88).findings == ()
        warning = only(node.change(temperature_celsius=89))
        assert (warning.severity, warning.evidence[0].threshold, warning.evidence[0].unit) == (
            Severity.WARNING,
            "89",
            "°C",
        )
        assert only(node.change(temperature_celsius=92)).severity == Severity.CRITICAL

    def test_the_margin_decides_where_there_is_one(self) -> None:
        node = Node([HOPPER])
        assert node.change(temperature_celsius=95, temperature_slowdown_celsius=90).findings == ()

    def test_it_does_not_flap_around_the_limit(self) -> None:
        node = Node([HOPPER])
        node.change(thermal_margin_celsius=-3)
        seen = [len(node.change(thermal_margin_celsius=m).findings) for m in (0, -2, 5, -3, 0, 5, 5, 5, 5, 5)]
        assert seen == [1] * 10
        assert [len(node.change(thermal_margin_celsius=5).findings) for _ in range(3)] == [1, 0, 0]


class TestThrottling:
    @pytest.mark.parametrize(
        ("bits", "reason", "severity", "action"),
        [
            (0x48, "HardwareThermalSlowdown", Severity.WARNING, Action.CHECK_COOLING),
            (0x40, "HardwareThermalSlowdown", Severity.WARNING, Action.CHECK_COOLING),
            (0x88, "PowerBrake", Severity.WARNING, Action.CHECK_POWER),
            (0x8, "HardwareSlowdown", Severity.WARNING, Action.RUN_DIAGNOSTICS),
            (0x20, "SoftwareThermalSlowdown", Severity.INFO, Action.CHECK_COOLING),
        ],
    )
    def test_lasting_slowdown_is_seen_within_a_minute(
        self, bits: int, reason: str, severity: Severity, action: Action
    ) -> None:
        node = Node()
        for _ in range(10):
            node.see()
        reports = [node.change(1, clock_event_reasons=bits) for _ in range(6)]
        assert reports[1].findings == (), "20 s is not lasting"
        finding = only(reports[4])
        assert (finding.reason, finding.severity, finding.action) == (reason, severity, action)
        assert finding.subject.gpu_index == 1

    def test_it_is_seen_within_a_minute_of_the_agents_start(self) -> None:
        node = Node()
        reports = [node.change(clock_event_reasons=0x40) for _ in range(6)]
        assert reports[0].findings == ()
        assert only(reports[5]).reason == "HardwareThermalSlowdown"

    def test_it_clears_without_flapping(self) -> None:
        node = Node()
        for _ in range(6):
            node.change(clock_event_reasons=0x40)
        seen = [len(node.change(clock_event_reasons=0x40 if n % 3 == 0 else 0).findings) for n in range(12)]
        assert seen == [1] * 12, "a third of the time is between the two limits"
        for _ in range(7):
            node.see()
        assert node.see().findings == ()

    def test_a_gap_in_the_samples_neither_clears_nor_sticks(self) -> None:
        node = Node()
        for _ in range(6):
            node.change(clock_event_reasons=0x40)
        node.see(fault=Capability.DRIVER_HUNG)
        assert only(node.change(clock_event_reasons=0x40)).reason == "HardwareThermalSlowdown"
        assert node.see(seconds=3600).findings == ()


class TestLost:
    def test_a_vanished_gpu_stays_in_the_report_and_is_named(self) -> None:
        node = Node()
        node.see()
        report = node.see(node.gpus[1:])
        assert only(report).reason == "GPULost"
        assert only(report).subject.gpu_uuid == "GPU-0"
        assert [(gpu.index, gpu.uuid, gpu.health) for gpu in report.gpus] == [
            (0, "GPU-0", Health.UNHEALTHY),
            (1, "GPU-1", Health.HEALTHY),
        ]
        assert node.see().health == Health.HEALTHY

    def test_indices_stay_unique_when_the_driver_gives_them_anew(self) -> None:
        node = Node([HOPPER] * 3)
        node.see()
        moved = [msgspec.structs.replace(gpu, index=gpu.index - 1) for gpu in node.gpus[1:]]
        assert [gpu.index for gpu in node.see(moved).gpus] == [0, 1, 2]

    def test_all_gone_is_lost_not_merely_unknown(self) -> None:
        node = Node()
        node.see()
        report = node.see(fault=Capability.NO_GPUS)
        assert report.health == Health.UNHEALTHY
        assert [f.reason for f in report.findings] == ["GPULost", "GPULost", "NoGPUs"]

    def test_a_gpu_given_to_a_virtual_machine_is_not_lost(self) -> None:
        node = Node()
        bus = (PCIDevice("0000:10:00.0", "vfio-pci"), PCIDevice("0000:11:00.0", "nvidia"))
        node.see(pci=(PCIDevice("0000:10:00.0", "nvidia"), bus[1]))
        assert node.see(node.gpus[1:], pci=bus).findings == ()

    @pytest.mark.parametrize(
        "line",
        [
            "NVRM: Xid (PCI:0000:11:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            "NVRM: GPU 0000:11:00.0: GPU has fallen off the bus.",
        ],
    )
    def test_the_kernel_says_so(self, line: str) -> None:
        node = Node()
        node.see()
        report = node.hear(line)
        assert (only(report).reason, only(report).subject.gpu_uuid) == ("GPULost", "GPU-1")
        tag = etag(report)
        assert etag(node.change(1, errors=LOST)) == tag, "a second witness is no news"
        recovered = node.hear("NVRM: Xid (PCI:0000:11:00): 154, GPU recovery action changed from 0x2 (x) to 0x0 (None)")
        assert [e.value for f in recovered.findings for e in f.evidence] == ["ERROR_GPU_IS_LOST"]

    def test_one_that_does_not_say_who_it_is_keeps_its_name(self) -> None:
        node = Node()
        node.see()
        nameless = GPUSample(index=1, errors=LOST)
        report = node.see([node.gpus[0], nameless])
        assert only(report).subject.gpu_uuid == "GPU-1"
        assert report.gpus[1].model == "NVIDIA H100 80GB HBM3"

    def test_strangers_without_a_name_are_told_apart(self) -> None:
        report = Node().see([GPUSample(index=0, errors=LOST), GPUSample(index=1, errors=LOST)])
        assert len({gpu.uuid for gpu in report.gpus}) == 2
        assert len(report.findings) == 2


class TestCount:
    BUS = (PCIDevice("0000:10:00.0", "nvidia"), PCIDevice("0000:11:00.0", None))

    def test_a_gpu_the_driver_does_not_list(self) -> None:
        node = Node([HOPPER])
        finding = only(node.see(pci=self.BUS))
        assert (finding.check, finding.reason, finding.severity) == (Check.GPU_COUNT, "GPUMissing", Severity.CRITICAL)
        assert finding.subject.pci == "0000:11:00.0"
        assert (finding.evidence[0].value, finding.evidence[0].threshold) == ("1", "2")
        assert node.see(pci=self.BUS[:1]).health == Health.HEALTHY

    def test_unknown_is_not_zero(self) -> None:
        assert Node([HOPPER]).see(pci=None).findings == ()

    def test_the_bus_outranks_a_driver_without_gpus(self) -> None:
        report = Node().see(fault=Capability.NO_GPUS, pci=self.BUS)
        assert report.health == Health.UNHEALTHY
        assert Node().see(fault=Capability.DRIVER_HUNG, pci=self.BUS).health == Health.UNKNOWN


class TestBlindness:
    @pytest.mark.parametrize("reason", [word for word in Capability if word.blinds])
    def test_a_blind_agent_says_unknown_and_why(self, reason: Capability) -> None:
        report = Node().see(fault=reason)
        assert report.health == Health.UNKNOWN
        assert [gap.reason for gap in report.capabilities] == [reason]
        assert (only(report).check, only(report).reason, only(report).severity) == ("Driver", reason, Severity.INFO)
        if reason is not Capability.NO_GPUS:
            assert report.sampled_at is None

    def test_the_known_gpus_stay_listed_and_are_never_healthy(self) -> None:
        node = Node()
        seen = node.see()
        report = node.see(fault=Capability.DRIVER_HUNG)
        assert [(gpu.uuid, gpu.health) for gpu in report.gpus] == [
            ("GPU-0", Health.UNKNOWN),
            ("GPU-1", Health.UNKNOWN),
        ]
        assert report.gpus[0].measurements == wire.Measurements()
        assert report.sampled_at == seen.sampled_at
        assert report.driver.version == "570"

    def test_the_kernel_outranks_it(self) -> None:
        node = Node()
        node.see()
        node.see(fault=Capability.DRIVER_HUNG)
        report = node.hear("NVRM: Xid (PCI:0000:10:00): 79, GPU has fallen off the bus.")
        assert [gpu.health for gpu in report.gpus] == [Health.UNHEALTHY, Health.UNKNOWN]
        assert report.health == Health.UNHEALTHY

    def test_no_gpu_and_no_reason(self) -> None:
        report = Node().see([])
        assert report.health == Health.UNKNOWN
        assert [gap.reason for gap in report.capabilities] == [Capability.NO_GPUS]

    def test_a_missing_kernel_log_changes_no_health(self) -> None:
        node = Node()
        node.assessor.kernel_log_problem = "no"
        report = node.see()
        assert report.health == Health.HEALTHY
        assert [gap.reason for gap in report.capabilities] == [Capability.NO_KERNEL_LOG]

    def test_reads_that_keep_failing_make_one_gpu_unknown(self) -> None:
        node = Node()
        failed = (CallError("nvmlDeviceGetTotalEccErrors", 999, "NVML_ERROR_UNKNOWN"),)
        assert node.change(errors=failed).health == Health.HEALTHY
        report = node.change(errors=failed)
        assert (only(report).reason, only(report).severity) == ("ReadFailed", Severity.INFO)
        assert [gpu.health for gpu in report.gpus] == [Health.UNKNOWN, Health.HEALTHY]
        assert node.see().health == Health.HEALTHY

    def test_a_gpu_that_gives_nothing_is_unknown_at_once(self) -> None:
        node = Node()
        silent = GPUSample(
            index=0, uuid="GPU-0", errors=(CallError("nvmlDeviceGetHandleByIndex_v2", 999, "NVML_ERROR_UNKNOWN"),)
        )
        report = node.see([silent, node.gpus[1]])
        assert only(report).reason == "GPUNotReadable"
        assert report.gpus[0].health == Health.UNKNOWN


APPLICATION = (8, 11, 13, 25, 31, 32, 43, 45, 68, 69, 137, 141)
ALWAYS_ACT = (46, 48, 62, 64, 74, 79, 95, 110, 119, 120, 136, 140, 143, 155, 156, 158, 167, 169, 171, 172, 173, 175)


class TestXID:
    @pytest.mark.parametrize("code", APPLICATION)
    def test_an_applications_error_never_degrades(self, code: int) -> None:
        node = Node()
        node.see()
        report = node.hear(f"NVRM: Xid (PCI:0000:10:00): {code}, pid=7, name=python3, words")
        assert report.health == Health.HEALTHY
        assert (only(report).severity, only(report).blame, only(report).action) == (
            Severity.INFO,
            Blame.APPLICATION,
            Action.CHECK_APPLICATION,
        )
        assert (report.xids[0].process_id, report.xids[0].process_name) == (7, "python3")
        assert node.see(seconds=3601).findings == (), "over after an hour; the XID stays in the list"
        assert len(node.report().xids) == 1

    @pytest.mark.parametrize("code", ALWAYS_ACT)
    def test_what_nvidia_acts_on_makes_the_gpu_unhealthy(self, code: int) -> None:
        node = Node()
        node.see()
        report = node.hear(f"NVRM: Xid (PCI:0000:11:00): {code}, words")
        assert [gpu.health for gpu in report.gpus] == [Health.HEALTHY, Health.UNHEALTHY]
        assert only(report).action in {Action.DRAIN_AND_RESET_GPU, Action.REBOOT_NODE}
        assert node.see(seconds=1e6).health == Health.UNHEALTHY, "silence never clears"

    @pytest.mark.parametrize(
        ("line", "severity", "action"),
        [
            ("94, pid=1, Contained: x. RST: No, D-RST: No", Severity.WARNING, Action.RESET_GPU_WHEN_IDLE),
            ("94, pid=1, Contained: x. RST: No, D-RST: Yes", Severity.CRITICAL, Action.DRAIN_AND_RESET_GPU),
            ("149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x1 0x0)", Severity.CRITICAL, Action.DRAIN_AND_RESET_GPU),
            ("154, changed from 0x0 (None) to 0x2 (OS Reboot)", Severity.CRITICAL, Action.REBOOT_NODE),
            ("154, changed from 0x0 (None) to 0x4 (Drain and Reset)", Severity.CRITICAL, Action.DRAIN_AND_RESET_GPU),
            ("154, changed from 0x0 (None) to 0x99 (?)", Severity.WARNING, Action.CONTACT_SUPPORT),
            ("999, words", Severity.WARNING, Action.CONTACT_SUPPORT),
        ],
    )
    def test_the_drivers_own_words_decide(self, line: str, severity: Severity, action: Action) -> None:
        node = Node()
        node.see()
        finding = only(node.hear(f"NVRM: Xid (PCI:0000:10:00): {line}"))
        assert (finding.severity, finding.action) == (severity, action)

    @pytest.mark.parametrize("line", ["63, Row Remapper: x", "145, RLW_SRC_TRACK Nonfatal XC1 i0 Link 17", "121, x"])
    def test_notes_are_listed_and_give_no_finding(self, line: str) -> None:
        node = Node()
        node.see()
        report = node.hear(f"NVRM: Xid (PCI:0000:10:00): {line}")
        assert report.findings == ()
        assert len(report.xids) == 1

    def test_unknown_codes_share_one_finding_per_gpu(self) -> None:
        node = Node()
        node.see()
        report = node.hear("NVRM: Xid (PCI:0000:10:00): 998, a", "NVRM: Xid (PCI:0000:10:00): 999, b")
        assert (only(report).reason, only(report).count) == ("UnclassifiedXID", 2)
        assert sorted(event.code for event in report.xids) == [998, 999]

    def test_recovery_clears_what_came_before_and_not_what_comes_after(self) -> None:
        node = Node()
        node.see()
        node.hear(
            "NVRM: Xid (PCI:0000:10:00): 119, Timeout",
            "NVRM: Xid (PCI:0000:11:00): 119, Timeout",
            "NVRM: Xid (PCI:0000:10:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (Reset)",
        )
        report = node.hear(
            "NVRM: Xid (PCI:0000:10:00): 154, GPU recovery action changed from 0x1 (Reset) to 0x0 (None)"
        )
        assert [(f.reason, f.subject.gpu_index) for f in report.findings] == [("XID119", 1)]
        again = node.hear("NVRM: Xid (PCI:0000:10:00): 119, Timeout")
        assert [f.subject.gpu_index for f in again.findings] == [0, 1]
        assert again.findings[0].count == 2

    def test_the_drivers_latest_demand_counts(self) -> None:
        node = Node()
        node.see()
        node.hear("NVRM: Xid (PCI:0000:10:00): 154, changed from 0x0 (None) to 0x2 (Reboot)")
        report = node.hear("NVRM: Xid (PCI:0000:10:00): 154, changed from 0x2 (Reboot) to 0x1 (Reset)")
        assert only(report).action == Action.DRAIN_AND_RESET_GPU

    def test_field_230_going_back_to_none_clears(self) -> None:
        node = Node()
        node.see()
        node.hear("NVRM: Xid (PCI:0000:10:00): 119, Timeout")
        assert node.see().health == Health.UNHEALTHY, "0 all along is no evidence"
        node.change(recovery_action=1)
        assert node.see().health == Health.HEALTHY

    def test_line_and_field_are_one_finding(self) -> None:
        node = Node()
        node.see()
        node.hear("NVRM: Xid (PCI:0000:10:00): 154, changed from 0x0 (None) to 0x1 (Reset)")
        assert only(node.change(recovery_action=2)).action == Action.REBOOT_NODE

    def test_a_driver_loaded_again_clears_all_but_a_lost_gpu(self) -> None:
        node = Node()
        node.see()
        node.hear("NVRM: Xid (PCI:0000:10:00): 119, x", "NVRM: Xid (PCI:0000:11:00): 79, x")
        node.see(fault=Capability.NO_DRIVER)
        assert [f.reason for f in node.see().findings] == ["GPULost"]

    def test_power_smoothing_comes_back(self) -> None:
        node = Node()
        node.see()
        assert node.hear("NVRM: Xid (PCI:0000:10:00): 163, x").health == Health.DEGRADED
        assert node.hear("NVRM: Xid (PCI:0000:10:00): 162, x").health == Health.HEALTHY

    def test_repeats_are_counted_and_are_no_news(self) -> None:
        node = Node()
        node.see()
        first = node.hear("NVRM: Xid (PCI:0000:10:00): 31, pid=1, name=train, a")
        again = node.hear(*[f"NVRM: Xid (PCI:0000:10:00): 31, pid={n}, name=train, b" for n in range(2, 50)])
        assert (again.xids[0].count, again.xids[0].id) == (49, first.xids[0].id)
        assert etag(again) == etag(first)

    def test_a_storm_keeps_what_matters_within_the_bound(self) -> None:
        node = Node()
        node.see()
        node.hear("NVRM: Xid (PCI:0000:10:00): 48, x")
        report = node.hear(*[f"NVRM: Xid (PCI:0000:10:00): 31, pid=1, name=p{n}, x" for n in range(200)])
        assert len(report.xids) == 64
        assert report.xids[-1].code == 48
        assert node.assessor.ledger.totals["0000:10:00.0", 31] == 200

    def test_a_mig_instance_is_named(self) -> None:
        node = Node()
        node.see()
        subject = only(node.hear("NVRM: Xid (PCI:0000:10:00 GPU-I:05 GPU-CI:01): 48, x")).subject
        assert (subject.mig_gpu_instance, subject.mig_compute_instance, subject.gpu_uuid) == (5, 1, "GPU-0")

    def test_the_kernels_own_map_names_a_gpu_that_nvml_cannot(self) -> None:
        node = Node()
        node.see([])
        node.hear("NVRM: GPU at PCI:0000:77:00: GPU-abcdef12", "NVRM: GPU Board Serial Number: 42")
        report = node.see([GPUSample(index=0, pci="00000000:77:00.0", errors=LOST)])
        assert (report.gpus[0].uuid, report.gpus[0].serial) == ("GPU-abcdef12", "42")

    def test_a_dead_driver_leaves_the_kernels_own_map(self) -> None:
        node = Node()
        node.see(fault=Capability.DRIVER_HUNG)
        node.hear("NVRM: GPU at PCI:0000:77:00: GPU-abcdef12", "NVRM: GPU Board Serial Number: 42")
        report = node.hear("NVRM: Xid (PCI:0000:77:00): 48, x")
        assert report.xids[0].subject == wire.Subject(gpu_uuid="GPU-abcdef12", pci="0000:77:00.0", serial="42")
        assert report.health == Health.UNHEALTHY

    def test_a_kernel_line_about_a_gpu_nobody_knows_is_kept(self) -> None:
        node = Node()
        node.see()
        report = node.hear("NVRM: Xid (PCI:0000:99:00): 48, x")
        assert only(report).subject == wire.Subject(pci="0000:99:00.0")
        assert report.health == Health.UNHEALTHY

    def test_same_log_same_meaning_after_a_restart(self) -> None:
        lines = ["NVRM: Xid (PCI:0000:10:00): 48, x", "NVRM: Xid (PCI:0000:11:00): 31, pid=1, name=a, x"]
        tags = set()
        for _ in range(2):
            node = Node()
            node.see()
            tags.add(etag(node.hear(*lines)))
        assert len(tags) == 1

    def test_the_catalogue_names_every_code_it_judges(self) -> None:
        assert all(entry.name and entry.meaning for entry in CATALOGUE.values())
        assert {13, 31, 43, 45, 48, 63, 64, 74, 79, 94, 95, 109, 119, 123, 143, 144, 150, 154, 160} <= set(CATALOGUE)
