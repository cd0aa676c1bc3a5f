"""Findings that are rates: corrected errors, PCIe replays and errors, retired pages; and links and limits over time."""

import msgspec
import pytest
from tests.unit.agent.judged_node import Node, only
from tests.unit.agent.test_checks_recall import VOLTA, WORKING, link

from gpudiag_agent.host.facts import PCIDevice
from gpudiag_agent.sample import PCIeSample
from gpudiag_agent.thresholds import PCIeErrorLimits, PCIeLinkLimits, PowerLimits, Thresholds
from gpudiag_api.vocabulary import Action, Blame, Capability, Check, Health, Severity
from gpudiag_api.wire import Finding, Report

HOUR, DAY = 3600.0, 86_400.0


def words(finding: Finding) -> tuple[object, ...]:
    return finding.check, finding.reason, finding.severity, finding.blame, finding.action


def counted(node: Node, seconds: float = 10, **values: object) -> Report:
    gpu = msgspec.structs.replace(node.gpus[1], **values)
    node.gpus[1] = gpu
    return node.see(seconds=seconds)


def errors(**counters: int) -> PCIeSample:
    return link(errors=counters)


class TestPCIeErrors:
    @pytest.mark.parametrize(
        ("before", "after", "expected", "clears_after"),
        [
            (link(replays=900), link(replays=909), ("ReplayRate", Severity.WARNING), 910.0),
            (errors(fatal=3), errors(fatal=4), ("FatalErrors", Severity.CRITICAL), HOUR + 310),
            (errors(non_fatal=3), errors(non_fatal=4), ("NonFatalErrors", Severity.WARNING), HOUR + 310),
            (errors(correctable=0), errors(correctable=1001), ("CorrectableErrors", Severity.INFO), 2 * HOUR + 310),
        ],
    )
    def test_too_many_are_seen_at_the_second_look_and_clear_by_time(
        self, before: PCIeSample, after: PCIeSample, expected: tuple[str, Severity], clears_after: float
    ) -> None:
        node = Node([WORKING] * 2)
        assert counted(node, pcie=before).findings == ()
        report = counted(node, pcie=after)
        finding = only(report)
        action = Action.NONE if expected[1] is Severity.INFO else Action.RESEAT_OR_CHECK_LINK
        assert words(finding) == (Check.PCIE_ERRORS, *expected, Blame.HARDWARE, action)
        assert finding.subject.gpu_index == 1
        assert finding.evidence[0].unit
        began = node.now
        while node.see().findings:
            assert node.now - began < clears_after
        assert node.now - began > clears_after * 0.8

    @pytest.mark.parametrize(
        ("errors", "reason"),
        [
            ({"non_fatal": 4, "unsupported_request": 3}, "NonFatalErrors"),
            ({"non_fatal": 4, "unsupported_request": 4}, None),
            ({"correctable": 1001}, "CorrectableErrors"),
        ],
    )
    def test_the_kernel_is_a_second_witness(self, errors: dict[str, int], reason: str | None) -> None:
        node = Node([WORKING] * 2)
        for counts in (dict.fromkeys(errors, 0), errors):
            report = node.see(pci=tuple(PCIDevice(f"0000:1{index}:00.0", "nvidia", None, counts) for index in range(2)))
        assert {finding.reason for finding in report.findings} == ({reason} if reason else set())

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (link(replays=0), link(replays=8)),
            (link(replays=10**6), link(replays=0)),
            (errors(non_fatal=5, unsupported_request=5), errors(non_fatal=9, unsupported_request=9)),
            (errors(naks_sent=0, naks_received=0, l0_to_recovery=0), errors(naks_sent=9**9, l0_to_recovery=9**9)),
            (errors(fatal=7), errors(fatal=0)),
        ],
        ids=["8 a minute", "driver reload", "probing software", "how a link works", "reset"],
    )
    def test_what_is_no_fault(self, before: PCIeSample, after: PCIeSample) -> None:
        node = Node([WORKING] * 2)
        assert [counted(node, pcie=one).findings for one in (before, after, after)] == [()] * 3

    def test_errors_while_the_agent_was_away_are_no_burst(self) -> None:
        node = Node([WORKING] * 2)
        counted(node, pcie=link(replays=0))
        node.start()
        assert counted(node, seconds=HOUR, pcie=link(replays=400)).findings == ()

    def test_a_restart_of_the_agent_changes_nothing(self) -> None:
        node = Node([WORKING] * 2)
        counted(node, pcie=link(replays=0))
        counted(node, pcie=link(replays=50))
        node.start()
        assert only(node.see()).reason == "ReplayRate"

    def test_a_reboot_clears(self) -> None:
        node = Node([WORKING] * 2)
        counted(node, pcie=link(replays=0))
        counted(node, pcie=link(replays=50))
        node.start("another boot")
        assert [counted(node, pcie=link(replays=0)).findings for _ in range(3)] == [()] * 3

    def test_a_fault_during_the_restart_is_seen(self) -> None:
        node = Node([WORKING] * 2)
        counted(node, pcie=errors(fatal=0))
        node.start()
        assert only(counted(node, seconds=60, pcie=errors(fatal=1))).reason == "FatalErrors"

    def test_new_limits_hold_at_once(self) -> None:
        node = Node([WORKING] * 2)
        counted(node, pcie=link(replays=0))
        assert counted(node, pcie=link(replays=5)).findings == ()
        node.thresholds = Thresholds(pcie_errors=PCIeErrorLimits(replays_per_minute=4))
        finding = only(node.report())
        assert (finding.reason, finding.evidence[0].value, finding.evidence[0].threshold) == ("ReplayRate", "5", "4")

    def test_a_gpu_that_lost_its_counters_is_silent(self) -> None:
        node = Node([WORKING] * 2)
        counted(node, pcie=link(replays=0))
        counted(node, pcie=link(replays=50))
        assert counted(node, pcie=None).findings == ()


