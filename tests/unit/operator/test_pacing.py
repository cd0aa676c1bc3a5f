"""Pacing: pure arithmetic of when to judge and when to write."""

import pytest

from gpudiag_operator.diagnostics.pacing import COALESCE_SECONDS, CONFIRM_SECONDS, Pacing


def judged(interval: float = 30.0) -> Pacing:
    pacing = Pacing(interval=interval, confirm_at=CONFIRM_SECONDS)
    pacing.judged(0.0, cost=0.01)
    pacing.wrote(0.0)
    return pacing


def test_the_first_judgement_is_due_at_once() -> None:
    assert Pacing(interval=30, confirm_at=float("inf")).due() == 0.0


def test_at_rest_only_the_confirmation_is_due() -> None:
    assert judged().due() == CONFIRM_SECONDS


def test_changes_are_gathered_for_a_moment() -> None:
    pacing = judged()
    pacing.touch(100.0)
    pacing.touch(100.1)
    assert pacing.due() == pytest.approx(100.0 + COALESCE_SECONDS)


def test_judging_takes_a_tenth_of_the_time_at_most() -> None:
    pacing = judged()
    pacing.judged(100.0, cost=2.0)
    pacing.touch(100.1)
    assert pacing.due() == pytest.approx(120.0)


def test_a_change_that_is_not_worse_waits_for_the_interval() -> None:
    pacing = judged()
    pacing.judged(10.0, cost=0)
    assert not pacing.allows(10.0, worse=False)
    assert pacing.due() == 30.0
    assert pacing.allows(30.0, worse=False)


def test_a_change_for_the_worse_waits_two_seconds() -> None:
    pacing = judged()
    pacing.judged(1.0, cost=0)
    assert not pacing.allows(1.0, worse=True)
    assert pacing.due() == 2.0
    assert pacing.allows(2.0, worse=True)


def test_after_a_start_nothing_is_held_back() -> None:
    pacing = Pacing(interval=86_400, confirm_at=300)
    pacing.judged(5.0, cost=0)
    assert pacing.allows(5.0, worse=False)
