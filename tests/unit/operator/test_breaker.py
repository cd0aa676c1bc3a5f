"""The circuit breaker: rules one by one, then any sequence of them against a model."""

import itertools
import operator
import random
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gpudiag_api.vocabulary import BreakerState
from gpudiag_operator.collect.breaker import Breaker, Override
from gpudiag_operator.collect.permit import Permit
from gpudiag_operator.collect.settings import BreakerSettings
from gpudiag_operator.collect.window import Window
from gpudiag_operator.domain import BreakerSnapshot

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


class Rig:
    """A breaker with clocks in hand."""

    def __init__(self, **changed: float) -> None:
        self.now = 1000.0
        self.epoch = 1_700_000_000.0
        self.transitions: list[tuple[BreakerState, BreakerState]] = []
        self.settings = BreakerSettings(**changed)  # type: ignore[arg-type]
        self.breaker = self.another()

    def another(self) -> Breaker:
        return Breaker(
            "n1",
            self.settings,
            monotonic=lambda: self.now,
            wall=lambda: self.epoch + self.now,
            rng=random.Random(1),
            hook=lambda _, old, new: self.transitions.append((old, new)),
        )

    def permit(self) -> Permit:
        permit = self.breaker.acquire()
        assert permit is not None
        return permit

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.permit().failure()

    def succeed(self, times: int = 1) -> None:
        for _ in range(times):
            self.permit().success()

    def wait_until_half_open(self) -> None:
        self.now += self.breaker.delay() or 0.0


def test_opens_after_three_failures_in_a_row() -> None:
    rig = Rig()
    rig.fail(2)
    rig.succeed()
    rig.fail(2)
    assert rig.breaker.state is CLOSED
    rig.fail()
    assert rig.breaker.state is OPEN
    assert rig.breaker.acquire() is None
    assert rig.transitions == [(CLOSED, OPEN)]


def test_opens_when_half_of_ten_calls_in_a_minute_failed() -> None:
    rig = Rig()
    for _ in range(4):
        rig.fail()
        rig.succeed()
    rig.succeed()
    assert rig.breaker.state is CLOSED, "9 calls are too few"
    rig.fail()
    assert rig.breaker.state is OPEN


def test_a_share_of_few_calls_means_nothing() -> None:
    rig = Rig()
    for _ in range(3):
        rig.fail(2)
        rig.succeed()
    assert rig.breaker.state is CLOSED, "6 of 9 failed"
    rig.succeed()
    rig.fail()
    assert rig.breaker.state is OPEN


def test_failures_of_more_than_a_minute_ago_are_forgotten() -> None:
    rig = Rig()
    for _ in range(4):
        rig.fail()
        rig.succeed()
    rig.now += 61
    rig.fail(2)
    assert rig.breaker.state is CLOSED


def test_open_time_doubles_with_jitter_up_to_five_minutes() -> None:
    rig = Rig()
    rig.fail(3)
    times = []
    for _ in range(6):
        snapshot = rig.breaker.snapshot()
        assert snapshot.open_for_seconds is not None
        times.append(snapshot.open_for_seconds)
        rig.wait_until_half_open()
        rig.fail()
    for seconds, base in zip(times, (30, 60, 120, 240, 300, 300), strict=True):
        assert base <= seconds <= min(base * 1.2, 300)
    assert times[0] != 30, "jittered"


def test_half_open_admits_exactly_one_probe() -> None:
    rig = Rig()
    rig.fail(3)
    rig.now += 29
    assert rig.breaker.acquire() is None
    rig.wait_until_half_open()
    probe = rig.permit()
    assert rig.breaker.state is HALF_OPEN
    assert [rig.breaker.acquire() for _ in range(20)] == [None] * 20
    probe.success()
    rig.permit()
    assert rig.breaker.acquire() is None


def test_two_successes_close_and_one_failure_reopens() -> None:
    rig = Rig()
    rig.fail(3)
    rig.wait_until_half_open()
    rig.succeed()
    assert rig.breaker.state is HALF_OPEN
    rig.fail()
    assert rig.breaker.state is OPEN
    rig.wait_until_half_open()
    rig.succeed(2)
    assert rig.breaker.state is CLOSED
    rig.fail(3)
    assert (rig.breaker.snapshot().open_for_seconds or 0) <= 36, "closing forgets the doublings"


def test_a_cancelled_probe_gives_its_permit_back() -> None:
    rig = Rig()
    rig.fail(3)
    rig.wait_until_half_open()
    rig.permit().ignore()
    assert rig.breaker.state is HALF_OPEN
    rig.permit()


def test_ignored_calls_do_not_count() -> None:
    rig = Rig()
    rig.fail(2)
    for _ in range(20):
        rig.permit().ignore()
    assert rig.breaker.snapshot().failures == 2
    rig.fail()
    assert rig.breaker.state is OPEN


