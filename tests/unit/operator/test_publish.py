"""Writing GPUNodes: on a change of meaning only, worst first, at a bounded rate, and safe to repeat."""

import asyncio
from typing import Any

import msgspec
import pytest
from tests.unit.operator.fake_api import Clock, FakeAPI
from tests.unit.operator.fleet import (
    CRITICAL,
    NOW,
    WARNING,
    application_xid,
    finding,
    node_of,
    with_counts,
    xid,
)

from gpudiag_api.vocabulary import BreakerState, NotRead
from gpudiag_api.wire import Allocation
from gpudiag_operator.domain import BreakerSnapshot, NodeState
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable
from gpudiag_operator.publish.publisher import Pace, Publisher

GPUNODES = "/apis/gpudiag.dev/v1alpha1/gpunodes"
N1 = f"{GPUNODES}/n1"

HEALTHY = node_of()
DEGRADED = node_of(findings=(finding(WARNING),))
SICK = node_of(findings=(finding(CRITICAL),))
HELD = node_of(allocations=(Allocation(gpu_uuid="GPU-n1-0", namespace="a", pod="p", container="c"),))


class Rig:
    """A publisher, its API server, and time."""

    def __init__(self, api: FakeAPI | None = None, **more: Any) -> None:
        self.clock = Clock()
        self.api = api or FakeAPI()
        self.publisher = Publisher(self.api, clock=self.clock, wall=lambda: NOW + self.clock.now, **more)

    async def settle(self, seconds: float = 0.0) -> None:
        """Write whatever can be written within so many seconds."""
        end = self.clock.now + seconds
        while True:
            delay = await self.publisher.step()
            if delay == 0:
                continue
            if delay is None or self.clock.now + delay > end:
                self.clock.now = end
                return
            self.clock.now += delay

    async def put(self, *states: NodeState, seconds: float = 0.0) -> list[tuple[str, str]]:
        """Submit states; gives the writes they caused."""
        before = len(self.api.calls)
        for state in states:
            self.publisher.submit(state)
        await self.settle(seconds)
        return self.api.calls[before:]

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.api.objects[N1]["status"]
        return status

    def events(self) -> list[tuple[str, int]]:
        return [(one["reason"], one["count"]) for path, one in self.api.objects.items() if "/events/" in path]

    def restarted(self) -> "Rig":
        """A new process over the same API server."""
        rig = Rig(self.api)
        for path, body in self.api.objects.items():
            if path.startswith(GPUNODES):
                rig.publisher.restore(body["metadata"]["name"], body)
        return rig


class TestFirstFill:
    """What is said of a first fill that takes a while: two writes a node, a hundred a second."""

    async def test_nodes_that_wait_for_their_first_write_are_told_until_the_rest_takes_no_time(self) -> None:
        rig = Rig()
        fleet = [node_of(f"n{number}") for number in range(300)]
        for state in fleet:
            rig.publisher.submit(state)
        assert len(rig.publisher.unfilled()) == 300
        await rig.settle(2)
        assert 150 < len(rig.publisher.unfilled()) < 210
        await rig.settle(3)
        assert list(rig.publisher.unfilled()) == []
        await rig.settle(3)
        again = rig.restarted()
        for state in fleet:
            again.publisher.submit(msgspec.structs.replace(state, reason="SomethingNew"))
        assert list(again.publisher.unfilled()) == []


