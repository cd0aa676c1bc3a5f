"""The scheduler and ``mode: Once``: what a run promises, whatever happens in the middle of it."""

from typing import Any

import pytest
from tests.unit.operator.scheduled import Rig, body, conditions, node, stored, unread

from gpudiag_api.vocabulary import Health, NotRead
from gpudiag_operator.diagnostics.registry import Key


@pytest.fixture
async def rig() -> Rig:
    return Rig()


class TestOnce:
    async def test_runs_once_with_fresh_samples_and_is_complete(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.store.put(node("n2", Health.UNHEALTHY))
        rig.registry.upsert(body(mode="Once", trigger="a"))
        (running,) = await rig.settle()
        assert conditions(running)["Complete"] == ("False", "Running")
        assert rig.reads[0][0] == ["n2", "n1"], "the sick first"
        rig.fresh["n2"] = node("n2")
        await rig.answer()
        rig.written.submitted.clear()
        rig.store.put(node("n1", Health.UNHEALTHY))
        assert rig.pass_time(1000) == []
        assert rig.reads == []

    async def test_its_verdict_is_that_of_the_fresh_samples(self, rig: Rig) -> None:
        rig.store.put(node("n1", Health.UNHEALTHY))
        rig.registry.upsert(body(mode="Once", trigger="a"))
        await rig.settle()
        run_id = rig.reads[0][1]
        rig.reads.pop(0)[2].set_result(None)
        (done,) = await rig.settle()
        assert conditions(done)["Complete"] == ("True", "Succeeded")
        assert (done.verdict, done.run_id, done.last_handled_trigger) == ("Healthy", run_id, "a")

    async def test_nobody_answers(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.fresh["n1"] = unread("n1", NotRead.CONNECTION_REFUSED)
        rig.registry.upsert(body(mode="Once"))
        await rig.settle()
        rig.reads.pop(0)[2].set_result(None)
        (done,) = await rig.settle()
        assert conditions(done)["Complete"] == ("True", "NoNodeAnswered")
        assert done.verdict == "Unknown"

    async def test_the_deadline_ends_it_with_what_it_has(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.store.put(node("n2"))
        rig.fresh["n2"] = unread("n2", NotRead.TIMEOUT)
        rig.registry.upsert(body(mode="Once", deadline="5s"))
        await rig.settle()
        rig.now += 5
        rig.reads.pop(0)[2].set_result(None)
        (done,) = await rig.settle()
        assert conditions(done)["Complete"] == ("True", "DeadlineExceeded")
        assert done.summary.nodes.reporting == 1

    async def test_nothing_to_ask_is_complete(self, rig: Rig) -> None:
        rig.registry.upsert(body(mode="Once"))
        *_, done = await rig.settle()
        assert conditions(done)["Complete"] == ("True", "Succeeded")
        assert conditions(done)["Ready"] == ("True", "NoTargets")

    async def test_a_trigger_runs_it_again(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.registry.upsert(body(mode="Once", trigger="a"))
        await rig.settle()
        await rig.answer()
        rig.registry.upsert(body(generation=2, mode="Once", trigger="b"))
        (running,) = await rig.settle()
        assert conditions(running)["Complete"] == ("False", "Running")
        rig.reads.pop(0)[2].set_result(None)
        (done,) = await rig.settle()
        assert (done.last_handled_trigger, done.observed_generation) == ("b", 2)

    async def test_a_new_spec_cancels_the_run_and_ends_in_its_own_state(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.registry.upsert(body(mode="Once"))
        await rig.settle()
        abandoned = rig.reads.pop(0)[2]
        rig.registry.upsert(body(generation=2, mode="Once", target={"nodeNames": ["n1"]}))
        await rig.settle()
        assert abandoned.cancelled()
        rig.reads.pop(0)[2].set_result(None)
        (done,) = await rig.settle()
        assert done.observed_generation == 2
        assert conditions(done)["Complete"] == ("True", "Succeeded")

    async def test_deletion_and_suspension_cancel_the_run(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.registry.upsert(body("gone", mode="Once"))
        await rig.settle()
        rig.registry.delete(Key("team", "gone"), "uid-gone")
        await rig.settle()
        assert rig.reads.pop(0)[2].cancelled()
        rig.registry.upsert(body(mode="Once"))
        await rig.settle()
        rig.registry.upsert(body(generation=2, mode="Once", suspend=True))
        (status,) = await rig.settle()
        assert rig.reads.pop(0)[2].cancelled()
        assert conditions(status)["Ready"] == ("True", "Suspended")
        assert conditions(status)["Complete"] == ("False", "Pending")

    async def test_more_runs_than_places_wait_their_turn(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.registry.upsert(body("first", mode="Once"))
        await rig.settle()
        rig.registry.upsert(body("second", mode="Once"))
        rig.registry.upsert(body("third", mode="Once"))
        pending = await rig.settle()
        assert [conditions(status)["Complete"] for status in pending] == [("False", "Pending")] * 2
        assert len(rig.reads) == 1
        for _ in range(3):
            assert len(rig.reads) == 1
            await rig.answer()
        assert rig.reads == []

    async def test_after_a_restart_what_was_running_runs_again_and_what_was_complete_does_not(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.registry.upsert(body(mode="Once"))
        (running,) = await rig.settle()
        again = Rig()
        again.store.put(node("n1"))
        again.registry.upsert(body(mode="Once", status=stored(running)))
        assert await again.settle() == []
        again.reads.pop(0)[2].set_result(None)
        (done,) = await again.settle()
        third = Rig()
        third.store.put(node("n1"))
        third.registry.upsert(body(mode="Once", status=stored(done)))
        assert await third.settle() == []
        assert third.reads == []

    async def test_a_bug_in_a_run_costs_a_minute_not_the_operator(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.registry.upsert(body(mode="Once"))
        await rig.settle()
        rig.reads.pop(0)[2].set_exception(RuntimeError("a bug"))
        await rig.settle()
        assert rig.reads == []
        rig.now += 61
        await rig.settle()
        assert len(rig.reads) == 1

    async def test_its_object_is_deleted_when_the_ttl_has_passed_and_the_result_is_stored(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        spec: dict[str, Any] = {"mode": "Once", "ttlAfterFinished": "1m"}
        rig.registry.upsert(body(**spec))
        await rig.settle()
        rig.reads.pop(0)[2].set_result(None)
        (done,) = await rig.settle()
        rig.pass_time(120)
        assert rig.written.deleted == [], "the verdict is not stored yet"
        rig.registry.upsert(body(**spec, status=stored(done)))
        rig.pass_time(0)
        assert rig.written.deleted == ["d"]

    async def test_without_a_ttl_it_stays(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.registry.upsert(body(mode="Once"))
        await rig.settle()
        await rig.answer()
        rig.pass_time(10_000)
        assert rig.written.deleted == []
