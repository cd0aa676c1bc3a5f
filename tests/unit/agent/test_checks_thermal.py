"""Temperature and throttling: limits, hysteresis, windows."""

import msgspec
import pytest
from tests.unit.agent.judged_node import HOPPER, Node, only

from gpudiag_agent.sample import ThrottleTimes
from gpudiag_agent.thresholds import TemperatureLimits, Thresholds, ThrottlingLimits
from gpudiag_api.vocabulary import Action, Capability, Severity

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

    def test_time_that_no_look_saw_counts_too(self) -> None:
        node = Node()
        spent = 0
        for _ in range(7):
            spent += 8_000_000_000
            report = node.change(1, clock_event_reasons=0, throttle_times=ThrottleTimes(hardware_thermal=spent))
        finding = only(report)
        assert (finding.reason, finding.evidence[0].value) == ("HardwareThermalSlowdown", "80")
        for _ in range(8):
            report = node.change(1, throttle_times=ThrottleTimes(hardware_thermal=spent))
        assert report.findings == ()

    def test_years_of_slowdown_before_the_agent_and_a_driver_reload_are_nothing(self) -> None:
        node = Node()
        for spent in [10**18] * 6 + [0] * 6:
            times = ThrottleTimes(software_thermal=spent, hardware_thermal=spent, hardware_power_brake=spent)
            assert node.change(throttle_times=times).findings == ()

    def test_a_driver_reload_hides_no_slowdown(self) -> None:
        node = Node()
        for seconds in (800, 808, 816, 0, 8, 16, 24):
            report = node.change(clock_event_reasons=0, throttle_times=ThrottleTimes(hardware_thermal=seconds * 10**9))
        assert only(report).evidence[0].value == "80"

    def test_a_gpu_that_does_not_tell_hides_no_other(self) -> None:
        node = Node([msgspec.structs.replace(HOPPER, clock_event_reasons=None), HOPPER])
        reports = [node.change(1, clock_event_reasons=0x40) for _ in range(6)]
        assert only(reports[5]).subject.gpu_index == 1

    def test_minutes_of_different_gpus_do_not_add_up(self) -> None:
        node = Node([HOPPER] * 4)
        for number in range(40):
            assert node.change(number % 4, clock_event_reasons=0x40).findings == ()

    def test_shares_can_be_configured(self) -> None:
        node = Node()
        node.thresholds = Thresholds(throttling=ThrottlingLimits(raise_percent=100))
        bits = [0x40, 0x40, 0x40, 0x40, 0] * 4
        assert [node.change(clock_event_reasons=one).findings for one in bits] == [()] * 20


class TestConfiguredTemperature:
    def test_a_lower_limit_than_the_gpus_own(self) -> None:
        node = Node()
        assert node.change(temperature_celsius=80).findings == ()
        node.thresholds = Thresholds(temperature=TemperatureLimits(gpu_celsius=75, memory_celsius=40))
        report = node.change(1, temperature_celsius=80)
        shown = [(f.reason, f.subject.gpu_index, f.evidence[0].value, f.evidence[0].threshold) for f in report.findings]
        assert set(shown) == {
            ("Overheating", 1, "80", "75"),
            ("MemoryOverheating", 0, "50", "40"),
            ("MemoryOverheating", 1, "50", "40"),
        }
        assert "configured limit" in report.findings[0].message

    def test_a_limit_that_is_raised_again_clears(self) -> None:
        node = Node()
        node.thresholds = Thresholds(temperature=TemperatureLimits(gpu_celsius=40, clear_after_seconds=20))
        assert len(node.see().findings) == 2
        node.thresholds = Thresholds(temperature=TemperatureLimits(clear_after_seconds=20))
        assert [len(node.see().findings) for _ in range(4)] == [2, 2, 0, 0]

    def test_the_gpus_own_limits_hold_beside_it(self) -> None:
        node = Node([AMPERE])
        node.thresholds = Thresholds(temperature=TemperatureLimits(gpu_celsius=90))
        assert only(node.change(temperature_celsius=92)).severity == Severity.CRITICAL


class TestMargin:
    @pytest.mark.parametrize("driver", ["535.183.01", "550.90.07"])
    def test_margins_below_zero_mean_nothing_on_old_drivers(self, driver: str) -> None:
        node = Node()
        node.driver = {"driver_version": driver}
        assert node.change(thermal_margin_celsius=-40).findings == ()

    @pytest.mark.parametrize("driver", ["570.86.15", "580.95.05", None])
    def test_and_count_on_new_ones(self, driver: str | None) -> None:
        node = Node()
        node.driver = {"driver_version": driver}
        assert only(node.change(thermal_margin_celsius=-3)).evidence[0].name == "thermalMargin"