class TestFirstWrite:
    async def test_a_gpunode_is_made_owned_by_its_node(self) -> None:
        rig = Rig()
        assert await rig.put(HEALTHY) == [("create", N1), ("status", N1)]
        metadata = rig.api.objects[N1]["metadata"]
        assert metadata["ownerReferences"] == [
            {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "uid-n1", "blockOwnerDeletion": False}
        ]
        assert rig.status["health"] == "Healthy"
        assert rig.status["observedGeneration"] == 1

    async def test_one_made_by_people_is_adopted_and_its_other_owners_stay(self) -> None:
        rig = Rig()
        other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "mine", "uid": "u"}
        rig.api.put(N1, {"metadata": {"name": "n1", "ownerReferences": [other]}})
        assert await rig.put(HEALTHY) == [("patch", N1), ("status", N1)]
        owners = rig.api.objects[N1]["metadata"]["ownerReferences"]
        assert [one["kind"] for one in owners] == ["ConfigMap", "Node"]

    async def test_a_node_that_was_made_anew_owns_it_again(self) -> None:
        rig = Rig()
        old = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "yesterday"}
        rig.publisher.restore("n1", rig.api.put(N1, {"metadata": {"name": "n1", "ownerReferences": [old]}}))
        await rig.put(HEALTHY)
        assert [one["uid"] for one in rig.api.objects[N1]["metadata"]["ownerReferences"]] == ["uid-n1"]

    async def test_labels_of_the_node_are_mirrored_and_removed(self) -> None:
        rig = Rig(mirror_labels=("pool", "zone"))
        await rig.put(node_of(labels={"pool": "a", "other": "x"}))
        assert rig.api.objects[N1]["metadata"]["labels"] == {"pool": "a"}
        rig.api.edit(N1, labels={"mine": "stays"})
        rig.publisher.restore("n1", rig.api.objects[N1])
        await rig.put(node_of(labels={"zone": "z"}), seconds=10)
        assert rig.api.objects[N1]["metadata"]["labels"] == {"mine": "stays", "zone": "z"}


class TestMeaning:
    async def test_the_same_state_is_not_written_again(self) -> None:
        rig = Rig()
        await rig.put(SICK)
        assert await rig.put(SICK, with_counts(SICK, 9), seconds=600) == []

    @pytest.mark.parametrize(
        "other",
        [
            DEGRADED,
            SICK,
            node_of(gpus=3),
            node_of(failure=NotRead.TIMEOUT),
            node_of(breaker=BreakerSnapshot(state=BreakerState.OPEN)),
            node_of(xids=(xid(),)),
            HELD,
            node_of(xids=(application_xid(),)),
        ],
    )
    async def test_a_change_of_meaning_is_written(self, other: NodeState) -> None:
        rig = Rig()
        await rig.put(HEALTHY)
        assert ("status", N1) in await rig.put(other, seconds=30)

    async def test_counters_of_the_breaker_ride_along(self) -> None:
        rig = Rig()
        await rig.put(HEALTHY)
        assert await rig.put(node_of(breaker=BreakerSnapshot(failures=2)), seconds=60) == []

    async def test_repeats_of_an_applications_xid_only_count(self) -> None:
        rig = Rig()
        await rig.put(node_of(xids=(application_xid(1),)))
        assert await rig.put(node_of(xids=(application_xid(2), application_xid(1))), seconds=600) == []

    async def test_xids_that_leave_the_kernel_log_are_no_news(self) -> None:
        rig = Rig()
        await rig.put(node_of(xids=(xid(sequence=2), xid(sequence=1))))
        assert await rig.put(node_of(xids=(xid(sequence=2),)), seconds=600) == []

    async def test_a_code_that_a_diagnostic_calls_critical_is_meaning(self) -> None:
        rig = Rig()
        await rig.put(node_of(xids=(application_xid(1),)))
        rig.publisher.critical_xids = frozenset({31})
        assert await rig.put(node_of(xids=(application_xid(2), application_xid(1))), seconds=10) == [("status", N1)]

    async def test_a_change_of_spec_is_confirmed(self) -> None:
        rig = Rig()
        await rig.put(HEALTHY)
        rig.publisher.restore("n1", rig.api.edit(N1, generation=2))
        assert await rig.put(HEALTHY, seconds=10) == [("status", N1)]
        assert rig.status["observedGeneration"] == 2
        assert await rig.put(HEALTHY, seconds=60) == []

    async def test_what_went_back_before_it_was_written_is_not(self) -> None:
        rig = Rig()
        await rig.put(DEGRADED)
        assert await rig.put(HEALTHY, seconds=5) == []
        assert await rig.put(DEGRADED, seconds=60) == []

    async def test_fields_that_lost_their_value_are_removed(self) -> None:
        rig = Rig()
        await rig.put(HEALTHY)
        await rig.put(node_of(gpus=0, driver=node_of(unseen=True, failure=NotRead.TIMEOUT).driver), seconds=10)
        assert "driverVersion" not in rig.status
        assert "model" not in rig.status


