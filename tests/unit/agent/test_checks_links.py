"""Links between processors: NVLink, its errors, C2C, and the fabric; what raises, what clears, what is no fault."""

from collections.abc import Iterable, Mapping

import msgspec
import pytest

from gpudiag_agent.checks.base import Check as CheckProtocol
from gpudiag_agent.checks.base import Problem, View
from gpudiag_agent.checks.c2c.rule import C2C
from gpudiag_agent.checks.counters import Counters
from gpudiag_agent.checks.fabric.rule import Fabric
from gpudiag_agent.checks.nvlink.baseline import LinkBaseline
from gpudiag_agent.checks.nvlink.rule import NVLink
from gpudiag_agent.checks.nvlink_errors.rule import NVLinkErrors
from gpudiag_agent.host.facts import HostFacts
from gpudiag_agent.sample import C2CLinkSample, FabricSample, GPUSample, NVLinkSample, Sample, SourceFault
from gpudiag_agent.thresholds import NVLinkErrorLimits, Thresholds
from gpudiag_api.vocabulary import Action, Blame, Capability, Severity

START = 1_800_000_000.0
HOUR = 3600.0


def links(
    *down: int, count: int = 18, remote: str = "switch", errors: Mapping[str, int] | None = None
) -> tuple[NVLinkSample, ...]:
    return tuple(
        NVLinkSample(link=number, active=number not in down, remote_kind=remote, errors=errors or {})
        for number in range(count)
    )


def gpu(index: int, **values: object) -> GPUSample:
    model = values.pop("model", "NVIDIA H100 80GB HBM3")
    return GPUSample(index=index, uuid=f"GPU-{index}", pci=f"0000:{index:02x}:00.0", model=model, **values)  # type: ignore[arg-type]


def node(count: int = 8, **values: object) -> tuple[GPUSample, ...]:
    return tuple(gpu(index, **values) for index in range(count))


def changed(gpus: tuple[GPUSample, ...], index: int = 3, **values: object) -> tuple[GPUSample, ...]:
    return tuple(msgspec.structs.replace(one, **values) if one.index == index else one for one in gpus)


