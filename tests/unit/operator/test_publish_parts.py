"""The small parts behind publishing: status of a GPUNode, meaning, token bucket, queue."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.operator.crd_schema import problems, status_schema
from tests.unit.operator.fake_api import Clock
from tests.unit.operator.fleet import (
    CRITICAL,
    NOW,
    WARNING,
    application_xid,
    failed,
    finding,
    gap,
    gpu,
    node_of,
    subject,
    xid,
)

from gpudiag_api.kinds import GPUNodeStatus
from gpudiag_api.vocabulary import BreakerState, Capability, Health, NotRead, Severity
from gpudiag_api.wire import Allocation, MIGInstance
from gpudiag_operator.aggregate import budget
from gpudiag_operator.domain import BreakerSnapshot, NodeState
from gpudiag_operator.publish.backlog import Backlog
from gpudiag_operator.publish.bucket import TokenBucket
from gpudiag_operator.publish.gpunode import status_of
from gpudiag_operator.publish.meaning import Change, change, meaning, worsened
from gpudiag_operator.publish.recall import recall

SCHEMA = status_schema("gpunodes")


def status(state: NodeState, **more: Any) -> GPUNodeStatus:
    found = status_of(state, generation=2, now=NOW, **more)
    assert list(problems(budget.dump(found), SCHEMA)) == []
    return found


def reasons(found: GPUNodeStatus) -> dict[str, tuple[str, str]]:
    return {one.type: (one.status, one.reason) for one in found.conditions}


class TestStatus:
    @pytest.mark.parametrize(
        ("state", "gpus"),
        [
            (node_of(), ("True", "AllHealthy")),
            (node_of(findings=(finding(WARNING),)), ("False", "Warnings")),
            (node_of(findings=(finding(CRITICAL),)), ("False", "Failures")),
            (node_of(capabilities=(gap(Capability.NO_DRIVER),)), ("Unknown", "NotAllKnown")),
        ],
    )
    def test_conditions_of_a_node_that_was_read(self, state: NodeState, gpus: tuple[str, str]) -> None:
        assert reasons(status(state)) == {
            "Ready": ("True", "Fresh"),
            "GPUsHealthy": gpus,
            "AgentReachable": ("True", "Reachable"),
            "CircuitBreakerClosed": ("True", "Closed"),
        }

    @pytest.mark.parametrize("reason", list(NotRead))
    def test_conditions_of_a_node_that_was_not(self, reason: NotRead) -> None:
        found = status(node_of(failure=reason))
        assert reasons(found)["Ready"] == ("False", "NotRead")
        assert reasons(found)["AgentReachable"] == ("False", reason)
        assert (found.health, found.reason, found.agent.reachable) == ("Unknown", reason, False)
        assert {one.reason for one in found.gpus} == {reason}

    @pytest.mark.parametrize("state", list(BreakerState))
    def test_the_breaker(self, state: BreakerState) -> None:
        found = status(node_of(breaker=BreakerSnapshot(state=state, opened_at=NOW, open_for_seconds=61.0)))
        closed = state in (BreakerState.CLOSED, BreakerState.FORCED_CLOSED)
        assert reasons(found)["CircuitBreakerClosed"] == (str(closed), state)
        assert (found.breaker.state, found.breaker.open_for) == (state, "1m1s")

    def test_a_transition_is_a_flip_of_status(self) -> None:
        first = status(node_of(findings=(finding(WARNING),)))
        later = status_of(node_of(findings=(finding(CRITICAL),)), generation=2, previous=first.conditions, now=NOW + 60)
        healthy = status_of(node_of(), generation=2, previous=later.conditions, now=NOW + 90)
        times = [
            next(one.last_transition_time for one in found.conditions if one.type == "GPUsHealthy")
            for found in (first, later, healthy)
        ]
        assert times[0] == times[1] < times[2]

    def test_why_each_gpu_is_not_healthy(self) -> None:
        found = status(node_of(findings=(finding(CRITICAL, index=1),)))
        assert [one.reason for one in found.gpus] == [None, "UncorrectableErrors"]

    def test_a_lost_gpu_is_counted(self) -> None:
        lost = finding(CRITICAL, subject=subject(9))
        assert status(node_of(findings=(lost,))).gpu_counts.unhealthy == 1
        assert status(node_of(findings=(lost,))).gpu_counts.total == 3

    def test_of_a_silent_node_all_gpus_are_unknown(self) -> None:
        found = status(node_of(failure=NotRead.TIMEOUT, findings=(finding(CRITICAL, subject=subject(9)),)))
        assert (found.gpu_counts.unknown, found.gpu_counts.unhealthy, found.gpu_counts.total) == (2, 0, 2)

    def test_lists_are_bounded_and_say_so(self) -> None:
        many = node_of(
            findings=tuple(finding(WARNING, reason=f"R{at}") for at in range(70)),
            xids=tuple(xid(sequence=at) for at in range(64)),
            allocations=tuple(
                Allocation(gpu_uuid="GPU-1", namespace="a", pod=f"p{at}", container="c") for at in range(200)
            ),
        )
        found = status(many)
        assert (len(found.findings), found.findings_truncated) == (64, True)
        assert (len(found.xids), len(found.allocations)) == (20, 128)

    def test_an_applications_xids_never_push_out_the_hardwares(self) -> None:
        noise = tuple(application_xid(sequence=100 - at) for at in range(60))
        found = status(node_of(xids=(*noise, xid(79, sequence=1))))
        assert len(found.xids) == 20
        assert found.xids[-1].code == 79

    def test_a_time_that_is_none_is_left_out(self) -> None:
        found = status(node_of(findings=(finding(first_seen="yesterday", last_seen=""),)))
        assert found.findings[0].first_seen is None


indices = st.sampled_from([None, 0, 1, 9])
findings = st.lists(
    st.builds(finding, st.sampled_from(Severity), indices, reason=st.text(max_size=63), message=st.text(max_size=99)),
    max_size=70,
)


def _event(application: bool, sequence: int) -> Any:
    return application_xid(sequence=sequence, code=sequence) if application else xid(sequence=sequence)


states = st.builds(
    node_of,
    findings=findings.map(tuple),
    xids=st.lists(st.integers(0, 99), max_size=64, unique=True).flatmap(
        lambda numbers: st.tuples(*(st.builds(_event, st.booleans(), st.just(one)) for one in numbers))
    ),
    failure=st.none() | st.sampled_from(NotRead),
    gpus=st.integers(0, 3),
    capabilities=st.lists(st.sampled_from(Capability), max_size=3, unique=True).map(
        lambda reasons: tuple(map(gap, reasons))
    ),
    breaker=st.builds(
        BreakerSnapshot, state=st.sampled_from(BreakerState), open_for_seconds=st.none() | st.floats(0, 1e4)
    ),
)


@settings(max_examples=80, deadline=None)
@given(states)
def test_every_state_makes_a_status_that_the_schema_takes_and_that_is_remembered(state: NodeState) -> None:
    stored = GPUNodeStatus.model_validate(budget.dump(status(state)))
    assert change(meaning(recall("n1", stored)), meaning(state)) is Change.NONE


def test_mig_devices_are_remembered() -> None:
    mig = MIGInstance(uuid="MIG-1", gpu_instance=3, compute_instance=0, profile="1g.10gb")
    on_mig = msgspec.structs.replace(subject(0), mig_gpu_instance=3, mig_compute_instance=0)
    state = node_of(findings=(finding(subject=on_mig),))
    state = msgspec.structs.replace(state, gpus=(gpu(0, mig_enabled=True, mig=(mig,)),))
    known = recall("n1", status(state))
    assert known.gpus == state.gpus
    assert known.findings[0].key == state.findings[0].key


def test_words_of_a_newer_operator_are_no_error() -> None:
    strange = GPUNodeStatus.model_validate(
        {
            "health": "Sparkling",
            "recommendedAction": "Polish",
            "conditions": [
                {
                    "type": "AgentReachable",
                    "status": "False",
                    "reason": "Shy",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ],
            "agent": {"capabilities": [{"reason": "NoLuck"}]},
            "breaker": {"state": "Ajar", "openFor": "a while"},
        }
    )
    known = recall("n1", strange)
    assert (known.health, known.capabilities, known.breaker) == (Health.UNKNOWN, (), BreakerSnapshot())
    assert known.failure is not None


class TestChange:
    @pytest.mark.parametrize(
        ("old", "new", "worth"),
        [
            (node_of(), node_of(), Change.NONE),
            (node_of(), node_of(findings=(finding(WARNING),)), Change.WORSE),
            (node_of(findings=(finding(WARNING),)), node_of(), Change.FULL),
            (node_of(), node_of(failure=NotRead.TIMEOUT), Change.WORSE),
            (node_of(findings=(finding(),)), node_of(failure=NotRead.TIMEOUT), Change.FULL),
            (node_of(), node_of(xids=(xid(),)), Change.FULL),
            (node_of(xids=(xid(),)), node_of(), Change.NONE),
            (node_of(), node_of(xids=(application_xid(),)), Change.LIGHT),
            (node_of(xids=(application_xid(),)), node_of(), Change.NONE),
            (node_of(), node_of(capabilities=(gap(Capability.NO_KERNEL_LOG),)), Change.FULL),
        ],
    )
    def test_what_it_is_worth(self, old: NodeState, new: NodeState, worth: Change) -> None:
        assert change(meaning(old), meaning(new)) is worth
        assert worsened(meaning(old), meaning(new)) is (worth is Change.WORSE)

    def test_a_meaning_can_be_hashed(self) -> None:
        assert hash(meaning(node_of())) == hash(meaning(node_of()))

    def test_the_word_for_not_being_read_is_meaning(self) -> None:
        old, new = (
            msgspec.structs.replace(node_of(), failure=failed(one)) for one in (NotRead.TIMEOUT, NotRead.NOT_JSON)
        )
        assert change(meaning(old), meaning(new)) is Change.FULL


class TestBucket:
    def test_it_gives_a_burst_and_then_its_rate(self) -> None:
        clock = Clock()
        bucket = TokenBucket(20, clock=clock)
        taken = 0
        for _ in range(1000):
            while not bucket.wait():
                bucket.spend()
                taken += 1
            clock.now += 0.01
        assert 200 <= taken <= 211

    def test_debt_is_paid_back(self) -> None:
        clock = Clock()
        bucket = TokenBucket(2, burst=1, clock=clock)
        bucket.spend(5)
        assert bucket.wait() == pytest.approx(2.5)
        clock.now += 2.5
        assert bucket.wait() == 0

    async def test_take_waits(self) -> None:
        clock = Clock()

        async def sleep(seconds: float) -> None:
            clock.now += seconds

        bucket = TokenBucket(4, burst=1, clock=clock, sleep=sleep)
        for _ in range(9):
            await bucket.take()
        assert clock.now == pytest.approx(1002)

    def test_a_rate_of_zero_is_refused(self) -> None:
        with pytest.raises(ValueError, match="above 0"):
            TokenBucket(0)


class TestBacklog:
    def test_due_before_rank_and_rank_before_age(self) -> None:
        queue = Backlog()
        queue.put("later", rank=(0,), due=10)
        queue.put("old", rank=(2,), due=0)
        queue.put("young", rank=(2,), due=0)
        queue.put("urgent", rank=(1,), due=0)
        order = []
        while name := queue.peek(5):
            order.append(name)
            queue.discard(name)
        assert order == ["urgent", "old", "young"]
        assert (queue.next_due(), len(queue)) == (10, 1)

    def test_put_again_replaces_and_keeps_its_place(self) -> None:
        queue = Backlog()
        queue.put("a", rank=(2,), due=0)
        queue.put("b", rank=(1,), due=0)
        queue.put("a", rank=(1,), due=0)
        assert queue.peek(0) == "a"
        queue.put("a", rank=(1,), due=9)
        assert (queue.peek(0), len(queue)) == ("b", 2)

    @given(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 9), st.booleans()), max_size=30)
    )
    def test_it_agrees_with_a_plain_search(self, steps: list[tuple[str, int, int, bool]]) -> None:
        queue = Backlog()
        plain: dict[str, tuple[int, int, int]] = {}
        for at, (name, rank, due, gone) in enumerate(steps):
            if gone:
                queue.discard(name)
                plain.pop(name, None)
                continue
            queue.put(name, rank=(rank,), due=due)
            plain[name] = (rank, plain[name][1] if name in plain else at, due)
        due_now = {name: entry for name, entry in plain.items() if entry[2] <= 5}
        assert queue.peek(5) == min(due_now, key=lambda name: due_now[name][:2], default=None)
        assert queue.next_due() == min((entry[2] for entry in plain.values() if entry[2] > 5), default=None)