class TestPace:
    async def test_the_first_change_is_written_at_once_and_the_next_after_ten_seconds(self) -> None:
        rig = Rig()
        await rig.put(SICK)
        rig.clock.now += 60
        assert ("status", N1) in await rig.put(DEGRADED)
        assert await rig.put(HEALTHY, seconds=9.9) == []
        await rig.settle(0.2)
        assert rig.status["health"] == "Healthy"

    async def test_what_worsens_does_not_wait(self) -> None:
        rig = Rig()
        await rig.put(HEALTHY)
        assert ("status", N1) in await rig.put(DEGRADED)
        assert ("status", N1) in await rig.put(SICK)

    async def test_another_critical_finding_is_worse(self) -> None:
        rig = Rig()
        await rig.put(SICK)
        assert ("status", N1) in await rig.put(node_of(findings=(finding(), finding(index=1))))

    async def test_the_newest_state_wins(self) -> None:
        rig = Rig()
        await rig.put(SICK)
        await rig.put(DEGRADED, HEALTHY, node_of(gpus=5), seconds=10)
        assert rig.status["gpuCounts"]["total"] == 5
        assert [verb for verb, path in rig.api.calls if path == N1].count("status") == 2

    async def test_light_changes_are_thirty_seconds_apart(self) -> None:
        rig = Rig()
        await rig.put(HEALTHY)
        assert await rig.put(HELD, seconds=29.9) == []
        await rig.settle(0.2)
        assert rig.status["allocations"]

    async def test_light_changes_ride_along_with_others(self) -> None:
        rig = Rig()
        await rig.put(HEALTHY)
        worse = node_of(findings=(finding(),), xids=(application_xid(),))
        await rig.put(worse)
        assert rig.status["xids"]
        assert await rig.put(worse, seconds=600) == []

    async def test_worst_first(self) -> None:
        rig = Rig()
        states = {
            "healthy": node_of("healthy"),
            "degraded": node_of("degraded", findings=(finding(WARNING, node="degraded"),)),
            "unknown": node_of("unknown", failure=NotRead.TIMEOUT),
            "unhealthy": node_of("unhealthy", findings=(finding(CRITICAL, node="unhealthy"),)),
        }
        await rig.put(*states.values(), seconds=1)
        order = [path.rpartition("/")[2] for verb, path in rig.api.calls if verb == "status"]
        assert order == ["unhealthy", "unknown", "degraded", "healthy"]

    async def test_a_new_fleet_fills_at_its_own_rate(self) -> None:
        rig = Rig()
        await rig.put(*(node_of(f"n{index}") for index in range(600)), seconds=10)
        assert 1000 <= len(rig.api.calls) <= 1060  # two writes each at 100/s, and the burst
        assert len(rig.publisher) == 600 - len(rig.api.calls) // 2

    async def test_filling_in_new_nodes_does_not_hold_up_the_others(self) -> None:
        rig = Rig()
        await rig.put(HEALTHY, *(node_of(f"x{index}") for index in range(100)), seconds=3)
        assert len(rig.publisher) == 0
        assert ("status", N1) in await rig.put(SICK)

    async def test_a_storm_is_written_at_the_steady_rate(self) -> None:
        rig = Rig()
        names = [f"n{index}" for index in range(300)]
        await rig.put(*map(node_of, names), seconds=60)
        sick = [node_of(name, findings=(finding(node=name),)) for name in names]
        writes = await rig.put(*sick, seconds=10)
        assert 190 <= len(writes) <= 220  # status and Events: 20/s, and the burst
        assert len(rig.publisher) > 200

    async def test_the_pace_is_a_setting(self) -> None:
        rig = Rig(pace=Pace(first_fill_rate=10))
        await rig.put(*(node_of(f"n{index}") for index in range(600)), seconds=10)
        assert len(rig.api.calls) <= 110


