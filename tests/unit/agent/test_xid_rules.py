"""XIDs as findings: the application's never degrade, the hardware's stay until evidence clears them."""

import pytest
from tests.unit.agent.judged_node import LOST, Node, only

from gpudiag_agent.sample import GPUSample
from gpudiag_api import wire
from gpudiag_api.meaning import etag
from gpudiag_api.vocabulary import Action, Blame, Capability, Health, Severity

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
            ("94, pid=1, Contained: x. RST: Yes, D-RST: No", Severity.CRITICAL, Action.DRAIN_AND_RESET_GPU),
            ("95, pid=1, Uncontained: x. RST: Yes, D-RST: No", Severity.CRITICAL, Action.DRAIN_AND_RESET_GPU),
            ("95, pid=1, Uncontained: x. RST: No, D-RST: No", Severity.CRITICAL, Action.DRAIN_AND_RESET_GPU),
            ("95, pid=1, Uncontained: x.", Severity.CRITICAL, Action.DRAIN_AND_RESET_GPU),
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

    def test_only_that_gpus_and_only_what_was_before(self) -> None:
        node = Node()
        node.see()
        node.hear("NVRM: Xid (PCI:0000:11:00): 163, x", "NVRM: Xid (PCI:0000:10:00): 119, x")
        report = node.hear("NVRM: Xid (PCI:0000:10:00): 162, x")
        assert {(f.reason, f.subject.gpu_index) for f in report.findings} == {("XID163", 1), ("XID119", 0)}
        assert len(node.hear("NVRM: Xid (PCI:0000:10:00): 163, x").findings) == 3, "it failed again"

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


class TestWorkflows:
    def test_the_drivers_demand_overrides_the_codes_own_action(self) -> None:
        node = Node()
        node.see()
        node.hear("NVRM: Xid (PCI:0000:10:00): 119, Timeout", "NVRM: Xid (PCI:0000:11:00): 119, Timeout")
        report = node.hear("NVRM: Xid (PCI:0000:10:00): 154, changed from 0x0 (None) to 0x2 (OS Reboot)")
        actions = {(f.reason, f.subject.gpu_index): f.action for f in report.findings}
        assert actions["XID119", 0] == Action.REBOOT_NODE
        assert actions["XID119", 1] == Action.DRAIN_AND_RESET_GPU

    def test_it_also_makes_it_lighter(self) -> None:
        node = Node()
        node.see()
        node.hear("NVRM: Xid (PCI:0000:10:00): 167, PCIe")
        report = node.change(recovery_action=1)
        assert {f.action for f in report.findings} == {Action.DRAIN_AND_RESET_GPU}

    def test_where_an_uncorrectable_error_is(self) -> None:
        node = Node()
        node.see()
        report = node.hear("NVRM: Xid (PCI:0000:10:00): 171, x", "NVRM: Xid (PCI:0000:10:00): 48, x")
        finding = only(report)
        assert finding.reason == "XID48"
        assert {e.name: e.value for e in finding.evidence}["memory"] == "DRAM"
        assert len(report.xids) == 2

    def test_a_recorded_remap_where_the_gpu_cannot_tell(self) -> None:
        node = Node()
        node.change(remap_pending=None)
        finding = only(node.hear("NVRM: Xid (PCI:0000:10:00): 63, Row Remapper: New row marked for remapping"))
        assert (finding.severity, finding.action) == (Severity.WARNING, Action.RESET_GPU_WHEN_IDLE)
        assert node.see().findings == (), "the GPU tells again, and nothing waits"

    def test_a_contained_error_ends_when_no_repair_waits(self) -> None:
        node = Node()
        node.see()
        node.hear("NVRM: Xid (PCI:0000:10:00): 94, pid=1, Contained: x. RST: No, D-RST: No")
        assert node.see(seconds=3500).health == Health.DEGRADED
        assert node.see(seconds=200).health == Health.HEALTHY

    def test_a_warning_ends_after_three_days(self) -> None:
        node = Node()
        node.see()
        assert node.hear("NVRM: Xid (PCI:0000:10:00): 109, x").health == Health.DEGRADED
        assert node.see(seconds=3 * 86400 + 1).health == Health.HEALTHY

    def test_a_link_is_named(self) -> None:
        node = Node()
        node.see()
        line = "NVRM: Xid (PCI:0000:10:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link {:02} (0x025525c6 0x0)"
        report = node.hear(line.format(9), line.format(10))
        assert {f.subject.link for f in report.findings} == {"nvlink 9", "nvlink 10"}
        assert {event.subject.link for event in report.xids} == {"nvlink 9", "nvlink 10"}
        assert report.gpus[0].health == Health.UNHEALTHY

    def test_a_clean_up_speaks_only_when_it_is_alone(self) -> None:
        node = Node()
        node.see()
        line = "NVRM: Xid (PCI:0000:10:00): 45, pid=1, name=a, Ch 1"
        assert only(node.hear(line)).blame == Blame.APPLICATION
        node = Node()
        node.see()
        assert node.hear(line + " caused by previous Xid 48").findings == ()

    def test_different_jobs_at_one_place_degrade_the_gpu(self) -> None:
        node = Node()
        node.see()
        line = "NVRM: Xid (PCI:0000:10:00): 13, pid={}, name={}, Graphics SM Warp Exception on (GPC 1, TPC 3, SM 0): x"
        assert node.hear(line.format(1, "a")).health == Health.HEALTHY
        node.now += 60
        report = node.hear(line.format(2, "b"))
        assert {f.reason: f.severity for f in report.findings} == {
            "XID13": Severity.INFO,
            "XID13Repeated": Severity.WARNING,
        }
        assert node.see(seconds=86401).findings == ()

    def test_the_report_says_what_a_code_is_about(self) -> None:
        node = Node()
        node.see()
        (event,) = node.hear("NVRM: Xid (PCI:0000:10:00): 48, x").xids
        assert (event.name, event.kind) == ("ROBUST_CHANNEL_GPU_ECC_DBE", "Memory")
