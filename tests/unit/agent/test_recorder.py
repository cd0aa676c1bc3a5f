"""The flight recorder: half an hour, bounded memory, the same points for the same question."""

import sys
import tracemalloc
from array import array

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.recorder.history import History
from gpudiag_agent.recorder.recorder import MAX_EVENTS, MAX_GPUS, SPAN, Recorder
from gpudiag_agent.recorder.ring import Ring
from gpudiag_agent.recorder.xid_log import MAX_EVENTS as MAX_XIDS
from gpudiag_agent.recorder.xid_log import XIDLog
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api import wire
from gpudiag_api.times import from_rfc3339, to_rfc3339
from gpudiag_api.vocabulary import Action, Blame, Health, Severity
from gpudiag_api.wire import AgentInfo, Finding, Report, TimelineAnswer, XIDEvent

START = 1_800_000_000.0


def gpu(index: int = 0, **values: int | None) -> GPUSample:
    return GPUSample(index=index, uuid=f"GPU-{index}", temperature_celsius=40, **values)  # type: ignore[arg-type]


def recorded(seconds: int, interval: int = 10, **values: int) -> Recorder:
    recorder = Recorder(interval)
    for at in range(0, seconds, interval):
        recorder.sampled(Sample(taken_at=START + at, gpus=(gpu(**values),)))
    return recorder


def ask(recorder: Recorder, at: float, **how: int) -> TimelineAnswer:
    return recorder.timeline(node_name="n", now=START + at, **how)


def finding(reason: str) -> Finding:
    return Finding(
        check="XID",
        reason=reason,
        severity=Severity.WARNING,
        blame=Blame.HARDWARE,
        action=Action.NONE,
        message=f"{reason} is there.",
        first_seen="2027-01-15T08:00:00Z",
        last_seen="2027-01-15T08:00:00Z",
    )


def report(*reasons: str, health: Health = Health.HEALTHY, driver: str = "570", xids: int = 0) -> Report:
    return Report(
        version="1.0",
        agent=AgentInfo(version="0", node_name="n"),
        health=health,
        driver=wire.Driver(version=driver),
        findings=tuple(map(finding, reasons)),
        xids=(event(count=xids),) if xids else (),
    )


def event(number: int = 1, count: int = 1, at: float = START, text: str = "off the bus") -> XIDEvent:
    return XIDEvent(
        id=f"boot/{number}",
        code=79,
        severity=Severity.CRITICAL,
        blame=Blame.HARDWARE,
        action=Action.REBOOT_NODE,
        message=text,
        first_seen=to_rfc3339(START),
        last_seen=to_rfc3339(at),
        count=count,
    )


class TestPoints:
    def test_half_an_hour_is_kept_and_no_more(self) -> None:
        points = ask(recorded(7200), 7195, points=360).gpus[0].points
        assert len(points) == 180
        assert from_rfc3339(points[0].at) == START + 7200 - SPAN

    def test_many_samples_become_the_points_that_were_asked_for(self) -> None:
        answer = ask(recorded(1800), 1800, points=60)
        assert answer.step_seconds == 30
        assert len(answer.gpus[0].points) == 60

    def test_a_point_is_the_average_and_remembers_a_slowdown(self) -> None:
        recorder = Recorder(10)
        for at, watts, reasons in ((0, 100_000, 0), (10, 200_000, 0x40), (20, None, 0x4)):
            sample = Sample(taken_at=START + at, gpus=(gpu(power_milliwatts=watts, clock_event_reasons=reasons),))
            recorder.sampled(sample)
        (point,) = ask(recorder, 25, minutes=30, points=1).gpus[0].points
        assert (point.power_watts, point.throttled) == (150, True)

    def test_a_software_power_cap_is_no_slowdown(self) -> None:
        (point,) = ask(recorded(10, clock_event_reasons=0x4 | 0x1), 10).gpus[0].points
        assert not point.throttled

    def test_what_the_gpu_does_not_say_is_absent_and_not_zero(self) -> None:
        (point,) = ask(recorded(10), 10).gpus[0].points
        assert point.power_watts is None
        assert point.memory_used_bytes is None

    def test_the_same_question_later_gives_the_same_points(self) -> None:
        recorder = recorded(1800)
        earlier, later = (ask(recorder, at, points=60).gpus[0].points for at in (1800, 1811))
        assert set(later[1:]) <= set(earlier)

    def test_one_gpu_of_many(self) -> None:
        recorder = Recorder(10)
        recorder.sampled(Sample(taken_at=START, gpus=(gpu(0), gpu(5))))
        assert [one.gpu_index for one in ask(recorder, 1).gpus] == [0, 5]
        assert [one.gpu_index for one in ask(recorder, 1, gpu=5).gpus] == [5]


