"""Switch errors and kernel lines without an XID as findings: what raises them, and what ends them."""

import pytest
from tests.unit.agent.judged_node import Node, only

from gpudiag_agent.host.facts import PCIDevice
from gpudiag_api.vocabulary import Action, Blame, Capability, Health, Severity
from gpudiag_api.wire import Finding

GPU = "0000:10:00.0"
LOADED = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.133.20"


def seen() -> Node:
    node = Node()
    node.see()
    return node


def short(finding: Finding) -> tuple[str, str, Severity, Blame, Action]:
    return (finding.check, finding.reason, finding.severity, finding.blame, finding.action)


class TestSwitch:
    FATAL = "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up"

    def test_a_fatal_error_makes_the_node_unhealthy_and_names_switch_and_link(self) -> None:
        node = seen()
        report = node.hear(self.FATAL, self.FATAL.replace("Fatal, Link 30 LTSSM Fault Up", "Data {0x1}"))
        finding = only(report)
        assert short(finding) == ("SXID", "SXid20034", Severity.CRITICAL, Blame.HARDWARE, Action.REBOOT_NODE)
        assert (finding.subject.pci, finding.subject.link, finding.count) == ("0000:05:00.0", "nvlink 30", 1)
        assert report.health == Health.UNHEALTHY
        assert {gpu.health for gpu in report.gpus} == {Health.HEALTHY}
        assert node.see(seconds=1e6).health == Health.UNHEALTHY, "silence never clears"
        assert node.hear(LOADED).findings == ()

    def test_a_reboot_ends_it(self) -> None:
        node = seen()
        node.hear(self.FATAL)
        node.decoder._boot = type(node.decoder._boot)("boot-2", node.now - 100)
        assert node.hear("NVRM: GPU at PCI:0000:10:00: GPU-abcdef12").findings == ()

    def test_links_are_told_apart(self) -> None:
        report = seen().hear(self.FATAL, self.FATAL.replace("Link 30", "Link 31"))
        assert {finding.subject.link for finding in report.findings} == {"nvlink 30", "nvlink 31"}

    def test_one_that_is_not_fatal_is_a_warning_for_a_day(self) -> None:
        node = seen()
        line = "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error"
        assert only(node.hear(line)).severity == Severity.WARNING
        assert node.see(seconds=86_300).health == Health.DEGRADED
        assert node.see(seconds=200).findings == ()

    def test_corrected_errors_are_no_finding_and_unknown_ones_never_degrade(self) -> None:
        node = seen()
        head = "nvidia-nvswitch3: SXid (PCI:0000:05:00.0)"
        assert node.hear(f"{head}: 20001, Non-fatal, Link 32 TX Replay Error").findings == ()
        finding = only(node.hear(f"{head}: 11999, Non-fatal, Link 32 new"))
        assert (finding.reason, finding.severity) == ("UnclassifiedSXid", Severity.INFO)

    def test_a_hot_switch_cools_down(self) -> None:
        node = seen()
        head = "nvidia-nvswitch3: SXid (PCI:0000:05:00.0)"
        assert only(node.hear(f"{head}: 10004, Non-fatal, thermal event start")).action == Action.CHECK_COOLING
        assert node.hear(f"{head}: 10005, Non-fatal, thermal event end").findings == ()

    def test_one_that_reboots_do_not_mend(self) -> None:
        node = seen()
        for boot in ("boot-1", "boot-2"):
            node.decoder._boot = type(node.decoder._boot)(boot, node.now - 100)
            node.hear(self.FATAL)
        assert {f.reason for f in node.report().findings} == {"SXid20034"}
        node.decoder._boot = type(node.decoder._boot)("boot-3", node.now - 100)
        found = {f.reason: f.action for f in node.hear(self.FATAL).findings}
        assert found["SwitchFaultSurvivesReboots"] == Action.RUN_DIAGNOSTICS

    def test_a_fault_of_another_switch_did_not_survive_its_reboots(self) -> None:
        node = seen()
        for number in (1, 2, 3):
            node.decoder._boot = type(node.decoder._boot)(f"boot-{number}", node.now - 100)
            found = {f.reason for f in node.hear(self.FATAL.replace("05:00", f"0{number}:00")).findings}
        assert found == {"SXid20034"}


