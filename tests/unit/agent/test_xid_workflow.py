"""NVIDIA's workflows over a history: who is at fault, what repeats, what reboots do not mend."""

import pytest

from gpudiag_agent.checks.xid import history, workflow
from gpudiag_agent.checks.xid.history import Burst, Bursts
from gpudiag_agent.kernel_log import details
from gpudiag_api.vocabulary import Action, Blame, Severity

NOW = 1_800_000_000.0
HOUR = 3600.0
A = "0000:10:00.0"
B = "0000:11:00.0"


def burst(
    code: int,
    message: str = "",
    *,
    ago: float = 0,
    pci: str = A,
    pid: int | None = 1,
    name: str | None = "train",
    boot: str = "now",
    job: str | None = None,
    caused_by: int | None = None,
    uuid: str | None = None,
) -> Burst:
    detail = details.read(code, message)
    return Burst(
        id=f"{boot}/{ago}/{code}/{pid}",
        boot=boot,
        code=code,
        pci=pci,
        first=NOW - ago,
        last=NOW - ago,
        message=message,
        process_id=pid,
        process_name=name,
        job=job,
        uuid=uuid,
        caused_by=caused_by,
        place=history.place_of(detail),
        mark=history.mark_of(detail),
        detail=detail,
    )


def told(*bursts: Burst) -> Bursts:
    whole: Bursts = ()
    for one in sorted(bursts, key=lambda one: one.first):
        whole = history.add(whole, one)
    return whole


def reasons(bursts: Bursts, now: float = NOW) -> list[tuple[str, Severity, Action]]:
    found = workflow.suspicions(bursts, boot="now", now=now)
    return [(one.reason, one.verdict.severity, one.verdict.action) for one in found]


def sm(gpc: int, tpc: int) -> str:
    return f"Graphics SM Warp Exception on (GPC {gpc}, TPC {tpc}, SM 0): Out Of Range Address"


MMU = "Ch 1, intr 0. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x1. Fault is of type FAULT_PDE"


class TestBursts:
    def test_lines_within_the_span_are_one(self) -> None:
        (one,) = told(burst(31, ago=100, pid=1), burst(31, ago=0, pid=2))
        assert (one.count, one.first, one.last) == (2, NOW - 100, NOW)
        assert len(told(burst(31, ago=181), burst(31))) == 2

    def test_xid_13_has_the_short_span_and_sticky_codes_the_long_one(self) -> None:
        assert len(told(burst(13, ago=16), burst(13))) == 2
        assert len(told(burst(119, ago=2.9 * HOUR), burst(119))) == 1

    def test_other_processes_and_places_of_a_link_are_others(self) -> None:
        assert len(told(burst(31, name="a"), burst(31, name="b"))) == 2
        fatal = "NETIR_LINK_EVT Fatal XC0 i0 Link {:02} (0x025525c6 0x0)"
        assert len(told(burst(149, fatal.format(1)), burst(149, fatal.format(2)))) == 2

    def test_beyond_the_bound_no_count_is_lost_and_what_matters_stays(self) -> None:
        whole = told(burst(48, ago=13 * 86400), *(burst(31, ago=200.0 * n, pid=n) for n in range(600)))
        assert len(whole) <= history.MAX_BURSTS
        assert sum(one.count for one in whole) == 601
        assert any(one.code == 48 for one in whole)

    def test_evidence_speaks_to_what_came_before_it(self) -> None:
        whole = history.clear(told(burst(48, ago=HOUR), burst(62)), at=NOW - 60)
        assert [(one.code, one.cleared) for one in whole] == [(48, True), (62, False)]

    def test_what_is_older_than_two_weeks_goes(self) -> None:
        assert history.prune(told(burst(48, ago=15 * 86400), burst(48)), NOW) == (burst(48),)


