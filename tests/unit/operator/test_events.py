"""Events: which, under what name, and the same ones after a crash."""

from typing import Any

import pytest
from tests.unit.operator.fake_api import FakeAPI
from tests.unit.operator.fleet import (
    CRITICAL,
    INFO,
    NOW,
    SEEN,
    WARNING,
    application_xid,
    finding,
    node_of,
    xid,
)

from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_api.kinds.verdict import HistoryEntry
from gpudiag_api.vocabulary import BreakerState, NotRead
from gpudiag_operator.domain import BreakerSnapshot, NodeState
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable
from gpudiag_operator.publish.events import EventSpec, ObjectRef, Told, emit, event_body, event_name
from gpudiag_operator.publish.meaning import meaning
from gpudiag_operator.publish.occasions import MOST, of_diagnostic, of_node

NODE = ObjectRef(kind="GPUNode", name="n1", uid="u1")
EVENT = EventSpec(reason="GPUUnhealthy", message="it is", subject="GPU-1", origin="then")
LEFT = {"GPUsHealthy": "2026-01-01T00:00:00.000Z", "CircuitBreakerClosed": "2026-01-02T00:00:00.000Z"}


class TestName:
    def test_the_same_occurrence_has_the_same_name(self) -> None:
        again = EventSpec(reason="GPUUnhealthy", message="other words", subject="GPU-1", origin="then", type="Normal")
        assert event_name(NODE, EVENT) == event_name(NODE, again)

    @pytest.mark.parametrize("other", [{"reason": "X"}, {"subject": "X"}, {"origin": "X"}])
    def test_another_one_has_another(self, other: dict[str, str]) -> None:
        given = {"reason": "GPUUnhealthy", "message": "it is", "subject": "GPU-1", "origin": "then"}
        assert event_name(NODE, EventSpec(**given | other)) != event_name(NODE, EVENT)  # type: ignore[arg-type]

    def test_a_namesake_made_since_has_another(self) -> None:
        assert event_name(ObjectRef(kind="GPUNode", name="n1", uid="u2"), EVENT) != event_name(NODE, EVENT)

    def test_parts_do_not_run_into_each_other(self) -> None:
        one, other = (EventSpec(reason="A", message="", subject=s, origin=o) for s, o in (("x", "yz"), ("xy", "z")))
        assert event_name(NODE, one) != event_name(NODE, other)

    def test_it_is_a_name_however_long_the_objects_is(self) -> None:
        long = ObjectRef(kind="GPUNode", name="n" * 199 + "." + "m" * 53, uid="u")
        name = event_name(long, EVENT)
        assert len(name) <= 253
        assert ".." not in name


class TestEmit:
    async def test_it_is_created_where_the_api_server_wants_it(self) -> None:
        api = FakeAPI()
        await emit(api, NODE, EVENT, now=NOW)
        await emit(api, ObjectRef(kind="GPUDiagnostic", name="d", namespace="team", uid="u"), EVENT, now=NOW)
        assert [path.rpartition("/")[0] for path in api.objects] == [
            "/api/v1/namespaces/default/events",
            "/api/v1/namespaces/team/events",
        ]

    async def test_a_repeat_is_counted(self) -> None:
        api = FakeAPI()
        for later in range(3):
            await emit(api, NODE, EVENT, now=NOW + later)
        ((_, stored),) = api.objects.items()
        assert stored["count"] == 3
        assert stored["lastTimestamp"] > stored["firstTimestamp"]

    async def test_one_that_expired_meanwhile_was_told(self) -> None:
        api = FakeAPI()
        await emit(api, NODE, EVENT, now=NOW)
        api.refuse["get"] = ApiError(404, "NotFound")
        await emit(api, NODE, EVENT, now=NOW)

    @pytest.mark.parametrize("verb", ["create", "get", "patch"])
    async def test_other_refusals_are_told(self, verb: str) -> None:
        api = FakeAPI()
        if verb != "create":
            await emit(api, NODE, EVENT, now=NOW)
        api.refuse[verb] = ApiError(403, "Forbidden")
        with pytest.raises(ApiError):
            await emit(api, NODE, EVENT, now=NOW)

    def test_messages_are_bounded(self) -> None:
        assert len(event_body(NODE, EventSpec(reason="A", message="x" * 5000), now=NOW)["message"]) == 1024