class TestAdapter:
    FAILED = "NVRM: GPU 0000:10:00.0: RmInitAdapter failed! (0x24:0xffff:1568)"
    SECOND = "NVRM: GPU 0000:10:00.0: rm_init_adapter failed, device minor number 0"

    def test_two_lines_are_one_failure_until_the_gpu_answers(self) -> None:
        node = seen()
        finding = only(node.hear(self.FAILED, self.SECOND))
        assert short(finding) == (
            "AdapterInit",
            "AdapterInitFailed",
            Severity.CRITICAL,
            Blame.HARDWARE,
            Action.REBOOT_NODE,
        )
        assert (finding.count, finding.subject.gpu_index) == (1, 0)
        assert "0x24:0xffff:1568" in finding.message
        assert node.see(fault=Capability.DRIVER_HUNG).health == Health.UNHEALTHY
        assert node.see().findings == ()

    def test_a_second_failure_counts(self) -> None:
        node = seen()
        node.hear(self.FAILED, self.SECOND)
        node.now += 60
        assert only(node.hear(self.FAILED)).count == 2

    def test_a_gpu_that_was_not_probed(self) -> None:
        node = seen()
        line = "NVRM: The NVIDIA probe routine was not called for 1 device(s)."
        assert short(only(node.hear(line)))[1:3] == ("GPUNotProbed", Severity.WARNING)
        with_vm = (PCIDevice(GPU, "nvidia"), PCIDevice("0000:11:00.0", "vfio-pci"))
        report = node.see(pci=with_vm)
        assert [f.severity for f in report.findings if f.reason == "GPUNotProbed"] == [Severity.INFO]
        bound = (PCIDevice(GPU, "nvidia"), PCIDevice("0000:11:00.0", "nvidia"))
        assert node.see(pci=bound).findings == ()


class TestGSP:
    LINE = (
        "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:0000:10:00 (printing 1 of every 30).  "
        "The GPU likely needs to be reset."
    )

    @pytest.mark.parametrize(
        "evidence", [LOADED, "NVRM: Xid (PCI:0000:10:00): 154, GPU recovery action changed from 0x1 (x) to 0x0 (None)"]
    )
    def test_a_storm_lasts_until_recovery(self, evidence: str) -> None:
        node = seen()
        assert short(only(node.hear(self.LINE))) == (
            "GSP",
            "GSPErrorStorm",
            Severity.CRITICAL,
            Blame.DRIVER,
            Action.DRAIN_AND_RESET_GPU,
        )
        assert node.see(seconds=1e6).health == Health.UNHEALTHY
        assert node.hear(evidence).findings == ()


def test_a_client_of_another_version_is_no_fault_of_the_gpu() -> None:
    node = seen()
    report = node.hear(
        "NVRM: API mismatch: the client 'nvidia-smi' (pid 42)\nNVRM: has the version 535.1, but this kernel module has"
        "\nNVRM: the version 550.2.  Please make sure that this"
    )
    finding = only(report)
    assert (finding.check, finding.reason, finding.severity) == ("Driver", "ClientVersionMismatch", Severity.INFO)
    assert "535.1" in finding.message
    assert "550.2" in finding.message
    assert report.health == Health.HEALTHY
    assert node.see(seconds=3601).findings == ()


def test_links_that_did_not_train() -> None:
    node = seen()
    line = "NVRM: knvlinkUpdatePostRxDetectLinkMask_IMPL: Failed to update Rx Detect Link mask!"
    finding = only(node.hear(line))
    assert (finding.check, finding.reason, finding.severity) == ("NVLink", "LinkTrainingFailed", Severity.WARNING)
    assert node.hear(LOADED).findings == ()


def test_peer_memory_is_a_note_for_an_hour() -> None:
    node = seen()
    line = "nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid context, skipping further processing"
    assert only(node.hear(line)).severity == Severity.INFO
    assert node.see(seconds=3601).findings == ()


def test_a_crash_within_nccl_is_no_finding() -> None:
    node = seen()
    assert node.hear("pt_main_thread[2536443]: segfault at 7 ip 7 sp 7 error 4 in libnccl.so.2[7]").findings == ()
