"""The global limit, the budget of repeats, and open files."""

import asyncio
import random
import resource

import pytest

from gpudiag_operator.collect.limiter import Limiter, Pace, RetryBudget, Slot
from gpudiag_operator.collect.resources import raise_open_files


async def test_the_limiter_survives_cancellation_at_any_moment() -> None:
    limiter = Limiter(2)
    rng = random.Random(3)

    async def user() -> None:
        slot = Slot(limiter, urgent=rng.random() < 0.3)
        try:
            for _ in range(3):
                await slot.hold()
                assert limiter.free >= 0
                await asyncio.sleep(0)
                slot.drop()
        finally:
            slot.drop()

    tasks = [asyncio.create_task(user()) for _ in range(300)]
    for _ in range(60):
        await asyncio.sleep(0)
        for task in rng.sample(tasks, 4):
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert limiter.free == 2
    assert limiter.waiting == 0


def test_retries_are_a_share_of_calls() -> None:
    budget = RetryBudget(ratio=0.1, reserve=5)
    spent = sum(budget.spend() for _ in range(100))
    assert spent == 5
    for _ in range(100):
        budget.earn()
        spent += budget.spend()
    assert 14 <= spent <= 15


def test_open_files_are_raised_within_the_hard_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.append(wanted))
    assert raise_open_files(5000) == (4096, 1024)
    assert limits[-1] == (4096, 4096)
    assert raise_open_files(5000) == (4096, 4096)
    assert len(limits) == 2


class Time:
    """Passes while somebody sleeps; ``late`` is how much longer that takes, once."""

    def __init__(self) -> None:
        self.now = 100.0
        self.late = 0.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds + self.late
        self.late = 0.0

    async def turns(self, pace: Pace, number: int) -> list[float]:
        found = []
        for _ in range(number):
            await pace.turn()
            found.append(round(self.now, 6))
        return found


async def test_a_pace_spreads_a_burst_and_forgets_it_after_a_rest() -> None:
    time = Time()
    pace = Pace(10, clock=lambda: time.now, sleep=time.sleep)
    assert await time.turns(pace, 4) == [100.0, 100.1, 100.2, 100.3]
    time.now = 200.0
    assert await time.turns(pace, 2) == [200.0, 200.1]


async def test_a_loop_that_was_late_does_not_catch_up() -> None:
    time = Time()
    pace = Pace(400, clock=lambda: time.now, sleep=time.sleep)
    before = await time.turns(pace, 400)
    time.late = 0.5
    after = await time.turns(pace, 400)
    for taken in (before, after):
        assert 0.9 < taken[-1] - taken[0] < 1.6
        for start in taken:
            assert sum(start <= at < start + 0.25 for at in taken) <= 100 + 9, "lumps are small"