class TestAtOnePlace:
    @pytest.mark.parametrize(("code", "words"), [(13, sm(1, 3)), (31, MMU)])
    def test_different_jobs_at_one_place_point_at_the_hardware(self, code: int, words: str) -> None:
        whole = told(burst(code, words, ago=HOUR, name="a", pid=1), burst(code, words, name="b", pid=2))
        assert reasons(whole) == [(f"XID{code}Repeated", Severity.WARNING, Action.RUN_DIAGNOSTICS)]
        assert reasons(whole, NOW + 86400) == [], "a day later it is over"

    def test_pods_tell_jobs_of_one_name_apart(self) -> None:
        whole = told(burst(13, sm(1, 3), ago=HOUR, job="ns/a"), burst(13, sm(1, 3), job="ns/b"))
        assert [one[1] for one in reasons(whole)] == [Severity.WARNING]
        same = told(burst(13, sm(1, 3), ago=HOUR, job="ns/a", pid=1), burst(13, sm(1, 3), job="ns/a", pid=2))
        assert reasons(same) == []

    def test_a_program_that_crashes_again_and_again_does_not_degrade(self) -> None:
        whole = told(*(burst(13, sm(1, 3), ago=HOUR * n, pid=n) for n in range(5)))
        assert reasons(whole) == [("XID13Repeated", Severity.INFO, Action.RUN_DIAGNOSTICS)]

    def test_one_process_is_one_failure(self) -> None:
        assert reasons(told(burst(13, sm(1, 3), ago=HOUR), burst(13, sm(1, 3)))) == []

    @pytest.mark.parametrize(
        "other", [burst(13, sm(2, 0), name="a", ago=99), burst(13, sm(1, 3), name="a", pci=B, ago=99)]
    )
    def test_who_fails_elsewhere_too_brings_the_fault_along(self, other: Burst) -> None:
        whole = told(burst(13, sm(1, 3), ago=HOUR, name="a"), burst(13, sm(1, 3), name="b", pid=2), other)
        assert reasons(whole) == []

    def test_a_burst_at_many_places_is_the_applications(self) -> None:
        spread = [burst(13, sm(n, 0), ago=1, name=name, pid=n) for n in range(4) for name in "ab"]
        assert {one.place for one in told(*spread)} == {history.SPREAD}
        assert reasons(told(*spread)) == []

    def test_engines_need_three(self) -> None:
        twice = [burst(39, ago=HOUR, name="a"), burst(39, ago=2 * HOUR, name="b", pid=2)]
        assert reasons(told(*twice)) == []
        assert [one[0] for one in reasons(told(*twice, burst(39, name="c", pid=3)))] == ["XID39Repeated"]


class TestCleanUp:
    def test_alone_it_is_the_applications(self) -> None:
        verdict = workflow.verdict(burst(45), told(burst(45), burst(31, ago=HOUR)))
        assert (verdict.blame, verdict.action) == (Blame.APPLICATION, Action.CHECK_APPLICATION)

    def test_after_another_one_that_one_speaks(self) -> None:
        for cleanup, whole in [
            (burst(45, caused_by=48), ()),
            (burst(45), told(burst(48, ago=2), burst(45))),
        ]:
            verdict = workflow.verdict(cleanup, whole)
            assert (verdict.severity, verdict.blame, verdict.action) == (Severity.INFO, Blame.HARDWARE, Action.NONE)

    def test_one_of_another_gpu_is_not_the_cause(self) -> None:
        whole = told(burst(48, ago=2, pci=B), burst(45))
        assert workflow.verdict(burst(45), whole).blame is Blame.APPLICATION


def link(register: int, *bits: int, on: int = 14) -> str:
    words = [0] * 7
    words[register] = sum(1 << bit for bit in bits)
    return f"NVLink: fatal error detected on link {on}({', '.join(hex(word) for word in words)})"