class TestCorrectedErrors:
    def test_a_storm(self) -> None:
        node = Node([WORKING] * 2)
        node.see()
        assert counted(node, ecc_corrected_volatile=112).findings == ()
        finding = only(counted(node, ecc_corrected_volatile=1014))
        judged = (Severity.WARNING, Blame.HARDWARE, Action.RUN_DIAGNOSTICS)
        assert words(finding) == (Check.ECC_CORRECTED, "CorrectedErrorStorm", *judged)
        shown = finding.evidence[0]
        assert (shown.value, shown.threshold, shown.unit) == ("1002", "1000", "errors/h")

    def test_then_a_trend_then_nothing(self) -> None:
        node = Node([WORKING] * 2)
        node.see()
        counted(node, ecc_corrected_volatile=2000)
        reasons = [[f.reason for f in node.see(seconds=HOUR / 2).findings] for _ in range(110)]
        assert reasons[2] == ["CorrectedErrorStorm"]
        assert reasons[5:90] == [["CorrectedErrorTrend"]] * 85
        assert reasons[101] == []

    def test_a_trickle_is_what_ecc_is_for(self) -> None:
        node = Node([WORKING] * 2)
        for hour in range(72):
            assert counted(node, seconds=HOUR, ecc_corrected_volatile=12 + 4 * hour).findings == ()

    def test_a_driver_reload_is_no_storm(self) -> None:
        node = Node([WORKING] * 2)
        counts = [10**6, 10**6, 0, 3, 10**5 // 200, 0]
        assert [counted(node, ecc_corrected_volatile=count).health for count in counts] == [Health.HEALTHY] * 6


class TestRetiredPages:
    def test_growth_beyond_fifteen_double_bit_pages(self) -> None:
        node = Node([VOLTA] * 2)
        counted(node, retired_pages_double_bit=14)
        assert counted(node, seconds=DAY, retired_pages_double_bit=15).findings == ()
        finding = only(counted(node, seconds=DAY, retired_pages_double_bit=16))
        judged = (Severity.CRITICAL, Blame.HARDWARE, Action.REPLACE_GPU)
        assert words(finding) == (Check.RETIRED_PAGES, "RetiredPagesGrowing", *judged)
        assert [(one.name, one.value, one.threshold) for one in finding.evidence] == [
            ("retiredPagesDoubleBit", "16", "15"),
            ("newPages", "2", "1"),
        ]
        node.start("another boot")
        assert only(node.see()).reason == "RetiredPagesGrowing"
        assert [node.see(seconds=DAY).findings for _ in range(8)][-1] == ()

    def test_many_that_are_old_are_no_growth(self) -> None:
        node = Node([VOLTA] * 2)
        for _ in range(20):
            assert counted(node, seconds=DAY, retired_pages_double_bit=40).findings == ()


class TestPCIeLink:
    def test_idle_drops_the_generation_and_says_nothing(self) -> None:
        node = Node([WORKING] * 2)
        slow = link(generation=1)
        for idle in ({"performance_state": 8}, {"clock_event_reasons": 0x1}, {"utilization_percent": 3}):
            assert [node.change(1, pcie=slow, **idle).findings for _ in range(10)] == [()] * 10

    def test_short_jobs_do_not_add_up(self) -> None:
        node = Node([WORKING] * 2)
        for _ in range(10):
            assert node.change(1, pcie=link(generation=1)).findings == ()
            assert node.change(1, pcie=link(generation=1), performance_state=8).findings == ()

    def test_once_raised_only_full_speed_clears(self) -> None:
        node = Node([WORKING] * 2)
        for _ in range(4):
            node.change(1, pcie=link(generation=3))
        for _ in range(5):
            assert only(node.change(1, pcie=link(generation=1), performance_state=8)).evidence[0].value == "3"
        assert node.change(1).findings == ()

    def test_a_narrow_slot_can_be_accepted(self) -> None:
        node = Node([WORKING] * 2)
        node.thresholds = Thresholds(pcie_link=PCIeLinkLimits(lowest_width=8, lowest_generation=4))
        assert [node.change(1, pcie=link(width=8, generation=4)).findings for _ in range(10)] == [()] * 10
        found = [node.change(1, pcie=link(width=4, generation=3)) for _ in range(10)][-1].findings
        assert {finding.evidence[0].threshold for finding in found} == {"8", "4"}


class TestPowerLimit:
    def test_a_moment_is_nothing(self) -> None:
        node = Node([WORKING] * 2)
        for number in range(40):
            assert node.change(1, power_limit_milliwatts=500_000 if number % 10 else 700_000).findings == ()

    def test_a_policy_makes_it_a_fault(self) -> None:
        node = Node([WORKING] * 2)
        node.thresholds = Thresholds(power=PowerLimits(lowest_limit_percent=90))
        report = [node.change(1, power_limit_milliwatts=500_000) for _ in range(13)][-1]
        judged = (Severity.WARNING, Blame.ENVIRONMENT, Action.CHECK_POWER)
        assert words(only(report)) == (Check.POWER, "PowerLimitTooLow", *judged)

    def test_more_than_the_default_is_nothing(self) -> None:
        node = Node([WORKING] * 2)
        assert [node.change(1, power_limit_milliwatts=750_000).findings for _ in range(20)] == [()] * 20

    def test_a_hung_driver_keeps_it(self) -> None:
        node = Node([WORKING] * 2)
        for _ in range(13):
            node.change(1, power_limit_milliwatts=500_000)
        node.see(fault=Capability.DRIVER_HUNG)
        assert only(node.change(1, power_limit_milliwatts=500_000)).reason == "PowerLimitLowered"