def test_a_permit_counts_once() -> None:
    rig = Rig()
    permit = rig.permit()
    for _ in range(5):
        permit.failure()
    assert rig.breaker.snapshot().failures == 1


def test_a_permit_of_an_earlier_state_changes_nothing() -> None:
    rig = Rig()
    old = rig.permit()
    rig.fail(3)
    rig.wait_until_half_open()
    rig.permit()
    old.success()
    assert rig.breaker.acquire() is None, "the probe is still out"
    old.failure()
    assert rig.breaker.state is HALF_OPEN


def test_force_open() -> None:
    rig = Rig()
    rig.breaker.set_override(Override.FORCE_OPEN)
    assert rig.breaker.state is BreakerState.FORCED_OPEN
    assert rig.breaker.acquire() is None
    assert rig.breaker.delay() is None


def test_force_closed_admits_everything_and_auto_starts_anew() -> None:
    rig = Rig()
    rig.breaker.set_override(Override.FORCE_CLOSED)
    rig.fail(10)
    snapshot = rig.breaker.snapshot()
    assert (snapshot.state, snapshot.failures) == (BreakerState.FORCED_CLOSED, 10)
    rig.breaker.set_override(Override.AUTO)
    assert rig.breaker.snapshot() == BreakerSnapshot()


def test_reset_closes_once_per_token_and_force_wins() -> None:
    rig = Rig()
    rig.fail(3)
    assert rig.breaker.reset("monday")
    assert rig.breaker.snapshot() == BreakerSnapshot(last_handled_reset="monday")
    rig.fail(3)
    assert not rig.breaker.reset("monday")
    assert rig.breaker.state is OPEN
    rig.breaker.set_override(Override.FORCE_OPEN)
    assert rig.breaker.reset("tuesday")
    assert rig.breaker.state is BreakerState.FORCED_OPEN


def test_restores_the_remaining_time_but_not_the_window() -> None:
    rig = Rig()
    rig.fail(3)
    rig.now += 10
    remaining = rig.breaker.delay()
    published = rig.breaker.snapshot()
    rig.breaker = rig.another()
    rig.breaker.restore(published)
    assert rig.breaker.snapshot() == published
    assert rig.breaker.delay() == pytest.approx(remaining)
    rig.wait_until_half_open()
    rig.fail()
    assert 60 <= (rig.breaker.snapshot().open_for_seconds or 0) <= 72, "goes on doubling where it was"


@pytest.mark.parametrize(
    ("state", "opened_ago", "open_for", "delay"),
    [
        (OPEN, 100.0, 30.0, 0.0),
        (OPEN, -50.0, 30.0, 30.0),
        (OPEN, 0.0, 1e9, 300.0),
        (HALF_OPEN, 0.0, 30.0, 0.0),
        (CLOSED, 0.0, 30.0, 0.0),
        (BreakerState.FORCED_OPEN, 0.0, None, 0.0),
    ],
)
def test_restores_whatever_the_clocks_say(
    state: BreakerState, opened_ago: float, open_for: float | None, delay: float
) -> None:
    rig = Rig()
    opened_at = rig.epoch + rig.now - opened_ago
    rig.breaker.restore(BreakerSnapshot(state=state, opened_at=opened_at, open_for_seconds=open_for, failures=3))
    assert rig.breaker.delay() == pytest.approx(delay)


def test_a_replaced_pod_is_probed_at_once() -> None:
    rig = Rig()
    rig.fail(3)
    rig.breaker.expire()
    rig.permit()
    assert rig.breaker.state is HALF_OPEN
    assert rig.breaker.acquire() is None


CALLS = st.lists(st.tuples(st.floats(0.0, 30.0, allow_nan=False), st.booleans()), max_size=60)


@given(calls=CALLS, rest=st.floats(0.0, 90.0), seconds=st.sampled_from([5.0, 60.0]))
def test_the_window_counts_each_call_of_its_time_and_none_of_before(
    calls: list[tuple[float, bool]], rest: float, seconds: float
) -> None:
    """Exact to a bucket: what is younger than eleven twelfths counts, what is older than the whole does not."""
    window, now, made = Window(seconds), 1000.0, []
    for pause, failed in calls:
        now += pause
        window.record(now, failed=failed)
        made.append((now, failed))
    now += rest
    found = window.totals(now)
    for at, (number, failures) in (
        ("least", _within(made, now, seconds * 11 / 12)),
        ("most", _within(made, now, seconds)),
    ):
        compare = operator.ge if at == "least" else operator.le
        assert compare(found[0], number)
        assert compare(found[1], failures)


def _within(made: list[tuple[float, bool]], now: float, seconds: float) -> tuple[int, int]:
    young = [failed for at, failed in made if now - at < seconds]
    return len(young), sum(young)