class TestNVLink4:
    @pytest.mark.parametrize(
        ("now", "before", "action"),
        [
            (link(0, 1), None, Action.CONTACT_SUPPORT),
            (link(0, 21), None, Action.RESEAT_OR_CHECK_LINK),
            (link(0, 8), None, Action.DRAIN_AND_RESET_GPU),
            (link(0, 8), link(0, 9, on=3), Action.RESEAT_OR_CHECK_LINK),
            (link(0, 4), link(0, 4, on=3), Action.DRAIN_AND_RESET_GPU),
            (link(0, 4), link(0, 5), Action.CONTACT_SUPPORT),
            (link(2, 13), None, Action.CONTACT_SUPPORT),
            (link(2, 16), link(2, 19), Action.RUN_DIAGNOSTICS),
            (link(2, 16), link(2, 17), Action.DRAIN_AND_RESET_GPU),
            (link(4, 20), link(4, 20), Action.RUN_DIAGNOSTICS),
            (link(0, 1, 3, 30), None, Action.CONTACT_SUPPORT),
            (link(6, 0), None, Action.DRAIN_AND_RESET_GPU),
        ],
    )
    def test_the_bits_decide(self, now: str, before: str | None, action: Action) -> None:
        earlier = [] if before is None else [burst(74, before, ago=4 * HOUR)]
        newest = burst(74, now)
        verdict = workflow.verdict(newest, told(*earlier, newest))
        assert (verdict.severity, verdict.action) == (Severity.CRITICAL, action)

    def test_alone_means_no_other_fault(self) -> None:
        newest = burst(74, link(0, 21))
        assert workflow.verdict(newest, told(burst(48, ago=HOUR), newest)).action is Action.DRAIN_AND_RESET_GPU
        assert workflow.verdict(newest, told(burst(31, ago=HOUR), newest)).action is Action.RESEAT_OR_CHECK_LINK

    def test_yesterday_does_not_count(self) -> None:
        newest = burst(74, link(0, 8))
        whole = told(burst(74, link(0, 8), ago=25 * HOUR), newest)
        assert workflow.verdict(newest, whole).action is Action.DRAIN_AND_RESET_GPU


class TestNVLink5:
    def test_bad_signal_that_repeats_is_the_cables(self) -> None:
        words = "NETIR_LINK_EVT Fatal XC0 i0 Link 09 (0x002001c6 0x0)"
        newest = burst(149, words)
        assert workflow.verdict(newest, told(newest)).action is Action.DRAIN_AND_RESET_GPU
        again = told(burst(149, words, ago=HOUR), newest)
        assert workflow.verdict(newest, again).action is Action.RESEAT_OR_CHECK_LINK

    def test_what_154_is_to_decide_is_a_note(self) -> None:
        one = burst(145, "RLW_SRC_TRACK Nonfatal XC1 i0 Link 17 (0x04084507 0x00000004)")
        assert workflow.verdict(one, (one,)).severity is Severity.INFO


class TestEscalation:
    def test_a_critical_fault_that_two_reboots_did_not_mend(self) -> None:
        boots = [burst(79, ago=day * 86400.0, boot=boot) for day, boot in ((3, "a"), (2, "b"), (0, "now"))]
        assert reasons(told(*boots)) == [("FaultSurvivesReboots", Severity.CRITICAL, Action.RUN_DIAGNOSTICS)]
        assert reasons(told(*boots[1:])) == []

    def test_another_board_is_another_story(self) -> None:
        boots = [burst(79, ago=5.0, boot=boot, uuid="GPU-old") for boot in "ab"]
        assert reasons(told(*boots, burst(79, uuid="GPU-new"))) == []

    def test_what_is_cleared_in_this_boot_is_over(self) -> None:
        whole = told(*(burst(48, ago=86400.0, boot=boot) for boot in "ab"), burst(48))
        assert reasons(whole) != []
        assert reasons(history.clear(whole, at=NOW)) == []

    @pytest.mark.parametrize("code", [31, 45, 13, 94])
    def test_the_applications_and_contained_errors_never_escalate(self, code: int) -> None:
        whole = told(*(burst(code, ago=HOUR * n, boot=str(n), pid=1) for n in range(9)), burst(code, boot="now"))
        assert reasons(whole) == []

    def test_five_bursts_in_a_day_are_the_vendors(self) -> None:
        whole = told(*(burst(48, ago=HOUR * n) for n in range(5)))
        assert reasons(whole) == [("RepeatedFaults", Severity.WARNING, Action.CONTACT_SUPPORT)]
        assert reasons(whole, NOW + 20.5 * HOUR) == []

    def test_several_codes_of_one_fault_are_one_burst(self) -> None:
        whole = told(*(burst(code, ago=HOUR * n + code / 10) for n in range(2) for code in (48, 62, 95, 140)))
        assert reasons(whole) == []