class Watched:
    """One check that looks every 10 s."""

    def __init__(self, check: CheckProtocol, *, nvswitches: int | None = 4, limits: Thresholds | None = None) -> None:
        self.check = check
        self.now = START
        self.host = HostFacts(nvswitches=nvswitches)
        self.limits = limits or Thresholds()

    def see(self, gpus: Iterable[GPUSample], *, seconds: float = 10, fault: bool = False) -> list[Problem]:
        self.now += seconds
        cause = SourceFault(Capability.DRIVER_HUNG, "hangs") if fault else None
        sample = Sample(taken_at=self.now, gpus=tuple(gpus), fault=cause)
        self.check.observe(sample)
        return list(self.check.judge(View(now=self.now, sample=sample, host=self.host, thresholds=self.limits)))

    def judge(self, gpus: tuple[GPUSample, ...], *, seconds: float) -> list[Problem]:
        """Between two looks: a kernel line came."""
        self.now += seconds
        sample = Sample(taken_at=self.now - seconds, gpus=gpus)
        return list(self.check.judge(View(now=self.now, sample=sample, host=self.host, thresholds=self.limits)))

    def keep(self, gpus: tuple[GPUSample, ...], seconds: float) -> list[Problem]:
        found: list[Problem] = []
        for _ in range(int(seconds // 10)):
            found = self.see(gpus)
        return found


def told(problems: list[Problem]) -> list[tuple[str, Severity, Action, int | None]]:
    return [(one.reason, one.severity, one.action, one.subject.gpu_index) for one in problems]


def nvlink() -> Watched:
    return Watched(NVLink(LinkBaseline()))


class TestNVLink:
    @pytest.mark.parametrize(
        ("remote", "severity", "action"),
        [
            ("switch", Severity.CRITICAL, Action.DRAIN_AND_RESET_GPU),
            ("gpu", Severity.WARNING, Action.RESEAT_OR_CHECK_LINK),
        ],
    )
    def test_a_link_that_was_up_is_down(self, remote: str, severity: Severity, action: Action) -> None:
        watched = nvlink()
        fine = node(nvlinks=links(remote=remote))
        watched.see(fine)
        bad = changed(fine, nvlinks=links(5, remote=remote))
        assert told(watched.see(bad)) == [], "once is a glitch"
        assert told(watched.judge(bad, seconds=60)) == [], "still one look"
        assert told(watched.keep(bad, 20)) == [("LinkDown", severity, action, 3)]
        (problem,) = watched.see(bad)
        assert problem.blame is Blame.HARDWARE
        assert [one.value for one in problem.evidence] == ["5", "17"]
        assert watched.see(fine) == []

    def test_a_link_that_was_never_up_is_no_fault(self) -> None:
        bridgeless = node(2, model="NVIDIA H100 PCIe", nvlinks=links(*range(18), remote="gpu"))
        assert Watched(NVLink(LinkBaseline()), nvswitches=0).keep(bridgeless, 900) == []

    def test_a_gpu_that_starts_with_fewer_links_than_its_neighbours(self) -> None:
        watched = nvlink()
        bad = changed(node(nvlinks=links()), nvlinks=links(2, 9))
        assert watched.keep(bad, 290) == []
        assert told(watched.keep(bad, 30)) == [("FewerLinks", Severity.CRITICAL, Action.DRAIN_AND_RESET_GPU, 3)]
        assert watched.see(node(nvlinks=links())) == []

    def test_bridged_pairs_need_not_be_alike(self) -> None:
        gpus = (*node(2, nvlinks=links(remote="gpu")), gpu(2, nvlinks=links(*range(18), remote="gpu")))
        assert Watched(NVLink(LinkBaseline()), nvswitches=0).keep(gpus, 900) == []

    def test_b200_shows_no_switches_and_one_gpu_without_any_link(self) -> None:
        fine = node(nvlinks=links(), model="NVIDIA B200", fabric=FabricSample(state=3))
        watched = Watched(NVLink(LinkBaseline()), nvswitches=0)
        dark = changed(fine, nvlinks=links(*range(18), remote=""))
        assert watched.keep(dark, 290) == []
        assert told(watched.keep(dark, 30)) == [("FewerLinks", Severity.CRITICAL, Action.DRAIN_AND_RESET_GPU, 3)]
        assert watched.see(fine) == []

    @pytest.mark.parametrize(
        ("model", "state", "found"),
        [("NVIDIA B200", 3, 8), ("NVIDIA B200", 0, 0), ("NVIDIA H100 PCIe", 3, 0)],
    )
    def test_no_link_on_any_gpu_of_a_fabric(self, model: str, state: int, found: int) -> None:
        dark = node(nvlinks=links(*range(18), remote=""), model=model, fabric=FabricSample(state=state))
        problems = Watched(NVLink(LinkBaseline()), nvswitches=0).keep(dark, 330)
        assert [one.reason for one in problems] == ["NoActiveLinks"] * found

    def test_no_link_at_all_on_a_node_with_switches(self) -> None:
        watched = nvlink()
        dark = node(nvlinks=links(*range(18)))
        assert watched.keep(dark, 290) == []
        found = told(watched.keep(dark, 30))
        assert found == [("NoActiveLinks", Severity.WARNING, Action.RESTART_FABRIC_MANAGER, n) for n in range(8)]
        assert watched.see(node(nvlinks=links())) == []

    @pytest.mark.parametrize("count", [1, 8])
    def test_mig_takes_links_down(self, count: int) -> None:
        watched = nvlink()
        watched.see(node(count, nvlinks=links(), mig_current=False))
        assert watched.keep(node(count, nvlinks=links(*range(18)), mig_current=True), 900) == []

    def test_links_that_stay_down_after_mig_are_set_up_anew(self) -> None:
        watched = nvlink()
        watched.see(node(2, nvlinks=links(), mig_current=False))
        watched.see(node(2, nvlinks=links(*range(18)), mig_current=True))
        assert watched.keep(node(2, nvlinks=links(*range(18)), mig_current=False), 60) == []

    def test_a_board_with_bridges_among_boards_on_switches_is_not_compared(self) -> None:
        gpus = changed(node(nvlinks=links()), nvlinks=links(count=4, remote="gpu"))
        assert nvlink().keep(gpus, 900) == []

    def test_a_single_gpu_needs_no_link(self) -> None:
        assert nvlink().keep(node(1, nvlinks=links(*range(18))), 900) == []

    def test_a_gpu_without_nvlink_is_silent(self) -> None:
        assert nvlink().keep(node(), 600) == []

    def test_a_driver_that_does_not_answer_neither_raises_nor_forgets(self) -> None:
        watched = nvlink()
        fine = node(nvlinks=links())
        watched.see(fine)
        assert watched.see((), fault=True) == []
        bad = changed(fine, nvlinks=links(5))
        assert told(watched.keep(bad, 30))[0][0] == "LinkDown"
        watched.see((), fault=True)
        assert told(watched.see(bad))[0][0] == "LinkDown", "it went on all the time"

    def test_what_was_up_is_known_after_a_restart_but_not_after_a_reboot(self) -> None:
        before = LinkBaseline("boot")
        Watched(NVLink(before)).see(node(nvlinks=links()))
        bad = changed(node(nvlinks=links()), nvlinks=links(5))
        for boot, expected in (("boot", ["LinkDown"]), ("another", [])):
            after = LinkBaseline(boot)
            after.load(msgspec.json.decode(msgspec.json.encode(before.dump())))
            assert [one.reason for one in Watched(NVLink(after)).keep(bad, 40)] == expected

    @pytest.mark.parametrize("stored", [None, [], {"boot": "b"}, {"boot": "b", "links": {"GPU-0": [99]}}])
    def test_a_memory_that_is_none_is_refused_whole(self, stored: object) -> None:
        baseline = LinkBaseline("b")
        with pytest.raises(msgspec.ValidationError):
            baseline.load(stored)
        assert baseline.of("GPU-0") == frozenset()


def errors(**counts: int) -> tuple[GPUSample, ...]:
    return changed(node(2, nvlinks=links(count=2)), index=1, nvlinks=links(count=2, errors=counts))


class TestNVLinkErrors:
    @pytest.mark.parametrize(
        ("name", "limit", "reason", "clears_after"),
        [
            ("recovery", 1, "RecoveryErrors", HOUR),
            ("replay", 100, "ReplayErrors", 2 * HOUR),
            ("crc_flit", 6000, "CRCErrors", 900),
            ("crc_data", 6000, "CRCErrors", 900),
            ("recovery_failed", 0, "LinkFaults", HOUR),
            ("malformed", 0, "LinkFaults", HOUR),
            ("buffer_overrun", 0, "LinkFaults", HOUR),
            ("link_integrity", 0, "LinkFaults", HOUR),
            ("effective", 100, "SignalErrors", 2 * HOUR),
        ],
    )
    def test_more_than_the_limit(self, name: str, limit: int, reason: str, clears_after: float) -> None:
        watched = Watched(NVLinkErrors(Counters("b")))
        old = 10**6
        assert watched.see(errors(**{name: old})) == [], "what a counter holds from before is never judged"
        assert watched.see(errors(**{name: old + limit})) == []
        found = watched.see(errors(**{name: old + limit + 1}))
        assert told(found) == [(reason, Severity.WARNING, Action.RESEAT_OR_CHECK_LINK, 1)]
        assert found[0].evidence[1].threshold == str(limit)
        began = watched.now
        while watched.see(errors(**{name: old + limit + 1})):
            assert watched.now - began < clears_after * 1.2 + 60
        assert watched.now - began > clears_after * 0.8 - 60

    @pytest.mark.parametrize("name", ["symbol", "recovery_successful", "recovery_events", "receive_remote", "ecc_data"])
    def test_what_a_link_mends_itself_is_no_fault(self, name: str) -> None:
        watched = Watched(NVLinkErrors(Counters("b")))
        watched.see(errors(**{name: 0}))
        assert watched.see(errors(**{name: 10**9})) == []

    def test_a_reset_is_no_error(self) -> None:
        watched = Watched(NVLinkErrors(Counters("b")))
        watched.see(errors(replay=10**6))
        assert watched.see(errors(replay=3)) == []

    def test_the_limits_are_configuration(self) -> None:
        limits = Thresholds(nvlink_errors=NVLinkErrorLimits(replays_per_hour=5))
        watched = Watched(NVLinkErrors(Counters("b")), limits=limits)
        watched.see(errors(replay=0))
        assert told(watched.see(errors(replay=6)))[0][0] == "ReplayErrors"

    def test_the_worst_link_is_named(self) -> None:
        watched = Watched(NVLinkErrors(Counters("b")))
        watched.see((gpu(0, nvlinks=links(count=3, errors={"replay": 0})),))
        bad = tuple(
            NVLinkSample(link=number, active=True, errors={"replay": count})
            for number, count in enumerate((500, 900, 0))
        )
        (problem,) = watched.see((gpu(0, nvlinks=bad),))
        assert "NVLink 1 " in problem.message
        assert "and 1 more of its links" in problem.message


def chip(*states: bool | None, interrupts: int = 0) -> tuple[GPUSample, ...]:
    found = tuple(
        C2CLinkSample(link=number, active=state, errors={"interrupt": interrupts})
        for number, state in enumerate(states)
    )
    return (gpu(0, model="NVIDIA GB200", c2c=found),)


class TestC2C:
    def test_a_link_that_is_down_beside_one_that_is_up(self) -> None:
        watched = Watched(C2C(Counters("b")))
        assert watched.see(chip(True, False)) == []
        found = watched.keep(chip(True, False), 30)
        assert told(found) == [("LinkInactive", Severity.CRITICAL, Action.RUN_DIAGNOSTICS, 0)]
        assert found[0].subject.link == "c2c 1"
        assert watched.see(chip(True, True)) == []

    def test_all_links_down_after_they_were_up(self) -> None:
        watched = Watched(C2C(Counters("b")))
        watched.see(chip(True, True))
        assert [one.reason for one in watched.keep(chip(False, False), 40)] == ["LinkInactive"] * 2

    @pytest.mark.parametrize("states", [(False, False), (None, None), ()])
    def test_links_that_never_were_are_no_fault(self, states: tuple[bool | None, ...]) -> None:
        assert Watched(C2C(Counters("b"))).keep(chip(*states), 600) == []

    def test_error_interrupts(self) -> None:
        watched = Watched(C2C(Counters("b")))
        assert watched.see(chip(True, interrupts=70)) == []
        assert told(watched.see(chip(True, interrupts=71))) == [
            ("LinkErrors", Severity.WARNING, Action.RUN_DIAGNOSTICS, 0)
        ]
        watched.now += HOUR
        assert watched.keep(chip(True, interrupts=71), 600) == []


FINE = 426


def fabric(**values: int | None) -> tuple[GPUSample, ...]:
    healthy = FabricSample(state=3, status=0, health_mask=FINE, health_summary=1)
    return changed(node(fabric=healthy), fabric=msgspec.structs.replace(healthy, **values))


def with_field(shift: int, width: int, value: int) -> int:
    return FINE & ~(((1 << width) - 1) << shift) | value << shift


class TestFabric:
    @pytest.mark.parametrize(
        ("values", "reason", "severity", "action"),
        [
            ({"status": 999}, "RegistrationFailed", Severity.CRITICAL, Action.RESTART_FABRIC_MANAGER),
            ({"status": 23}, "InsufficientResources", Severity.INFO, Action.NONE),
            ({"health_summary": 2}, "FabricUnhealthy", Severity.CRITICAL, Action.RESTART_FABRIC_MANAGER),
            ({"health_summary": 3}, "FabricDegraded", Severity.WARNING, Action.RESTART_FABRIC_MANAGER),
            (
                {"health_mask": with_field(0, 2, 1)},
                "FabricDegraded",
                Severity.WARNING,
                Action.RESTART_FABRIC_MANAGER,
            ),
            (
                {"health_mask": with_field(4, 2, 1)},
                "FabricUnhealthy",
                Severity.CRITICAL,
                Action.RESTART_FABRIC_MANAGER,
            ),
            (
                {"health_mask": with_field(8, 4, 5)},
                "FabricMisconfigured",
                Severity.WARNING,
                Action.RESTART_FABRIC_MANAGER,
            ),
        ],
    )
    def test_a_fault_and_its_end(self, values: dict[str, int], reason: str, severity: Severity, action: Action) -> None:
        watched = Watched(Fabric())
        assert told(watched.see(fabric(**values))) == [(reason, severity, action, 3)]
        assert watched.see(fabric()) == []

    @pytest.mark.parametrize("state", [1, 2])
    def test_registration_has_five_minutes(self, state: int) -> None:
        watched = Watched(Fabric())
        assert watched.keep(fabric(state=state, status=None), 290) == []
        found = told(watched.keep(fabric(state=state, status=None), 30))
        assert found == [("RegistrationPending", Severity.WARNING, Action.RESTART_FABRIC_MANAGER, 3)]
        assert watched.see(fabric()) == []
        assert watched.keep(fabric(state=state, status=None), 290) == [], "the time begins anew"

    @pytest.mark.parametrize(
        ("model", "count", "nvswitches", "judged"),
        [
            ("NVIDIA H100 80GB HBM3", 8, 4, True),
            ("NVIDIA H100 80GB HBM3", 8, 0, False),
            ("NVIDIA H100 80GB HBM3", 8, None, False),
            ("NVIDIA H100 PCIe", 8, 4, False),
            ("NVIDIA GH200 480GB", 8, 4, False),
            ("NVIDIA GB200", 4, 0, True),
            ("NVIDIA GB300", 4, None, True),
            ("NVIDIA H100 80GB HBM3", 1, 4, False),
        ],
    )
    def test_where_registration_is_expected(self, model: str, count: int, nvswitches: int | None, judged: bool) -> None:
        watched = Watched(Fabric(), nvswitches=nvswitches)
        gpus = node(count, model=model, fabric=FabricSample(state=1))
        assert bool(watched.keep(gpus, 900)) is judged

    @pytest.mark.parametrize(
        "values",
        [
            {},
            {"health_mask": 0, "health_summary": 0},
            {"health_mask": None, "health_summary": None},
            {"state": 0, "status": None},
        ],
    )
    def test_what_is_fine_or_not_supported_is_silent(self, values: dict[str, int | None]) -> None:
        assert Watched(Fabric()).keep(fabric(**values), 900) == []