class TestRestart:
    @pytest.mark.parametrize(
        "state",
        [
            HEALTHY,
            SICK,
            HELD,
            node_of(failure=NotRead.TIMEOUT, findings=(finding(),)),
            node_of(gpus=16, findings=tuple(finding(WARNING, at, reason=f"R{at}") for at in range(16)) * 6),
            node_of(xids=tuple(xid(sequence=at) for at in range(40, 0, -1))),
            node_of(xids=tuple(application_xid(at, code=at) for at in range(40, 0, -1))),
            node_of(breaker=BreakerSnapshot(state=BreakerState.OPEN, opened_at=NOW, open_for_seconds=61.5)),
        ],
    )
    async def test_the_same_state_is_not_written_again(self, state: NodeState) -> None:
        rig = Rig()
        await rig.put(state, seconds=60)
        assert await rig.restarted().put(state, seconds=600) == []

    async def test_a_node_that_stays_silent_keeps_its_inventory(self) -> None:
        rig = Rig()
        await rig.put(node_of(failure=NotRead.TIMEOUT, gpus=4))
        again = rig.restarted()
        known = again.publisher.restore("n1", rig.api.objects[N1])
        assert await again.put(node_of(failure=NotRead.TIMEOUT, unseen=True, last=known), seconds=600) == []
        assert len(rig.status["gpus"]) == 4

    async def test_a_crash_between_event_and_status_doubles_no_event(self) -> None:
        rig = Rig()
        await rig.put(HEALTHY)
        rig.api.refuse["patch_status"] = ApiError(500, "InternalError")
        await rig.put(SICK)
        assert [reason for reason, _ in rig.events()] == ["GPUUnhealthy", "UncorrectableErrors"]
        del rig.api.refuse["patch_status"]
        again = rig.restarted()
        await again.put(SICK, seconds=60)
        assert [reason for reason, _ in again.events()] == ["GPUUnhealthy", "UncorrectableErrors"]
        assert again.status["health"] == "Unhealthy"

    async def test_a_status_that_cannot_be_read_is_written_anew(self) -> None:
        rig = Rig()
        await rig.put(HEALTHY)
        rig.api.objects[N1]["status"]["gpus"] = [{"index": "what"}]
        assert await rig.restarted().put(HEALTHY) == [("status", N1)]

    def test_what_is_no_object_is_ignored(self) -> None:
        assert Rig().publisher.restore("n1", {"metadata": {}}) is None


