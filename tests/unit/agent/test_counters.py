"""Counters: growth and rates, whatever resets, gaps, restarts and clocks do."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.checks.counters import DAY, HOUR, MAX_SERIES, MINUTE, RECENT, STALE, TIERS, WEEK, Counters

GPU = "GPU-1"
START = 1_800_000_003.0
WINDOWS = (MINUTE, 15 * MINUTE, HOUR, 6 * HOUR, DAY, WEEK)


def follow(*values: int, every: float = 10.0, counters: Counters | None = None, lifetime: bool = False) -> Counters:
    counters = counters or Counters("boot")
    for number, value in enumerate(values):
        counters.observe(GPU, {"a": value}, START + number * every, lifetime=lifetime)
    return counters


class TestGrowth:
    def test_one_value_is_a_baseline_and_no_history(self) -> None:
        counters = follow(1_000_000)
        assert counters.increase(GPU, "a", MINUTE) is None
        assert counters.worst(GPU, "a", MINUTE, within_seconds=15 * MINUTE) is None
        assert counters.per_hour(GPU, "a") is None
        assert counters.increase("another", "a", MINUTE) is None

    def test_what_was_there_before_never_counts(self) -> None:
        assert follow(1_000_000, 1_000_003).increase(GPU, "a", MINUTE) == 3
        assert follow(1_000_000, 1_000_000).increase(GPU, "a", WEEK) == 0

    def test_a_window_forgets(self) -> None:
        counters = follow(0, 9, *[9] * 60)
        assert counters.increase(GPU, "a", MINUTE) == 0
        assert counters.increase(GPU, "a", HOUR) == 9

    def test_a_short_history_is_not_extrapolated(self) -> None:
        assert follow(0, 6).per_hour(GPU, "a") == 6.0
        assert follow(0, 6).per_hour(GPU, "a", MINUTE) == 360.0

    def test_the_worst_window_is_remembered_for_a_while(self) -> None:
        steady = [n // 10 for n in range(30)]
        counters = follow(*steady, 50, *[50] * 60)
        assert counters.increase(GPU, "a", MINUTE) == 0
        assert counters.worst(GPU, "a", MINUTE, within_seconds=15 * MINUTE) == 48
        assert follow(*steady, 50, *[50] * 95).worst(GPU, "a", MINUTE, within_seconds=15 * MINUTE) == 0

    def test_a_rate_just_at_the_limit_never_looks_higher(self) -> None:
        counters = Counters()
        for second in range(0, 3600, 10):
            counters.observe(GPU, {"a": second * 8 // 60}, START + second)
            assert (counters.worst(GPU, "a", MINUTE, within_seconds=15 * MINUTE) or 0) <= 9

    def test_growth_during_a_gap_is_spread_over_it(self) -> None:
        counters = follow(0, 120, every=7200.0)
        assert counters.increase(GPU, "a", MINUTE) == 1
        assert counters.increase(GPU, "a", 6 * HOUR) == 120
        assert counters.worst(GPU, "a", MINUTE, within_seconds=15 * MINUTE) == 1


class TestReset:
    @pytest.mark.parametrize("after", [0, 999, 501])
    def test_a_smaller_value_is_no_increase(self, after: int) -> None:
        counters = follow(1000, after)
        assert counters.increase(GPU, "a", WEEK) == 0
        assert follow(after, after + 2, counters=counters).increase(GPU, "a", WEEK) == 2

    def test_errors_since_a_reset_count(self) -> None:
        assert follow(1000, 4).increase(GPU, "a", MINUTE) == 4

    def test_but_not_when_nobody_knows_how_long_that_took(self) -> None:
        assert follow(1000, 4, every=RECENT + 1).increase(GPU, "a", WEEK) == 0

    def test_what_lasts_for_life_is_never_reset(self) -> None:
        assert follow(1000, 4, lifetime=True).increase(GPU, "a", WEEK) == 0

    def test_a_clock_set_back_starts_history_anew(self) -> None:
        counters = follow(0, 50)
        counters.observe(GPU, {"a": 51}, START - DAY)
        assert counters.increase(GPU, "a", HOUR) == 0
        counters.observe(GPU, {"a": 52}, START - DAY + 10)
        assert counters.increase(GPU, "a", HOUR) == 1

    def test_a_value_that_was_not_read_changes_nothing(self) -> None:
        counters = follow(0, 5)
        counters.observe(GPU, {"a": None}, START + 3600)
        counters.observe("", {"a": 99}, START)
        assert counters.increase(GPU, "a", MINUTE) == 5


class TestKeeping:
    def test_a_restart_goes_on(self) -> None:
        counters = Counters("boot")
        counters.load(follow(100, 103).dump())
        assert counters.increase(GPU, "a", MINUTE) == 3
        counters.observe(GPU, {"a": 104}, START + 3600)
        assert counters.increase(GPU, "a", 6 * HOUR) == 4

    def test_another_boot_keeps_only_what_lasts_for_life(self) -> None:
        before = Counters("boot")
        before.observe(GPU, {"volatile": 5}, START)
        before.observe(GPU, {"pages": 5}, START, lifetime=True)
        after = Counters("another")
        after.load(before.dump())
        after.observe(GPU, {"volatile": 9}, START + 60)
        after.observe(GPU, {"pages": 9}, START + 60, lifetime=True)
        assert (after.increase(GPU, "volatile", DAY), after.increase(GPU, "pages", DAY)) == (None, 4)

    @pytest.mark.parametrize(
        "stored",
        [None, [], {"boot_id": "boot"}, {"boot_id": "boot", "series": [{"gpu": 1}]}, {"boot_id": 1, "series": []}],
    )
    def test_a_spoilt_store_is_refused_and_changes_nothing(self, stored: object) -> None:
        counters = follow(0, 5)
        with pytest.raises(msgspec.ValidationError):
            counters.load(stored)
        assert counters.increase(GPU, "a", MINUTE) == 5

    def test_memory_is_bounded(self) -> None:
        counters = Counters()
        for number in range(MAX_SERIES + 10):
            counters.observe(f"GPU-{number}", {"a": 0}, START)
        counters.observe("late", {"a": 1}, START)
        counters.observe("late", {"a": 2}, START + 10)
        assert counters.increase("late", "a", MINUTE) is None
        counters.observe("late", {"a": 3}, START + STALE)
        counters.observe("late", {"a": 4}, START + STALE + 10)
        assert counters.increase("late", "a", MINUTE) == 1

    def test_slots_are_bounded(self) -> None:
        counters = follow(*range(0, 3 * 10**6, 1000), every=600.0)
        stored = msgspec.convert(counters.dump(), dict)["series"][0]["tiers"]
        assert all(len(tier) <= count for tier, (_, count) in zip(stored, TIERS, strict=True))


steps = st.tuples(
    st.one_of(st.integers(0, 20), st.integers(0, 2**64)),
    st.one_of(st.just(10.0), st.floats(0, 30), st.floats(-7200, 90_000)),
    st.booleans(),
)


@given(st.lists(steps, max_size=40), st.booleans())
def test_any_history(history: list[tuple[int, float, bool]], lifetime: bool) -> None:
    """Never negative, never more than really grew, never a reset; a restart at any moment cannot be seen."""
    counters, restarted = Counters("boot"), Counters("boot")
    at, before, grown = START, None, 0
    for value, seconds, restart in history:
        at += seconds
        counters.observe(GPU, {"a": value}, at, lifetime=lifetime)
        restarted.observe(GPU, {"a": value}, at, lifetime=lifetime)
        if before is not None:
            grown += value - before if value >= before else (0 if lifetime or 2 * value > before else value)
        before = value
        if restart:
            kept = msgspec.json.decode(msgspec.json.encode(restarted.dump()))
            restarted = Counters("boot")
            restarted.load(kept)
        for window in WINDOWS:
            increase = counters.increase(GPU, "a", window)
            worst = counters.worst(GPU, "a", window, within_seconds=max(window, 15 * MINUTE))
            assert increase is None or 0 <= increase <= grown
            assert worst is None or (increase or 0) <= worst <= grown
            assert restarted.increase(GPU, "a", window) == increase
            assert restarted.worst(GPU, "a", window, within_seconds=max(window, 15 * MINUTE)) == worst


@given(st.lists(st.integers(0, 5), min_size=2, max_size=200))
def test_what_grew_within_the_window_is_found(growth: list[int]) -> None:
    counters, value = Counters(), 10**6
    for number, more in enumerate(growth):
        value += more
        counters.observe(GPU, {"a": value}, START + 10 * number)
    assert counters.increase(GPU, "a", 6 * HOUR) == sum(growth[1:])
    assert sum(growth[1:][-5:]) <= (counters.increase(GPU, "a", MINUTE) or 0) <= sum(growth[1:][-6:])