class TestBounds:
    def test_eight_gpus_at_a_sample_per_second_stay_below_one_mebibyte(self) -> None:
        ring = Ring(1801)
        for at in range(4000):
            ring.add(START + at, gpu())
        columns = [value for value in vars(ring).values() if isinstance(value, array)]
        columns += [column for value in vars(ring).values() if isinstance(value, tuple) for column in value]
        assert len(columns) == 7
        assert 8 * sum(map(sys.getsizeof, columns)) < 1 << 20

    def test_eight_gpus_with_all_that_can_happen_to_them_stay_below_four_mebibytes(self) -> None:
        long = "x" * 1024
        noisy = report(*(f"R{number}" for number in range(256)))
        findings = tuple(msgspec.structs.replace(one, message=long + one.reason) for one in noisy.findings)
        tracemalloc.start()
        history = History(interval=1, epoch="e")
        gpus = tuple(gpu(index, power_milliwatts=700_000, utilization_percent=99) for index in range(8))
        for at in range(1900):
            history.sampled(Sample(taken_at=START + at, gpus=gpus))
        for number in range(0, MAX_XIDS * 2, 64):
            said = tuple(event(number + one, text=f"{one}{long}"[:1024]) for one in range(64))
            now = msgspec.structs.replace(noisy, findings=findings[number % 256 :], xids=said)
            history.reported(now, START + number)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert used < 4 << 20
        assert len(history.xids.answer(node_name="n", limit=MAX_XIDS).events) == MAX_XIDS, "it was full"

    def test_boards_that_are_swapped_for_ever_do_not_fill_it(self) -> None:
        recorder = Recorder(10)
        for number in range(MAX_GPUS * 3):
            sample = Sample(taken_at=START + number, gpus=(msgspec.structs.replace(gpu(), uuid=f"GPU-{number}"),))
            recorder.sampled(sample)
        found = ask(recorder, 200).gpus
        assert len(found) == MAX_GPUS
        assert f"GPU-{MAX_GPUS * 3 - 1}" in {one.gpu_uuid for one in found}

    def test_events_are_bounded(self) -> None:
        recorder = Recorder(10)
        for number in range(MAX_EVENTS * 2):
            recorder.reported(report(f"R{number}"), START)
        assert len(ask(recorder, 1).events) == MAX_EVENTS

    @given(st.integers(1, 40), st.integers(0, 120))
    def test_a_ring_gives_the_last_that_fit_in_their_order(self, capacity: int, count: int) -> None:
        ring = Ring(capacity)
        for at in range(count):
            ring.add(float(at), gpu())
        assert [moment.at for moment in ring.moments(-1)] == list(range(max(0, count - capacity), count))


class TestEvents:
    @pytest.mark.parametrize(
        ("before", "after", "kinds"),
        [
            (report(), report("A"), ["raised"]),
            (report("A"), report(), ["cleared"]),
            (report("A"), report("B"), ["raised", "cleared"]),
            (report("A"), report("A"), []),
            (report(), report(health=Health.UNHEALTHY), ["health"]),
            (report(), report(driver="580"), ["driver"]),
            (report(), report(xids=1), ["xid"]),
            (report(xids=1), report(xids=1), []),
            (report(xids=1), report(xids=2), ["xid"]),
        ],
    )
    def test_what_changed_is_told_once(self, before: Report, after: Report, kinds: list[str]) -> None:
        recorder = Recorder(10)
        recorder.reported(before, START - SPAN)
        for _ in range(2):
            recorder.reported(after, START)
        assert [one.kind for one in ask(recorder, 1).events] == kinds

    @pytest.mark.parametrize(("age", "kinds"), [(60.0, ["xid"]), (2 * SPAN, [])])
    def test_an_xid_that_an_earlier_life_heard_happened_when_it_happened(self, age: float, kinds: list[str]) -> None:
        recorder = Recorder(10)
        recorder.reported(msgspec.structs.replace(report(), xids=(event(at=START - age),)), START)
        assert [one.kind for one in ask(recorder, 1).events] == kinds


class TestXIDLog:
    def test_a_repeat_is_told_again_with_its_count(self) -> None:
        log = XIDLog("e")
        log.update([event(1), event(2)])
        cursor = log.answer(node_name="n").cursor
        log.update([event(1, count=2), event(2)])
        (told,) = log.answer(node_name="n", since=cursor).events
        assert (told.id, told.count) == ("boot/1", 2)

    @pytest.mark.parametrize("cursor", ["", "nonsense", "other.1", "e.", "e.²", "e.-1", "." * 63, "e." + "9" * 60])
    def test_a_cursor_of_another_life_starts_from_the_beginning(self, cursor: str) -> None:
        log = XIDLog("e")
        log.update([event(1)])
        assert len(log.answer(node_name="n", since=cursor).events) == 1

    def test_it_is_bounded_and_keeps_the_newest(self) -> None:
        log = XIDLog("e")
        log.update(event(number, at=START + number) for number in range(MAX_XIDS + 9))
        held = log.answer(node_name="n", limit=MAX_XIDS * 2).events
        assert (len(held), held[-1].id) == (MAX_XIDS, f"boot/{MAX_XIDS + 8}")

    @given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 5)), max_size=30), st.integers(1, 4))
    def test_whoever_follows_the_cursor_ends_up_with_the_latest_of_every_event(
        self, changes: list[tuple[int, int]], limit: int
    ) -> None:
        log, cursor = XIDLog("e"), ""
        seen: dict[str, int] = {}
        latest: dict[str, int] = {}
        for number, count in changes:
            log.update([event(number, count=count)])
            latest[f"boot/{number}"] = count
            answer = log.answer(node_name="n", since=cursor, limit=limit)
            cursor = answer.cursor
            seen |= {one.id: one.count for one in answer.events}
        while (answer := log.answer(node_name="n", since=cursor, limit=limit)).events:
            cursor = answer.cursor
            seen |= {one.id: one.count for one in answer.events}
        assert seen == latest