class TestTrouble:
    @pytest.mark.parametrize(
        "fault",
        [
            ApiError(429, "TooManyRequests", retry_after=7),
            ApiError(503, "ServiceUnavailable"),
            ApiError(403, "Forbidden"),
            ApiUnavailable("no route"),
        ],
    )
    async def test_the_servers_trouble_pauses_all_writes_and_loses_none(self, fault: Any) -> None:
        rig = Rig()
        rig.api.faults = [fault]
        assert await rig.put(HEALTHY, node_of("n2")) == []
        assert len(rig.publisher) == 2
        if isinstance(fault, ApiError) and fault.retry_after:
            await rig.settle(fault.retry_after - 0.1)
            assert rig.api.calls == []
        await rig.settle(10)
        assert [verb for verb, _ in rig.api.calls] == ["create", "status"] * 2
        assert len(rig.publisher) == 0

    async def test_a_gpunode_that_was_deleted_is_made_again(self) -> None:
        rig = Rig()
        await rig.put(HEALTHY)
        del rig.api.objects[N1]
        assert ("create", N1) in await rig.put(SICK, seconds=1)
        assert rig.status["health"] == "Unhealthy"

    async def test_also_when_the_watch_says_so_first(self) -> None:
        rig = Rig()
        await rig.put(HEALTHY)
        del rig.api.objects[N1]
        rig.publisher.deleted("n1")
        assert await rig.put(HEALTHY) == [("create", N1), ("status", N1)]

    async def test_a_namesake_made_since_is_not_mistaken(self) -> None:
        rig = Rig()
        await rig.put(HEALTHY)
        rig.api.put(N1, {"metadata": {"name": "n1"}})
        await rig.put(SICK, seconds=10)
        assert rig.status["health"] == "Unhealthy"
        assert rig.api.objects[N1]["metadata"]["ownerReferences"]

    async def test_a_status_whose_answer_was_lost_is_mended_when_the_watch_shows_it(self) -> None:
        rig = Rig()
        await rig.put(HEALTHY)
        rig.api.lose_answer = True
        await rig.put(SICK)
        assert await rig.put(HEALTHY, seconds=60) == [], "as far as it knows nothing was written"
        rig.publisher.restore("n1", rig.api.objects[N1])
        assert ("status", N1) in await rig.put(HEALTHY, seconds=60)
        assert rig.status["health"] == "Healthy"

    async def test_a_status_that_another_wrote_is_mended_at_the_usual_pace(self) -> None:
        rig = Rig()
        await rig.put(HEALTHY)
        told = rig.api.patch_status(N1, {"status": {"health": "Unhealthy", "reason": "Forged"}})
        rig.publisher.restore("n1", await told)
        assert await rig.put(HEALTHY, seconds=5) == []
        assert ("status", N1) in await rig.put(HEALTHY, seconds=10)
        assert (rig.status["health"], rig.status["reason"]) == ("Healthy", "AllHealthy")

    async def test_our_own_writes_in_the_watch_are_no_news(self) -> None:
        rig = Rig()
        for state in (HEALTHY, SICK, HEALTHY, DEGRADED):
            await rig.put(state, seconds=60)
            rig.publisher.restore("n1", rig.api.objects[N1])
            assert await rig.put(state, seconds=60) == []

    async def test_a_status_that_is_refused_is_tried_again_ever_more_rarely(self) -> None:
        rig = Rig()
        rig.api.refuse["patch_status"] = ApiError(422, "Invalid", "status.health: nonsense")
        await rig.put(HEALTHY, seconds=600)
        assert len(rig.publisher) == 1
        del rig.api.refuse["patch_status"]
        await rig.settle(60)
        assert rig.status["health"] == "Healthy"

    async def test_events_that_are_refused_do_not_hold_up_the_status(self) -> None:
        rig = Rig()
        await rig.put(HEALTHY)
        rig.api.refuse["create"] = ApiError(403, "Forbidden", "cannot create events")
        assert await rig.put(SICK) == [("status", N1)]

    async def test_a_removed_node_is_not_written(self) -> None:
        rig = Rig()
        rig.publisher.submit(HEALTHY)
        rig.publisher.remove("n1")
        await rig.settle(60)
        assert rig.api.calls == []


class SlowAPI(FakeAPI):
    """Holds statuses back until told."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def patch_status(self, *given: Any, **more: Any) -> dict[str, Any]:
        self.reached.set()
        await self.go.wait()
        return await super().patch_status(*given, **more)


class TestWhileWriting:
    async def test_a_newer_state_is_written_next_and_never_at_the_same_time(self) -> None:
        rig = Rig(SlowAPI())
        api = rig.api
        assert isinstance(api, SlowAPI)
        rig.publisher.submit(HEALTHY)
        writing = asyncio.create_task(rig.publisher.step())
        await api.reached.wait()
        rig.publisher.submit(SICK)
        assert len(rig.publisher) == 1
        assert await rig.publisher.step() is None
        api.go.set()
        await writing
        await rig.settle()
        assert rig.status["health"] == "Unhealthy"

    async def test_a_gpunode_deleted_meanwhile_is_made_again(self) -> None:
        rig = Rig(SlowAPI())
        api = rig.api
        assert isinstance(api, SlowAPI)
        rig.publisher.submit(HEALTHY)
        writing = asyncio.create_task(rig.publisher.step())
        await api.reached.wait()
        rig.publisher.deleted("n1")
        rig.publisher.submit(HEALTHY)
        api.go.set()
        await writing
        del api.objects[N1]
        assert ("create", N1) in await rig.put(HEALTHY)

    async def test_run_writes_and_wakes(self) -> None:
        publisher = Publisher(api := FakeAPI())
        running = asyncio.create_task(publisher.run())
        await asyncio.sleep(0)
        for name in ("n1", "n2"):
            publisher.submit(node_of(name))
        while len(publisher):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert sorted(api.calls)[:2] == [("create", N1), ("create", f"{GPUNODES}/n2")]
