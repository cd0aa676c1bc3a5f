"""The scheduler with a clock of the test's own: when a status moves, when it does not, and what Once promises."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_api.times import to_rfc3339
from gpudiag_api.vocabulary import Action, Blame, Health, NotRead, Severity
from gpudiag_api.wire import GPU, Finding, Subject
from gpudiag_operator.diagnostics.once import OnceRuns
from gpudiag_operator.diagnostics.ports import Surroundings
from gpudiag_operator.diagnostics.registry import Diagnostic, DiagnosticRegistry, Key
from gpudiag_operator.diagnostics.scheduler import Scheduler
from gpudiag_operator.diagnostics.targets import TargetIndex
from gpudiag_operator.domain import Failure, NodeState
from gpudiag_operator.store import MemoryNodeStore

START = 1_800_000_000.0


def node(name: str, health: Health = Health.HEALTHY, **labels: str) -> NodeState:
    gpu = GPU(index=0, uuid=f"GPU-{name}", pci="0000:01:00.0", model="H100", health=health)
    findings: tuple[Finding, ...] = ()
    if health is Health.UNHEALTHY:
        findings = (
            Finding(
                check="GPULost",
                reason="FallenOffBus",
                severity=Severity.CRITICAL,
                blame=Blame.HARDWARE,
                action=Action.REBOOT_NODE,
                message="GPU 0 has fallen off the bus",
                subject=Subject(gpu_index=0, gpu_uuid=gpu.uuid),
                first_seen=to_rfc3339(START),
                last_seen=to_rfc3339(START),
            ),
        )
    reason = "FallenOffBus" if findings else "AllHealthy"
    return NodeState(name=name, health=health, reason=reason, gpus=(gpu,), findings=findings, labels=labels)


def unread(name: str, reason: NotRead) -> NodeState:
    failure = Failure(reason=reason, message="no answer", since=START)
    return NodeState(name=name, health=Health.UNKNOWN, reason=str(reason), failure=failure)


def body(name: str = "d", *, generation: int = 1, uid: str = "", status: Any = None, **spec: Any) -> dict[str, Any]:
    body.version += 1  # type: ignore[attr-defined]
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": uid or f"uid-{name}",
            "generation": generation,
            "resourceVersion": str(body.version),  # type: ignore[attr-defined]
            "creationTimestamp": to_rfc3339(START),
        },
        "spec": spec,
        **({"status": status} if status else {}),
    }


body.version = 0  # type: ignore[attr-defined]


@dataclass
class Written:
    """The writer's and the deleter's place: remembers, and stores as the API server would."""

    submitted: list[tuple[str, GPUDiagnosticStatus]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def submit(self, key: Key, uid: str, *, previous: GPUDiagnosticStatus | None, status: GPUDiagnosticStatus) -> None:
        self.submitted.append((key.name, status))

    def forget(self, key: Key) -> None:
        pass

    def delete(self, diagnostic: Diagnostic) -> None:
        self.deleted.append(diagnostic.key.name)

    def take(self) -> list[GPUDiagnosticStatus]:
        taken = [status for _, status in self.submitted]
        self.submitted.clear()
        return taken


class Rig:
    """A scheduler whose time passes by ``pass_time`` and whose fresh reads end by ``answer``."""

    def __init__(self, *, runs: int = 1, most: int = 100) -> None:
        self.now = 0.0
        self.is_warm = True
        self.stale = ""
        self.critical: list[frozenset[int]] = []
        self.store = MemoryNodeStore()
        self.written = Written()
        self.reads: list[tuple[Sequence[str], str, asyncio.Future[None]]] = []
        self.fresh: dict[str, NodeState] = {}
        self.fulls: list[bool] = []
        self.registry = DiagnosticRegistry(self.notice, most=most, most_per_namespace=most)
        self.scheduler = Scheduler(
            self.registry,
            TargetIndex(self.store),
            writer=self.written,
            deleter=self.written,
            runs=lambda freed: OnceRuns(
                self.read, most=runs, wall=lambda: START + self.now, monotonic=lambda: self.now, freed=freed
            ),
            around=Surroundings(
                warm=lambda: self.is_warm,
                stale=lambda: self.stale,
                critical_xids=self.critical.append,
                monotonic=lambda: self.now,
                wall=lambda: START + self.now,
                own_namespace="gpudiag-system",
            ),
        )
        self.store.subscribe(self.scheduler.node_changed)

    def notice(self, key: Key) -> None:
        self.scheduler.notice(key)

    async def read(self, names: Sequence[str], deadline: float, run_id: str, *, full: bool) -> Mapping[str, NodeState]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.fulls.append(full)
        self.reads.append((names, run_id, future))
        await future
        return {name: self.fresh.get(name) or node(name) for name in names}

    async def answer(self) -> None:
        """The oldest read comes back."""
        self.reads.pop(0)[2].set_result(None)
        await self.settle()

    async def settle(self) -> list[GPUDiagnosticStatus]:
        for _ in range(5):
            await asyncio.sleep(0)
            self.scheduler.step()
        return self.written.take()

    def pass_time(self, seconds: float) -> list[GPUDiagnosticStatus]:
        """Let time pass, step by step as the scheduler asks for it; gives what was written."""
        end = self.now + seconds
        while True:
            delay = self.scheduler.step()
            if self.now + delay > end or delay == float("inf"):
                break
            self.now += max(delay, 0.001)
        self.now = end
        self.scheduler.step()
        return self.written.take()


@pytest.fixture
async def rig() -> Rig:
    return Rig()


def conditions(status: GPUDiagnosticStatus) -> dict[str, tuple[str, str]]:
    return {one.type: (one.status, one.reason) for one in status.conditions}


def stored(status: GPUDiagnosticStatus) -> dict[str, Any]:
    return status.model_dump(by_alias=True, exclude_none=True, mode="json")


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
