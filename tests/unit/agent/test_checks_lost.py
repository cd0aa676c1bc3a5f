"""GPUs that are gone, missing or silent, and an agent that cannot see: each by its name, and its neighbours judged."""

import msgspec
import pytest
from tests.unit.agent.judged_node import HOPPER, LOST, Node, only

from gpudiag_agent.host.facts import PCIDevice
from gpudiag_agent.sample import CallError, GPUSample
from gpudiag_api import wire
from gpudiag_api.meaning import etag
from gpudiag_api.vocabulary import Blame, Capability, Check, Health, Severity


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

    def test_a_vital_detail_that_keeps_failing_is_no_less(self) -> None:
        node = Node()
        for call in ("nvmlDeviceGetSramEccErrorStatus", "nvmlDeviceGetFieldValues(230)", "nvmlDeviceGetNvLinkState"):
            failed = (CallError(call, 999, "NVML_ERROR_UNKNOWN"),)
            assert node.change(unread=failed).findings == ()
            report = node.change(unread=failed)
            assert only(report).reason == "ReadFailed"
            assert report.gpus[0].health == Health.UNKNOWN
            assert node.see().health == Health.HEALTHY

    def test_a_detail_that_can_hide_no_critical_fault_is_named_with_what_it_feeds(self) -> None:
        node = Node()
        failed = (CallError("nvmlDeviceGetCurrPcieLinkWidth", 999, "NVML_ERROR_UNKNOWN"),)
        assert node.change(unread=failed).findings == ()
        report = node.change(unread=failed)
        assert (only(report).reason, report.gpus[0].health) == ("GPUPartlyReadable", Health.HEALTHY)
        assert "PCIeLink cannot be judged" in only(report).message
        assert only(report).evidence[0].name == "nvmlDeviceGetCurrPcieLinkWidth"
        assert node.see().findings == ()

    def test_calls_that_fail_in_turns_are_none_that_keeps_failing(self) -> None:
        node = Node()
        for call in ("nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetRemappedRows", "nvmlDeviceGetNvLinkState"):
            assert node.change(unread=(CallError(call, 27, "NVML_ERROR_NOT_READY"),)).findings == ()

    def test_what_is_refused_to_the_agent_is_the_doing_of_its_environment(self) -> None:
        node = Node()
        refused = (CallError("nvmlDeviceGetNvLinkState", 4, "NVML_ERROR_NO_PERMISSION"),)
        node.change(unread=refused)
        finding = only(node.change(unread=refused))
        assert (finding.reason, finding.blame) == ("ReadFailed", Blame.ENVIRONMENT)
        assert finding.message.endswith("Run the agent as root, in a container privileged.")

    def test_a_finding_stands_while_what_it_was_read_from_fails(self) -> None:
        node = Node()
        node.change(sram_threshold_exceeded=True)
        failed = (CallError("nvmlDeviceGetSramEccErrorStatus", 999, "NVML_ERROR_UNKNOWN"),)
        for _ in range(5):
            report = node.change(sram_threshold_exceeded=None, unread=failed)
            assert (report.findings[0].reason, report.health) == ("SRAMThresholdExceeded", Health.UNHEALTHY)

    def test_a_gpu_that_gives_nothing_is_unknown_at_once(self) -> None:
        node = Node()
        silent = GPUSample(
            index=0, uuid="GPU-0", errors=(CallError("nvmlDeviceGetHandleByIndex_v2", 999, "NVML_ERROR_UNKNOWN"),)
        )
        report = node.see([silent, node.gpus[1]])
        assert only(report).reason == "GPUNotReadable"
        assert report.gpus[0].health == Health.UNKNOWN