class TestTold:
    """A status that is written in the third attempt has told its Events once."""

    async def test_an_event_that_the_server_has_is_not_repeated(self) -> None:
        api, told = FakeAPI(), Told()
        for _ in range(3):
            await told.emit(api, NODE, EVENT, now=NOW)
        assert [verb for verb, _ in api.calls] == ["create"]

    async def test_an_answer_that_was_lost_is_not_a_second_occurrence(self) -> None:
        api, told = FakeAPI(), Told()
        await emit(api, NODE, EVENT, now=NOW)
        api.faults.append(ApiUnavailable("cut after the server had it"))
        with pytest.raises(ApiUnavailable):
            await told.emit(api, NODE, EVENT, now=NOW)
        await told.emit(api, NODE, EVENT, now=NOW)
        assert [stored["count"] for stored in api.objects.values()] == [1]

    async def test_once_the_status_is_written_the_next_occurrence_counts(self) -> None:
        api, told = FakeAPI(), Told()
        await told.emit(api, NODE, EVENT, now=NOW)
        told.settled(NODE.name)
        await told.emit(api, NODE, EVENT, now=NOW)
        assert [stored["count"] for stored in api.objects.values()] == [2]

    async def test_an_event_that_is_refused_is_tried_three_times_and_then_left_out(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        api, told = FakeAPI(), Told()
        for _ in range(2):
            api.faults.append(ApiError(422, "Invalid", "a webhook says no"))
            with pytest.raises(ApiError):
                await told.emit(api, NODE, EVENT, now=NOW)
        api.faults.append(ApiError(422, "Invalid", "a webhook says no"))
        assert not await told.emit(api, NODE, EVENT, now=NOW)
        assert not await told.emit(api, NODE, EVENT, now=NOW), "the status needs no more attempts"
        assert api.objects == {}
        assert caplog.text.count("a webhook says no") == 1

    async def test_a_refusal_that_passes_loses_nothing(self) -> None:
        api, told = FakeAPI(), Told()
        api.faults.append(ApiError(422, "Invalid", "a webhook says no"))
        with pytest.raises(ApiError):
            await told.emit(api, NODE, EVENT, now=NOW)
        assert await told.emit(api, NODE, EVENT, now=NOW)
        assert [stored["count"] for stored in api.objects.values()] == [1]

    @pytest.mark.parametrize("status", [401, 403, 404])
    async def test_without_a_right_or_a_place_the_status_is_not_held_up(self, status: int) -> None:
        api, told = FakeAPI(), Told()
        api.faults.append(ApiError(status, "Forbidden", "no"))
        assert not await told.emit(api, NODE, EVENT, now=NOW)


def between(old: NodeState | None, new: NodeState) -> list[tuple[str, str, str]]:
    """Reason, type, origin of each Event."""
    found = of_node(None if old is None else meaning(old), meaning(new), new, transitions=LEFT if old else {})
    return [(one.reason, one.type, one.origin) for one in found]


HEALTHY = node_of()
DEGRADED = node_of(findings=(finding(WARNING),))
SICK = node_of(findings=(finding(CRITICAL),))
HEALTH_LEFT, BREAKER_LEFT = LEFT.values()


class TestNode:
    @pytest.mark.parametrize(
        ("old", "new", "events"),
        [
            (HEALTHY, HEALTHY, []),
            (HEALTHY, DEGRADED, [("GPUDegraded", "Warning", HEALTH_LEFT)]),
            (
                DEGRADED,
                SICK,
                [("GPUUnhealthy", "Warning", HEALTH_LEFT), ("UncorrectableErrors", "Warning", SEEN)],
            ),
            (SICK, HEALTHY, [("GPURecovered", "Normal", HEALTH_LEFT)]),
            (HEALTHY, node_of(failure=NotRead.TIMEOUT), [("NodeUnknown", "Warning", HEALTH_LEFT)]),
            (None, HEALTHY, []),
            (None, node_of(failure=NotRead.AGENT_MISSING), []),
            (None, DEGRADED, [("GPUDegraded", "Warning", "")]),
            (
                HEALTHY,
                node_of(breaker=BreakerSnapshot(state=BreakerState.OPEN)),
                [("CircuitBreakerOpened", "Warning", BREAKER_LEFT)],
            ),
            (SICK, node_of(findings=(finding(), finding(index=1))), [("UncorrectableErrors", "Warning", SEEN)]),
        ],
    )
    def test_what_is_worth_one(self, old: NodeState | None, new: NodeState, events: list[Any]) -> None:
        assert between(old, new) == events

    def test_an_xid_is_told_once_under_its_own_identity(self) -> None:
        seen = finding(check="XID", reason="XID48")
        new = node_of(findings=(seen,), xids=(xid(48, sequence=7),))
        assert between(HEALTHY, new) == [("GPUUnhealthy", "Warning", HEALTH_LEFT), ("XID48", "Warning", "boot/7")]
        assert between(new, new) == []

    def test_an_applications_xid_and_a_note_of_the_driver_are_none(self) -> None:
        assert between(HEALTHY, node_of(xids=(application_xid(), xid(63, sequence=2, severity=INFO)))) == []

    def test_what_is_last_known_of_a_silent_node_is_no_news_unless_it_was_never_told(self) -> None:
        silent = node_of(failure=NotRead.TIMEOUT, findings=(finding(),))
        assert [reason for reason, _, _ in between(SICK, silent)] == ["NodeUnknown"]
        assert [reason for reason, _, _ in between(HEALTHY, silent)] == ["NodeUnknown", "UncorrectableErrors"]

    def test_one_write_tells_a_bounded_number(self) -> None:
        broken = node_of(findings=tuple(finding(reason=f"R{at}") for at in range(60)))
        assert len(between(HEALTHY, broken)) == MOST


def verdict(word: str, at: str = "2026-01-01T00:00:00.000Z") -> GPUDiagnosticStatus:
    return GPUDiagnosticStatus(verdict=word, message=word, history=(HistoryEntry(at=at, verdict=word),))


class TestDiagnostic:
    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            (verdict("Healthy"), verdict("Unhealthy"), "VerdictUnhealthy"),
            (verdict("Unhealthy"), verdict("Healthy"), "VerdictHealthy"),
            (verdict("Healthy"), verdict("Healthy"), None),
            (None, verdict("Healthy"), None),
            (None, verdict("Unknown"), None),
            (None, verdict("Degraded"), "VerdictDegraded"),
        ],
    )
    def test_a_change_of_verdict(self, old: Any, new: GPUDiagnosticStatus, reason: str | None) -> None:
        event = of_diagnostic(old, new)
        assert (event.reason if event else None) == reason

    def test_its_origin_is_when_the_old_verdict_came(self) -> None:
        event = of_diagnostic(verdict("Healthy", "2026-02-02T00:00:00.000Z"), verdict("Degraded"))
        assert event is not None
        assert event.origin == "2026-02-02T00:00:00.000Z"