FORCED_OPEN, FORCED_CLOSED = BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED
TRANSITIONS = {
    (CLOSED, OPEN),
    (OPEN, HALF_OPEN),
    (HALF_OPEN, OPEN),
    (HALF_OPEN, CLOSED),
    (OPEN, CLOSED),  # reset
    *((state, FORCED_OPEN) for state in (CLOSED, OPEN, HALF_OPEN, FORCED_CLOSED)),
    *((state, FORCED_CLOSED) for state in (CLOSED, OPEN, HALF_OPEN, FORCED_OPEN)),
    (FORCED_OPEN, CLOSED),
    (FORCED_CLOSED, CLOSED),
}


def test_every_transition_is_reachable_and_no_other_is() -> None:
    """All sequences of five things that can happen."""
    resets = itertools.count()

    def call(rig: Rig, how: str, times: int = 1) -> None:
        for _ in range(times):
            permit = rig.breaker.acquire()
            if permit is not None:
                getattr(permit, how)()

    things: tuple[Callable[[Rig], object], ...] = (
        partial(call, how="failure", times=3),
        partial(call, how="success"),
        lambda rig: rig.wait_until_half_open(),
        lambda rig: rig.breaker.reset(f"{next(resets)}"),
        *(lambda rig, force=force: rig.breaker.set_override(force) for force in Override),
    )
    seen = set()
    for sequence in itertools.product(things, repeat=5):
        rig = Rig()
        for happens in sequence:
            happens(rig)
        seen.update(rig.transitions)
    assert seen == TRANSITIONS


class AnySequence(RuleBasedStateMachine):
    """Any sequence of events; what must hold at every moment is in the invariants."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig()
        self.permits: list[tuple[Permit, int]] = []
        self.force = Override.AUTO

    @property
    def breaker(self) -> Breaker:
        return self.rig.breaker

    @rule()
    def acquire(self) -> None:
        before, delay = self.breaker.state, self.breaker.delay()
        out = self.live()
        permit = self.breaker.acquire()
        if before in (CLOSED, BreakerState.FORCED_CLOSED):
            assert permit is not None
        if before is BreakerState.FORCED_OPEN or (before is OPEN and delay):
            assert permit is None
        if before is OPEN and not delay:
            assert permit is not None
            assert self.breaker.state is HALF_OPEN
        if before is HALF_OPEN:
            assert (permit is None) == (out > 0), "exactly one probe"
        if permit is not None:
            self.permits.append((permit, self.breaker.era))

    def live(self) -> int:
        """Permits of the present state that are not settled."""
        return sum(era == self.breaker.era for _, era in self.permits)

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), how=st.sampled_from(["success", "failure", "ignore"]))
    def settle(self, data: st.DataObject, how: str) -> None:
        index = data.draw(st.integers(0, len(self.permits) - 1))
        permit, era = self.permits.pop(index)
        before, failures, stale = self.breaker.state, self.breaker.snapshot().failures, era != self.breaker.era
        getattr(permit, how)()
        after = self.breaker.state
        if stale or how == "ignore":
            assert after is before
            assert self.breaker.snapshot().failures == failures
        elif how == "failure" and before is HALF_OPEN:
            assert after is OPEN
        elif how == "success":
            assert after is not OPEN

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0, 29.0, 61.0, 301.0]))
    def wait(self, seconds: float) -> None:
        self.rig.now += seconds

    @rule(override=st.sampled_from(list(Override)))
    def force_it(self, override: Override) -> None:
        self.breaker.set_override(override)
        self.force = override

    @rule(token=st.sampled_from(["a", "b"]))
    def reset(self, token: str) -> None:
        if self.breaker.reset(token):
            assert self.breaker.state in (CLOSED, BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED)

    @rule()
    def restart(self) -> None:
        snapshot = self.breaker.snapshot()
        self.rig.breaker = self.rig.another()
        self.breaker.restore(snapshot)
        self.breaker.set_override(self.force)
        self.permits.clear()
        if snapshot.state is OPEN:
            assert self.breaker.state is OPEN

    @invariant()
    def open_times_are_bounded(self) -> None:
        snapshot = self.breaker.snapshot()
        if snapshot.state is OPEN:
            assert 0 < (snapshot.open_for_seconds or 0) <= 300
            delay = self.breaker.delay()
            assert delay is not None
            assert 0 <= delay <= 300

    @invariant()
    def three_failures_never_leave_it_closed(self) -> None:
        if self.breaker.state is CLOSED:
            assert self.breaker.snapshot().failures < 3

    @invariant()
    def at_most_one_probe(self) -> None:
        if self.breaker.state is HALF_OPEN:
            assert self.live() <= 1

    @invariant()
    def an_override_shows(self) -> None:
        forced = self.breaker.state in (BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED)
        assert forced is (self.force is not Override.AUTO)


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
