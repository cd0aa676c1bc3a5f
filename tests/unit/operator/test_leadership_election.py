"""The election as a specification: one candidate's rules, and never two leaders whatever the network does."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpudiag_operator.leadership import record as records
from gpudiag_operator.leadership.election import Election, Step, Timing
from gpudiag_operator.leadership.record import LeaseRecord

TIMING = Timing()


def lease(holder: str, *, version: str = "1", renewed: str = "t1", duration: float = 15.0) -> LeaseRecord:
    return LeaseRecord(holder=holder, duration=duration, renewed=renewed, version=version)


def candidate(identity: str = "me") -> Election:
    return Election(identity, TIMING)


def test_first_it_looks() -> None:
    assert candidate().step(0) is Step.LOOK


def test_a_lease_that_is_not_there_is_created_at_once() -> None:
    one = candidate()
    one.saw(None, at=100)
    assert one.step(100) is Step.CREATE


def test_a_lease_that_was_given_up_is_taken_at_once() -> None:
    one = candidate()
    one.saw(lease(""), at=100)
    assert one.step(100) is Step.TAKE


def test_a_lease_of_another_is_taken_when_it_looked_the_same_for_its_whole_duration() -> None:
    one = candidate()
    one.saw(lease("you"), at=100)
    one.saw(lease("you"), at=114.9)
    assert one.step(114.9) is Step.LOOK
    one.saw(lease("you"), at=115)
    assert one.step(115) is Step.TAKE


def test_a_renewal_starts_the_wait_anew_whatever_its_times_say() -> None:
    one = candidate()
    one.saw(lease("you", renewed="2026-01-01T00:00:00.000000Z"), at=100)
    one.saw(lease("you", renewed="1999-01-01T00:00:00.000000Z", version="2"), at=114)
    assert one.step(128.9) is Step.LOOK
    assert one.step(129) is Step.TAKE


def test_a_label_on_the_lease_is_no_renewal() -> None:
    one = candidate()
    one.saw(lease("you"), at=100)
    one.saw(lease("you", version="2"), at=114)
    assert one.step(115) is Step.TAKE
    assert one.record is not None
    assert one.record.version == "2", "what is written names the newest version"


def test_the_holders_own_promise_counts() -> None:
    one = candidate()
    one.saw(lease("you", duration=60), at=100)
    assert one.step(159) is Step.LOOK
    assert one.step(160) is Step.TAKE


def test_the_right_to_write_counts_from_when_the_renewal_was_asked_for() -> None:
    one = candidate()
    one.saw(None, at=100)
    one.wrote(lease("me"), asked_at=100, at=104)
    assert one.held
    assert one.writes_until() == 110
    one.wrote(lease("me", version="2"), asked_at=106, at=107)
    assert one.writes_until() == 116


def test_a_leader_that_could_not_renew_goes_on_if_nobody_took_it() -> None:
    one = candidate()
    one.wrote(lease("me"), asked_at=100, at=100)
    one.saw(lease("me"), at=500)
    assert one.step(500) is Step.RENEW
    assert one.writes_until() == 110, "only a renewal opens the fence"


@pytest.mark.parametrize("holder", ["you", ""])
def test_a_leader_whose_lease_is_anothers_is_lost_for_good(holder: str) -> None:
    one = candidate()
    one.wrote(lease("me"), asked_at=100, at=100)
    one.saw(lease(holder, version="2", renewed="t2"), at=101)
    assert one.step(101) is Step.LOST
    assert one.writes_until() == float("-inf")


def test_a_write_whose_answer_was_lost_is_found_at_the_next_look() -> None:
    one = candidate()
    one.saw(lease("me"), at=100)
    assert not one.held
    assert one.step(100) is Step.RENEW


def test_while_looks_fail_nobodys_lease_grows_old() -> None:
    one = candidate()
    one.saw(lease("you"), at=100)
    one.saw(lease("you"), at=110)
    assert one.unrenewed() == 10


# The object in the API server


def test_a_lease_is_written_as_the_api_wants_it() -> None:
    spec = records.taken(None, "me", duration=2.5, now=1_800_000_000.1234)
    assert spec == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 3,
        "leaseTransitions": 0,
        "acquireTime": "2027-01-15T08:00:00.123000Z",
        "renewTime": "2027-01-15T08:00:00.123000Z",
    }
    assert records.taken(lease("you"), "me", duration=15, now=0)["leaseTransitions"] == 1
    assert "acquireTime" not in records.renewed("me", duration=15, now=0)
    assert records.released(0)["holderIdentity"] == ""


@pytest.mark.parametrize("spec", [{}, None, {"holderIdentity": None, "leaseDurationSeconds": None}])
def test_an_empty_lease_is_nobodys(spec: Any) -> None:
    found = records.read({"metadata": {"resourceVersion": "7"}, "spec": spec}, duration=15)
    assert found == LeaseRecord(duration=15, version="7")


# Never two


class Server:
    """Compare and swap, in true time."""

    def __init__(self) -> None:
        self.record: LeaseRecord | None = None
        self._version = 0

    def write(self, before: LeaseRecord | None, identity: str, duration: float) -> LeaseRecord | None:
        stored = "" if self.record is None else self.record.version
        if (before.version if before else "") != stored:
            return None
        self._version += 1
        self.record = lease(identity, version=str(self._version), renewed=f"t{self._version}", duration=duration)
        return self.record


@dataclass
class Process:
    """A candidate with a clock of its own, and requests that take as long as they take."""

    election: Election
    rate: float
    offset: float
    led: list[tuple[float, float]] = field(default_factory=list)
    """True times from and until which it would have written."""

    def clock(self, true: float) -> float:
        return true * self.rate + self.offset

    def true(self, clock: float) -> float:
        return (clock - self.offset) / self.rate


class Play:
    """Everybody tries for a while. A request reaches the server, and its answer the process, after any delay; a
    process that waits too long sends the next one while the last may still arrive."""

    def __init__(self, processes: list[Process], *, rng: random.Random, worst: float) -> None:
        self.server = Server()
        self.processes = processes
        self.rng = rng
        self.worst = worst
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.made = 0
        for one in processes:
            self.later(rng.random(), partial(self.turn, one))

    def later(self, delay: float, what: Callable[[], None]) -> None:
        self.made += 1
        heapq.heappush(self.events, (self.now + delay, self.made, what))

    def delay(self) -> float:
        """Mostly short; now and then as long as a partition, a pause or a lost packet makes it."""
        return self.rng.choice((0.01, 0.01, 0.1, 1.0, self.rng.uniform(0, self.worst)))

    def run(self, seconds: float) -> None:
        while self.events[0][0] < seconds:
            self.now, _, what = heapq.heappop(self.events)
            what()

    def turn(self, one: Process) -> None:
        election, asked_at = one.election, one.clock(self.now)
        step = election.step(asked_at)
        if step is Step.LOST:  # the process ends, and is started again
            one.election = candidate(f"{election.identity}'")
        there, back, before = self.delay(), self.delay(), election.record
        if step in (Step.CREATE, Step.TAKE, Step.RENEW):
            self.later(there, lambda: self.write(one, election, before, asked_at, back))
        elif step is Step.LOOK:
            self.later(there, lambda: self.answer(back, one, election, self.server.record))
        # Held up itself now and then, between deciding and whatever comes next.
        self.later(min(there + back, TIMING.attempt_seconds) + self.delay(), partial(self.turn, one))

    def write(self, one: Process, by: Election, before: LeaseRecord | None, asked_at: float, back: float) -> None:
        done = self.server.write(before, by.identity, TIMING.lease_duration)
        if done is None:
            self.answer(back, one, by, self.server.record)
        else:
            self.later(back, lambda: self.wrote(one, by, done, asked_at))

    def answer(self, back: float, one: Process, to: Election, record: LeaseRecord | None) -> None:
        self.later(back, lambda: self.saw(one, to, record))

    def saw(self, one: Process, by: Election, record: LeaseRecord | None) -> None:
        if one.election is by and not older(record, by.record):
            by.saw(record, at=one.clock(self.now))

    def wrote(self, one: Process, by: Election, record: LeaseRecord, asked_at: float) -> None:
        if one.election is by and not older(record, by.record) and not by.lost:
            by.wrote(record, asked_at=asked_at, at=one.clock(self.now))
            until = one.true(by.writes_until())
            if until > self.now:
                one.led.append((self.now, until))


def older(new: LeaseRecord | None, known: LeaseRecord | None) -> bool:
    """A keeper has one request under way and never sees an older answer."""
    return known is not None and (new is None or int(new.version) < int(known.version))


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rates=st.lists(st.floats(0.98, 1.02), min_size=2, max_size=4),
    worst=st.sampled_from((0.5, 5.0, 12.0, 40.0)),
)
def test_never_two_write_at_the_same_time(seed: int, rates: list[float], worst: float) -> None:
    rng = random.Random(seed)
    processes = [Process(candidate(str(at)), rate, rng.uniform(0, 1e6)) for at, rate in enumerate(rates)]
    Play(processes, rng=rng, worst=worst).run(400)
    spans = sorted((begin, end, at) for at, one in enumerate(processes) for begin, end in one.led)
    reach: dict[int, float] = {}
    for begin, end, at in spans:
        for other, until in reach.items():
            assert other == at or until <= begin, f"{other} wrote until {until:.2f}, {at} from {begin:.2f}"
        reach[at] = max(end, reach.get(at, 0.0))
    assert spans or worst > 5, "somebody leads"
