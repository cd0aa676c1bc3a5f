"""One status of a GPUDiagnostic: to that object and no other, after its Event, at a bounded rate."""

from typing import Any

import pytest
from tests.unit.operator.fake_api import Clock, FakeAPI
from tests.unit.operator.fleet import NOW

from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_api.kinds.verdict import HistoryEntry
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable
from gpudiag_operator.publish.diagnostic import DiagnosticPublisher, DiagnosticRef

REF = DiagnosticRef(namespace="team", name="d", uid="u1")


def verdict(word: str) -> GPUDiagnosticStatus:
    at = "2026-01-01T00:00:00.000Z"
    return GPUDiagnosticStatus(verdict=word, message=word, history=(HistoryEntry(at=at, verdict=word),))


HEALTHY, SICK = verdict("Healthy"), verdict("Unhealthy")


class Rig:
    def __init__(self) -> None:
        self.clock = Clock()
        self.api = FakeAPI(kind="gpudiagnostics")
        self.api.put(REF.path, {"metadata": {"name": "d", "uid": "u1"}})
        self.publisher = DiagnosticPublisher(self.api, clock=self.clock, wall=lambda: NOW, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.clock.now += seconds

    @property
    def status(self) -> Any:
        return self.api.objects[REF.path].get("status")


async def test_the_event_comes_first_then_the_status() -> None:
    rig = Rig()
    assert await rig.publisher.publish(REF, previous=HEALTHY, status=SICK)
    (_, event), (verb, path) = rig.api.calls
    assert event.startswith("/api/v1/namespaces/team/events/d.")
    assert (verb, path, rig.status["verdict"]) == ("status", REF.path, "Unhealthy")


async def test_the_same_call_again_doubles_nothing() -> None:
    rig = Rig()
    rig.api.refuse["patch_status"] = ApiError(503)
    with pytest.raises(ApiError):
        await rig.publisher.publish(REF, previous=HEALTHY, status=SICK)
    rig.api.refuse.clear()
    await rig.publisher.publish(REF, previous=HEALTHY, status=SICK)
    assert len([path for path in rig.api.objects if "/events/" in path]) == 1


async def test_without_a_change_of_verdict_there_is_no_event() -> None:
    rig = Rig()
    await rig.publisher.publish(REF, previous=SICK, status=SICK)
    assert [verb for verb, _ in rig.api.calls] == ["status"]


async def test_an_object_that_is_gone_or_a_namesake_is_left_alone() -> None:
    rig = Rig()
    rig.api.put(REF.path, {"metadata": {"name": "d", "uid": "u2"}})
    assert not await rig.publisher.publish(REF, previous=None, status=HEALTHY)
    assert rig.status is None
    rig.api.objects.clear()
    assert not await rig.publisher.publish(REF, previous=None, status=HEALTHY)


class BusyAPI(FakeAPI):
    """People edit the object between reading and writing it."""

    edits = 0

    async def get(self, path: str) -> dict[str, Any]:
        answer = await super().get(path)
        if self.edits:
            self.edits -= 1
            self.edit(path, labels={"a": str(self.edits)})
        return answer


@pytest.mark.parametrize(("edits", "written"), [(2, True), (3, False)])
async def test_edits_meanwhile_are_outlasted(*, edits: int, written: bool) -> None:
    api = BusyAPI(kind="gpudiagnostics")
    api.put(REF.path, {"metadata": {"name": "d", "uid": "u1"}})
    api.edits = edits
    publisher = DiagnosticPublisher(api)
    if written:
        assert await publisher.publish(REF, previous=None, status=HEALTHY)
    else:
        with pytest.raises(ApiError) as refused:
            await publisher.publish(REF, previous=None, status=HEALTHY)
        assert refused.value.conflict


async def test_events_that_are_refused_do_not_hold_up_the_status() -> None:
    rig = Rig()
    rig.api.refuse["create"] = ApiError(403, "Forbidden")
    assert await rig.publisher.publish(REF, previous=HEALTHY, status=SICK)


@pytest.mark.parametrize("fault", [ApiError(429), ApiUnavailable("away")])
async def test_faults_that_pass_are_told(fault: Any) -> None:
    rig = Rig()
    rig.api.faults = [fault]
    with pytest.raises(type(fault)):
        await rig.publisher.publish(REF, previous=HEALTHY, status=SICK)
    assert rig.status is None


async def test_the_rate_counts_statuses_and_events() -> None:
    rig = Rig()
    for _ in range(50):
        await rig.publisher.publish(REF, previous=HEALTHY, status=SICK)
    assert rig.clock.now - 1000 == pytest.approx((100 - 10) / 20)
