"""The scheduler with a clock of its own: when the status of a Continuous diagnostic moves, and when not."""

import asyncio

import pytest
from tests.unit.operator.scheduled import START, Rig, body, conditions, node, stored

from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_api.times import to_rfc3339
from gpudiag_api.vocabulary import Health
from gpudiag_operator.diagnostics.registry import Key


@pytest.fixture
async def rig() -> Rig:
    return Rig()


class TestContinuous:
    async def test_the_first_status_comes_at_once(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.registry.upsert(body())
        (status,) = rig.pass_time(0)
        assert (status.verdict, status.summary.nodes.targeted) == ("Healthy", 1)
        assert status.observed_generation == 1
        assert conditions(status)["Ready"] == ("True", "Fresh")

    async def test_not_before_the_fleet_is_known(self, rig: Rig) -> None:
        rig.is_warm = False
        rig.registry.upsert(body())
        assert rig.pass_time(5) == []
        rig.store.put(node("n1"))
        rig.is_warm = True
        (status,) = rig.pass_time(1)
        assert status.verdict == "Healthy"

    async def test_nothing_to_ask_about_is_unknown_and_ready(self, rig: Rig) -> None:
        rig.registry.upsert(body())
        (status,) = rig.pass_time(0)
        assert status.verdict == "Unknown"
        assert conditions(status)["Ready"] == ("True", "NoTargets")

    async def test_worse_is_written_at_once_and_better_waits_for_the_interval(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.registry.upsert(body(interval="30s"))
        rig.pass_time(10)
        rig.store.put(node("n1", Health.UNHEALTHY))
        (worse,) = rig.pass_time(1)
        assert worse.verdict == "Unhealthy"
        rig.store.put(node("n1"))
        assert rig.pass_time(28) == []
        (better,) = rig.pass_time(2)
        assert better.verdict == "Healthy"
        assert [entry.verdict for entry in better.history] == ["Healthy", "Unhealthy", "Healthy"]

    async def test_worse_and_worse_is_two_seconds_apart(self, rig: Rig) -> None:
        for name in ("n1", "n2", "n3"):
            rig.store.put(node(name))
        rig.registry.upsert(body(interval="30s"))
        rig.pass_time(10)
        rig.store.put(node("n1", Health.UNHEALTHY))
        assert len(rig.pass_time(0.5)) == 1
        rig.store.put(node("n2", Health.UNHEALTHY))
        rig.store.put(node("n3", Health.UNHEALTHY))
        assert rig.pass_time(1.2) == []
        (status,) = rig.pass_time(1)
        assert status.summary.gpus.unhealthy == 3

    async def test_the_same_state_is_confirmed_every_five_minutes_and_no_more(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.registry.upsert(body())
        (first,) = rig.pass_time(290)
        (confirmed,) = rig.pass_time(20)
        assert confirmed.last_confirmed_at != first.last_confirmed_at
        assert (confirmed.run_id, confirmed.finished_at) == (first.run_id, first.finished_at)
        assert len(rig.pass_time(600)) == 2

    async def test_a_restart_in_the_same_state_writes_nothing(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.registry.upsert(body())
        (status,) = rig.pass_time(0)
        again = Rig()
        again.store.put(node("n1"))
        again.registry.upsert(body(status=stored(status)))
        assert again.pass_time(200) == []
        assert len(again.pass_time(120)) == 1

    @pytest.mark.parametrize(("seconds", "writes"), [(5.0, 0), (86_400.0, 1)])
    async def test_a_confirmation_from_the_future_is_corrected(self, rig: Rig, seconds: float, writes: int) -> None:
        """The clock was wrong for a while: nobody must call this fresh until tomorrow. Clocks differ by seconds."""
        rig.store.put(node("n1"))
        rig.registry.upsert(body())
        (status,) = rig.pass_time(0)
        again = Rig()
        again.store.put(node("n1"))
        ahead = status.model_copy(update={"last_confirmed_at": to_rfc3339(START + seconds)})
        again.registry.upsert(body(status=stored(ahead)))
        written = again.pass_time(10)
        assert [one.last_confirmed_at for one in written] == [to_rfc3339(START)] * writes

    async def test_a_new_spec_is_answered_at_once(self, rig: Rig) -> None:
        rig.store.put(node("n1", pool="a"))
        rig.store.put(node("n2", pool="b"))
        rig.registry.upsert(body(interval="24h"))
        rig.pass_time(1)
        rig.registry.upsert(body(generation=2, target={"nodeSelector": {"matchLabels": {"pool": "a"}}}))
        (status,) = rig.pass_time(0)
        assert (status.observed_generation, status.summary.nodes.targeted) == (2, 1)

    async def test_nodes_outside_of_the_target_do_not_matter(self, rig: Rig) -> None:
        rig.store.put(node("n1", pool="a"))
        rig.registry.upsert(body(target={"nodeSelector": {"matchLabels": {"pool": "a"}}}))
        rig.pass_time(60)
        rig.store.put(node("n2", Health.UNHEALTHY, pool="b"))
        assert rig.pass_time(60) == []
        rig.store.put(node("n2", Health.UNHEALTHY, pool="a"))
        assert rig.pass_time(1)[0].verdict == "Unhealthy"
        rig.store.put(node("n2", Health.UNHEALTHY, pool="b"))
        assert rig.pass_time(31)[0].verdict == "Healthy"

    async def test_a_node_that_is_gone_shrinks_a_fleet_and_is_named_where_it_was_named(self, rig: Rig) -> None:
        for name in ("n1", "n2"):
            rig.store.put(node(name))
        rig.registry.upsert(body("all"))
        rig.registry.upsert(body("named", target={"nodeNames": ["n1", "n2"]}))
        rig.pass_time(60)
        rig.store.remove("n2")
        rig.scheduler.step()
        rig.pass_time(0)
        found = dict(rig.written.submitted)
        rig.now += 31
        rig.scheduler.step()
        found.update(rig.written.submitted)
        assert (found["all"].verdict, found["all"].summary.nodes.targeted) == ("Healthy", 1)
        assert found["named"].verdict == "Unknown"
        assert [(row.name, row.reason) for row in found["named"].nodes][:1] == [("n2", "NodeGone")]

    async def test_stale_data_says_so(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.stale = "collection is stuck"
        rig.registry.upsert(body())
        (status,) = rig.pass_time(0)
        assert conditions(status)["Ready"] == ("False", "Stale")


def ready(status: GPUDiagnosticStatus) -> str:
    return next(one.message for one in status.conditions if one.type == "Ready")


class TestFirstFill:
    """While GPUNodes are written for the first time, ``Ready`` says how far that has come."""

    async def test_it_counts_until_all_are_written_once_an_interval(self, rig: Rig) -> None:
        for name in ("n1", "n2", "n3"):
            rig.store.put(node(name))
            rig.unwritten[name] = {}
        rig.registry.upsert(body(interval="30s"))
        (first,) = rig.pass_time(0)
        assert conditions(first)["Ready"] == ("True", "Fresh")
        assert ready(first) == "3 of 3 nodes answered. 0 of 3 nodes written."
        del rig.unwritten["n2"]
        assert rig.pass_time(29) == []
        (second,) = rig.pass_time(2)
        assert ready(second).endswith("1 of 3 nodes written.")
        rig.unwritten.clear()
        (last,) = rig.pass_time(31)
        assert ready(last) == "3 of 3 nodes answered."
        assert rig.pass_time(200) == []

    async def test_a_fill_that_does_not_move_is_not_written_again(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.unwritten["n1"] = {}
        rig.registry.upsert(body(interval="10s"))
        rig.pass_time(0)
        assert rig.pass_time(200) == []

    async def test_only_nodes_of_the_target_count(self, rig: Rig) -> None:
        rig.store.put(node("n1", pool="a"))
        rig.store.put(node("n2", pool="b"))
        rig.unwritten["n2"] = {"pool": "b"}
        rig.registry.upsert(body("a", target={"nodeSelector": {"matchLabels": {"pool": "a"}}}))
        rig.registry.upsert(body("b", target={"nodeSelector": {"matchLabels": {"pool": "b"}}}))
        rig.registry.upsert(body("named", target={"nodeNames": ["n1", "n2"]}))
        rig.registry.upsert(body("job", target={"podRef": {"name": "train"}}))
        rig.scheduler.step()
        said = {name: ready(status) for name, status in rig.written.submitted}
        assert said["a"] == "1 of 1 node answered."
        assert said["b"].endswith("0 of 1 node written.")
        assert said["named"].endswith("1 of 2 nodes written.")
        assert "written" not in said["job"]

    async def test_over_shards_nodes_without_a_gpunode_have_no_state_and_count(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.unwritten["n2"] = {}
        rig.registry.upsert(body())
        (status,) = rig.pass_time(0)
        assert ready(status) == "1 of 1 node answered. 1 of 2 nodes written."

    async def test_a_restart_corrects_what_was_left_behind(self, rig: Rig) -> None:
        rig.store.put(node("n1"))
        rig.unwritten["n1"] = {}
        rig.registry.upsert(body())
        (status,) = rig.pass_time(0)
        again = Rig()
        again.store.put(node("n1"))
        again.registry.upsert(body(status=stored(status)))
        (corrected,) = again.pass_time(1)
        assert ready(corrected) == "1 of 1 node answered."


class TestNotServed:
    async def test_suspended_keeps_the_last_result(self, rig: Rig) -> None:
        rig.store.put(node("n1", Health.UNHEALTHY))
        rig.registry.upsert(body())
        rig.pass_time(0)
        rig.registry.upsert(body(generation=2, suspend=True))
        (status,) = rig.pass_time(0)
        assert conditions(status)["Ready"] == ("True", "Suspended")
        assert (status.verdict, status.observed_generation) == ("Unhealthy", 2)
        rig.store.put(node("n1"))
        assert rig.pass_time(1000) == []
        rig.registry.upsert(body(generation=3))
        assert rig.pass_time(0)[0].verdict == "Healthy"

    async def test_a_spec_of_a_newer_crd_is_no_crash(self, rig: Rig) -> None:
        rig.registry.upsert(body(mode="Weekly"))
        (status,) = rig.pass_time(0)
        assert conditions(status)["Stalled"] == ("True", "NotYetSupported")
        assert "spec.mode" in status.message

    async def test_a_selector_that_means_nothing(self, rig: Rig) -> None:
        rig.registry.upsert(body(target={"nodeSelector": {"matchLabels": {"-bad-": "x"}}}))
        (status,) = rig.pass_time(0)
        assert conditions(status)["Stalled"] == ("True", "InvalidTarget")

    async def test_too_many_wait_until_others_are_gone(self) -> None:
        rig = Rig(most=1)
        rig.store.put(node("n1"))
        rig.registry.upsert(body("first"))
        rig.registry.upsert(body("second"))  # of the same age: by name
        rig.scheduler.step()
        statuses = dict(rig.written.submitted)
        rig.written.submitted.clear()
        assert conditions(statuses["first"])["Ready"] == ("True", "Fresh")
        assert conditions(statuses["second"])["Stalled"] == ("True", "TooManyDiagnostics")
        assert conditions(statuses["second"])["Ready"] == ("False", "TooManyDiagnostics")
        rig.registry.delete(Key("team", "first"), "uid-first")
        (status,) = rig.pass_time(0)
        assert conditions(status)["Ready"] == ("True", "Fresh")
        assert "Stalled" not in conditions(status)


async def test_a_namesake_starts_from_nothing(rig: Rig) -> None:
    rig.store.put(node("n1"))
    rig.registry.upsert(body(mode="Once"))
    await rig.settle()
    await rig.answer()
    rig.registry.upsert(body(uid="another", mode="Once"))
    await rig.settle()
    assert len(rig.reads) == 1


async def test_critical_xids_of_all_diagnostics_are_told(rig: Rig) -> None:
    rig.registry.upsert(body("a", policy={"xids": {"critical": [31, 43]}}))
    rig.registry.upsert(body("b", policy={"xids": {"critical": [13]}}))
    rig.pass_time(0)
    rig.registry.delete(Key("team", "a"), "uid-a")
    rig.pass_time(0)
    assert rig.critical == [frozenset({13, 31, 43}), frozenset({13})]


async def test_the_loop_wakes_for_news_and_stops_its_runs(rig: Rig) -> None:
    rig.store.put(node("n1"))
    task = asyncio.create_task(rig.scheduler.run())
    await asyncio.sleep(0)
    rig.registry.upsert(body(mode="Once"))
    for _ in range(20):
        await asyncio.sleep(0)
    read = rig.reads.pop(0)[2]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert read.cancelled()
