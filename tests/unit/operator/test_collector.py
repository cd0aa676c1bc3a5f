"""The collector on a clock of its own: back-off, grace, breaker, overrides, fresh reads, without a real second."""

import asyncio
import random
import resource
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
import pytest

from gpudiag_api import wire
from gpudiag_api.vocabulary import BreakerState, Health, NotRead
from gpudiag_api.wire import AgentInfo, Report
from gpudiag_operator.collect.collector import Collector
from gpudiag_operator.collect.limiter import Limiter, RetryBudget, Slot
from gpudiag_operator.collect.outcome import Answer, FetchError
from gpudiag_operator.collect.resources import raise_open_files
from gpudiag_operator.collect.settings import CollectSettings
from gpudiag_operator.domain import AgentPod, BreakerSnapshot, Failure, Reading, Target

EPOCH = 1_700_000_000.0


class _Selector(selectors.DefaultSelector):
    """Instead of waiting it moves the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everything waits for ever")
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes at once when all tasks wait."""

    def __init__(self) -> None:
        self.clock = _Selector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run an async test on a VirtualLoop."""

    def run() -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test())

    run.__name__ = test.__name__
    return run


def report(node: str = "n1", health: Health = Health.HEALTHY) -> Report:
    return Report(version=wire.WIRE_VERSION, agent=AgentInfo(version="0.1.0", node_name=node), health=health)


def pod(node: str = "n1", *, ip: str = "10.0.0.1", uid: str = "u") -> AgentPod:
    return AgentPod(name=f"agent-{node}", uid=uid, node=node, ip=ip, ready=True)


def target(node: str = "n1", **options: Any) -> Target:
    return Target(node=node, pod=pod(node, **options))


def blocked(reason: NotRead, node: str = "n1") -> Target:
    return Target(node=node, blocked=reason, message="because")


class Call(msgspec.Struct):
    """What a fake agent was asked, and when."""

    at: float
    node: str
    ip: str
    wait: float
    fresh: bool
    etag: str | None
    run_id: str


Behave = Callable[[Call], Awaitable[Answer]]


async def healthy(call: Call) -> Answer:
    """Answer at once the first time, then nothing changes for as long as the agent may wait."""
    if call.etag is None or call.fresh:
        return Answer(report=report(call.node), etag='W/"1"')
    await asyncio.sleep(call.wait)
    return Answer(report=None, etag='W/"1"')


def fails(reason: NotRead, after: float = 0.0, **options: Any) -> Behave:
    async def behave(_: Call) -> Answer:
        await asyncio.sleep(after)
        raise FetchError(reason, "so it is", **options)

    return behave


async def hangs(_: Call) -> Answer:
    await asyncio.sleep(1e9)
    raise AssertionError


class Fleet:
    """Fake agents behind a real collector."""

    def __init__(self, behave: Behave = healthy, **settings: Any) -> None:
        self.behave: dict[str, Behave] = {}
        self.default = behave
        self.calls: list[Call] = []
        self.readings: list[tuple[float, Reading]] = []
        self.results: list[str] = []
        self.states: list[tuple[str, int]] = []
        self.loop = asyncio.get_running_loop()
        self.collector = Collector(
            self,
            CollectSettings(**settings),
            listener=lambda reading: self.readings.append((self.loop.time(), reading)),
            metrics=self,
            rng=random.Random(7),
            wall=lambda: EPOCH + self.loop.time(),
        )

    async def fetch(self, pod: AgentPod, slot: Slot, *, seconds: float, **options: Any) -> Answer:
        call = Call(
            at=self.loop.time(),
            node=pod.node,
            ip=pod.ip,
            wait=options.get("wait", 0.0),
            fresh=options.get("fresh", False),
            etag=options.get("etag"),
            run_id=options.get("run_id", ""),
        )
        self.calls.append(call)
        slot.drop()
        answer = await self.behave.get(pod.node, self.default)(call)
        await slot.hold()
        return answer

    def call_finished(self, result: str, seconds: float) -> None:
        self.results.append(result)

    def breaker_changed(self, node: str, state: int) -> None:
        self.states.append((node, state))

    def node_removed(self, node: str) -> None:
        self.states.append((node, -1))

    def now(self, node: str = "n1") -> Reading:
        reading = self.collector.reading(node)
        assert reading is not None
        return reading

    def reasons(self) -> list[str]:
        """What the listener was told, in order: a reason, or "ok"."""
        return [str(r.failure.reason) if r.failure else "ok" for _, r in self.readings]

    def state(self) -> BreakerState:
        return self.now().breaker.state


@virtual
async def test_polls_with_etag_and_wait_and_tells_only_news() -> None:
    fleet = Fleet()
    fleet.collector.set_target(target())
    await asyncio.sleep(100)
    assert [(call.etag, call.wait) for call in fleet.calls[:3]] == [(None, 30), ('W/"1"', 30), ('W/"1"', 30)]
    assert [call.at for call in fleet.calls] == [0, 1, 31, 61, 91]
    assert fleet.reasons() == ["ok"]
    assert fleet.now().read_at == EPOCH + 91
    assert fleet.now().report == report()
    await fleet.collector.close()


@virtual
async def test_a_change_is_told_at_once() -> None:
    fleet = Fleet()
    fleet.collector.set_target(target())
    await asyncio.sleep(5)
    news = asyncio.Event()

    async def changing(call: Call) -> Answer:
        if call.etag == 'W/"2"':
            return await healthy(call)
        await news.wait()
        return Answer(report=report(health=Health.UNHEALTHY), etag='W/"2"')

    fleet.behave["n1"] = changing
    await asyncio.sleep(40)
    news.set()
    await asyncio.sleep(0.001)
    assert fleet.readings[-1][0] == pytest.approx(45)
    assert fleet.now().report == report(health=Health.UNHEALTHY)
    assert fleet.now().etag == 'W/"2"'
    await fleet.collector.close()


@virtual
async def test_a_node_keeps_its_state_for_the_grace_period() -> None:
    fleet = Fleet()
    fleet.collector.set_target(target())
    await asyncio.sleep(0.5)
    fleet.behave["n1"] = fails(NotRead.UNAUTHORIZED)
    await asyncio.sleep(15)
    began = fleet.calls[1].at
    assert fleet.now().failure is None
    await asyncio.sleep(began + 15.01 - fleet.loop.time())
    failure = fleet.now().failure
    assert failure is not None
    assert (failure.reason, failure.since) == (NotRead.UNAUTHORIZED, EPOCH + began)
    assert fleet.readings[-1][0] == pytest.approx(began + 15), "told when the time has come, not at the next call"
    assert fleet.now().report == report(), "kept for its inventory"
    assert all(call.wait == 0 for call in fleet.calls[2:]), "no waiting after a failure"
    await fleet.collector.close()


@virtual
async def test_a_short_outage_is_no_news() -> None:
    fleet = Fleet()
    fleet.collector.set_target(target())
    await asyncio.sleep(0.5)
    fleet.behave["n1"] = fails(NotRead.UNAUTHORIZED)
    await asyncio.sleep(10)
    del fleet.behave["n1"]
    await asyncio.sleep(60)
    assert fleet.reasons() == ["ok"]
    await fleet.collector.close()


@virtual
async def test_failed_polls_back_off_with_jitter() -> None:
    fleet = Fleet(fails(NotRead.UNAUTHORIZED))
    fleet.collector.set_target(target())
    await asyncio.sleep(300)
    gaps = [after.at - before.at for before, after in zip(fleet.calls, fleet.calls[1:], strict=False)]
    assert all(1 <= gap <= 15 / 4 for gap in gaps[:4]), "four calls and more within the grace period"
    assert all(15 <= gap <= 30 for gap in gaps[-4:])
    assert len(set(gaps[-4:])) == 4, "jittered"
    assert fleet.state() is BreakerState.CLOSED, "an authentication error says nothing of the agent"
    await fleet.collector.close()


@pytest.mark.parametrize(
    "reason",
    [
        NotRead.CONNECTION_REFUSED,
        NotRead.TIMEOUT,
        NotRead.BODY_TIMEOUT,
        NotRead.CONNECTION_CLOSED,
        NotRead.SERVER_ERROR,
        NotRead.NOT_JSON,
        NotRead.BAD_RESPONSE,
        NotRead.RESPONSE_TOO_LARGE,
        NotRead.IDENTITY_MISMATCH,
    ],
)
def test_three_failures_open_the_breaker_and_the_true_reason_stays(reason: NotRead) -> None:
    @virtual
    async def run() -> None:
        fleet = Fleet(fails(reason))
        fleet.collector.set_target(target())
        await asyncio.sleep(20)
        failure = fleet.now().failure
        assert failure is not None
        assert failure.reason is reason
        assert "circuit breaker is open" in failure.message
        assert fleet.state() is BreakerState.OPEN
        calls = len(fleet.calls)
        opened = fleet.now().breaker
        await asyncio.sleep((opened.opened_at or 0) + (opened.open_for_seconds or 0) - EPOCH - fleet.loop.time() - 0.1)
        assert len(fleet.calls) == calls, "not called while open"
        fleet.default = healthy
        await asyncio.sleep(0.2)
        assert fleet.now().failure is None
        assert fleet.state() is BreakerState.CLOSED
        assert [call.wait for call in fleet.calls[calls : calls + 1]] == [0], "a probe does not wait"
        assert ("n1", 1) in fleet.states
        assert fleet.states[-1] == ("n1", 0)
        await fleet.collector.close()

    run()


@pytest.mark.parametrize("reason", [NotRead.STALE_SAMPLE, NotRead.AGENT_VERSION_SKEW, NotRead.AUTH_UNAVAILABLE])
def test_what_an_agent_says_is_not_the_breakers_business(reason: NotRead) -> None:
    @virtual
    async def run() -> None:
        fleet = Fleet(fails(reason))
        fleet.collector.set_target(target())
        await asyncio.sleep(100)
        assert fleet.state() is BreakerState.CLOSED
        assert fleet.reasons() == [reason]
        await fleet.collector.close()

    run()


@virtual
async def test_4xx_does_not_count() -> None:
    fleet = Fleet(fails(NotRead.BAD_RESPONSE, ignored=True))
    fleet.collector.set_target(target())
    await asyncio.sleep(100)
    assert fleet.state() is BreakerState.CLOSED
    await fleet.collector.close()


@virtual
async def test_a_broken_connection_is_tried_again_once_and_counts_once() -> None:
    fleet = Fleet(fails(NotRead.CONNECTION_CLOSED))
    fleet.collector.set_target(target())
    await asyncio.sleep(0.3)
    assert len(fleet.calls) == 2
    assert fleet.now().breaker.failures == 1
    assert fleet.results == ["ConnectionClosed"]
    await fleet.collector.close()


@pytest.mark.parametrize("reason", [NotRead.NODE_NOT_READY])
def test_the_nodes_own_trouble_counts_at_once(reason: NotRead) -> None:
    @virtual
    async def run() -> None:
        fleet = Fleet()
        fleet.collector.set_target(target())
        await asyncio.sleep(0.5)
        fleet.collector.set_target(blocked(reason))
        assert fleet.reasons() == ["ok", reason]
        calls = len(fleet.calls)
        await asyncio.sleep(60)
        assert len(fleet.calls) == calls, "nothing to call"
        assert fleet.state() is BreakerState.CLOSED
        fleet.collector.set_target(target())
        await asyncio.sleep(0.1)
        assert fleet.reasons()[-1] == "ok"
        await fleet.collector.close()

    run()


@virtual
async def test_an_agent_roll_out_is_no_alarm() -> None:
    fleet = Fleet()
    fleet.collector.set_target(target())
    await asyncio.sleep(0.5)
    fleet.collector.set_target(blocked(NotRead.AGENT_MISSING))
    await asyncio.sleep(5)
    fleet.collector.set_target(blocked(NotRead.AGENT_NOT_READY))
    await asyncio.sleep(5)
    fleet.collector.set_target(target(uid="v", ip="10.0.0.2"))
    await asyncio.sleep(20)
    assert set(fleet.reasons()) == {"ok"}
    await fleet.collector.close()


@virtual
async def test_an_agent_that_stays_away_counts_after_the_grace_period() -> None:
    fleet = Fleet()
    fleet.collector.set_target(target())
    await asyncio.sleep(0.5)
    fleet.collector.set_target(blocked(NotRead.AGENT_MISSING))
    await asyncio.sleep(14.9)
    assert fleet.now().failure is None
    await asyncio.sleep(0.2)
    assert fleet.reasons()[-1] == NotRead.AGENT_MISSING
    await fleet.collector.close()


@virtual
async def test_a_missing_agent_on_a_node_never_read_counts_at_once() -> None:
    fleet = Fleet()
    fleet.collector.set_target(blocked(NotRead.AGENT_MISSING))
    assert fleet.reasons() == [NotRead.AGENT_MISSING]
    await fleet.collector.close()


@virtual
async def test_a_new_pod_is_called_at_once_even_if_the_breaker_is_open() -> None:
    fleet = Fleet(fails(NotRead.CONNECTION_REFUSED))
    fleet.collector.set_target(target())
    await asyncio.sleep(20)
    assert fleet.state() is BreakerState.OPEN
    fleet.default = healthy
    fleet.collector.set_target(target(ip="10.0.0.2", uid="v"))
    await asyncio.sleep(0.01)
    assert fleet.calls[-1].ip == "10.0.0.2"
    assert fleet.now().failure is None
    await fleet.collector.close()


@virtual
async def test_a_cancelled_probe_leaks_no_permit() -> None:
    fleet = Fleet(fails(NotRead.CONNECTION_REFUSED))
    fleet.collector.set_target(target())
    await asyncio.sleep(20)
    fleet.default = hangs
    await asyncio.sleep(30)
    assert fleet.state() is BreakerState.HALF_OPEN
    fleet.default = healthy
    fleet.collector.set_target(target(ip="10.0.0.2", uid="v"))
    await asyncio.sleep(5)
    assert fleet.state() is BreakerState.CLOSED
    await fleet.collector.close()


@virtual
async def test_a_pod_that_is_ready_again_is_called_at_once() -> None:
    """A container that restarts in place is refused for some seconds, which opens the breaker."""
    fleet = Fleet()
    fleet.collector.set_target(target())
    await asyncio.sleep(0.5)
    fleet.default = fails(NotRead.CONNECTION_REFUSED)
    await asyncio.sleep(10)
    assert fleet.state() is BreakerState.OPEN
    fleet.collector.set_target(blocked(NotRead.AGENT_NOT_READY))
    fleet.default = healthy
    fleet.collector.set_target(target())
    await asyncio.sleep(30)
    assert set(fleet.reasons()) == {"ok"}
    assert fleet.state() is BreakerState.CLOSED
    await fleet.collector.close()


@virtual
async def test_an_unchanged_pod_keeps_its_poll() -> None:
    fleet = Fleet()
    fleet.collector.set_target(target())
    await asyncio.sleep(5)
    fleet.collector.set_target(Target(node="n1", pod=msgspec.structs.replace(pod(), terminating=True)))
    await asyncio.sleep(5)
    assert len(fleet.calls) == 2
    await fleet.collector.close()


@virtual
async def test_a_gone_node_is_told_once_and_forgotten() -> None:
    fleet = Fleet()
    fleet.collector.set_target(target())
    await asyncio.sleep(0.5)
    fleet.collector.remove_target("n1")
    fleet.collector.remove_target("n1")
    await asyncio.sleep(100)
    assert fleet.reasons() == ["ok", NotRead.NODE_GONE]
    assert fleet.collector.reading("n1") is None
    assert fleet.states[-1] == ("n1", -1)
    assert len(fleet.calls) == 1


@virtual
async def test_force_open_stops_calls_and_auto_starts_them() -> None:
    fleet = Fleet(hangs)
    fleet.collector.set_override("n1", "ForceOpen")
    fleet.collector.set_target(target())
    await asyncio.sleep(60)
    assert not fleet.calls
    assert fleet.reasons() == [NotRead.FORCED_OPEN]
    fleet.default = healthy
    fleet.collector.set_override("n1", "Auto")
    await asyncio.sleep(0.01)
    assert fleet.reasons()[-1] == "ok"
    assert fleet.state() is BreakerState.CLOSED
    fleet.collector.set_override("n1", "ForceOpen")
    assert fleet.reasons()[-1] == NotRead.FORCED_OPEN
    calls = len(fleet.calls)
    await asyncio.sleep(60)
    assert len(fleet.calls) == calls
    await fleet.collector.close()


@virtual
async def test_force_closed_keeps_calling() -> None:
    fleet = Fleet(fails(NotRead.CONNECTION_REFUSED))
    fleet.collector.set_override("n1", "ForceClosed")
    fleet.collector.set_target(target())
    await asyncio.sleep(200)
    assert fleet.state() is BreakerState.FORCED_CLOSED
    assert len(fleet.calls) > 9
    await fleet.collector.close()


@virtual
async def test_reset_calls_at_once_and_once_per_token() -> None:
    fleet = Fleet(fails(NotRead.CONNECTION_REFUSED))
    fleet.collector.set_target(target())
    await asyncio.sleep(20)
    calls = len(fleet.calls)
    fleet.default = healthy
    fleet.collector.reset("n1", "again")
    await asyncio.sleep(0.01)
    assert len(fleet.calls) == calls + 1
    assert fleet.now().failure is None
    assert fleet.now().breaker.last_handled_reset == "again"
    fleet.collector.reset("n1", "again")
    await asyncio.sleep(0.01)
    assert len(fleet.calls) == calls + 1
    await fleet.collector.close()


@virtual
async def test_a_restart_restores_breaker_and_cause() -> None:
    fleet = Fleet()
    open_now = BreakerSnapshot(
        state=BreakerState.OPEN, failures=3, opened_at=EPOCH - 10, open_for_seconds=30, last_handled_reset="x"
    )
    fleet.collector.restore("n1", open_now, Failure(reason=NotRead.NOT_JSON, message="HTML", since=EPOCH - 99))
    fleet.collector.restore("n2", open_now)
    fleet.collector.reset("n1", "x")
    fleet.collector.set_target(target())
    fleet.collector.set_target(target("n2"))
    assert fleet.reasons() == [NotRead.NOT_JSON, NotRead.CIRCUIT_OPEN]
    failure = fleet.now().failure
    assert failure is not None
    assert failure.since == EPOCH - 99
    await asyncio.sleep(19.9)
    assert not fleet.calls
    await asyncio.sleep(0.2)
    assert fleet.reasons()[-2:] == ["ok", "ok"]
    fleet.collector.restore("n1", open_now)
    assert fleet.state() is BreakerState.CLOSED, "too late: it was called already"
    await fleet.collector.close()


@virtual
async def test_the_limit_bounds_calls_and_the_unhealthy_go_first() -> None:
    fleet = Fleet(concurrency=1)
    order: list[str] = []

    async def sick(call: Call) -> Answer:
        order.append(call.node)
        return Answer(report=report(call.node, Health.UNHEALTHY if call.node == "n3" else Health.HEALTHY), etag=None)

    fleet.default = sick
    for name in ("n1", "n2", "n3"):
        fleet.collector.set_target(target(name))
    await asyncio.sleep(0.5)
    order.clear()
    limiter = fleet.collector._caller.limiter
    await limiter.acquire(urgent=True)
    await asyncio.sleep(1)
    limiter.release()
    await asyncio.sleep(0.01)
    assert order[0] == "n3"
    assert sorted(order) == ["n1", "n2", "n3"]
    await fleet.collector.close()


@virtual
async def test_a_bug_costs_one_node_and_a_pause() -> None:
    fleet = Fleet()

    async def bug(_: Call) -> Answer:
        raise ZeroDivisionError

    fleet.behave["n1"] = bug
    fleet.collector.set_target(target("n1"))
    fleet.collector.set_target(target("n2"))
    await asyncio.sleep(1)
    del fleet.behave["n1"]
    await asyncio.sleep(40)
    assert fleet.now("n1").report is not None
    assert fleet.collector._caller.limiter.free == 256
    await fleet.collector.close()


@virtual
async def test_fresh_reads_of_a_mixed_fleet() -> None:
    fleet = Fleet()
    fleet.behave["broken"] = fails(NotRead.NOT_JSON)
    fleet.behave["hung"] = lambda call: (hangs if call.fresh else healthy)(call)
    for name in ("good", "broken", "hung", "opened", "half"):
        fleet.collector.set_target(target(name))
    fleet.collector.set_target(blocked(NotRead.AGENT_MISSING, "missing"))
    fleet.collector.set_override("forced", "ForceOpen")
    fleet.collector.set_target(target("forced"))
    fleet.behave["opened"] = fails(NotRead.SERVER_ERROR)
    fleet.behave["half"] = fails(NotRead.CONNECTION_REFUSED)
    await asyncio.sleep(20)
    fleet.behave["half"] = hangs
    await asyncio.sleep(25)
    assert fleet.now("half").breaker.state is BreakerState.HALF_OPEN
    before = {reading.target.node: reading.breaker for reading in fleet.collector.readings()}
    told, fleet.calls = len(fleet.readings), []
    progress: list[tuple[int, int]] = []
    names = ["good", "broken", "hung", "opened", "half", "missing", "forced", "nowhere"]
    began = fleet.loop.time()
    found = await fleet.collector.fetch_fresh(
        names, deadline=3, run_id="run-1", on_progress=lambda done, of: progress.append((done, of))
    )
    assert fleet.loop.time() - began == pytest.approx(3)
    assert {name: str(r.failure.reason) if r.failure else "ok" for name, r in found.items()} == {
        "good": "ok",
        "broken": "NotJSON",
        "hung": "Timeout",
        "opened": "ServerError",
        "half": "ConnectionRefused",
        "missing": "AgentMissing",
        "forced": "ForcedOpen",
        "nowhere": "NodeGone",
    }
    asked = {call.node for call in fleet.calls if call.fresh}
    assert asked == {"good", "hung"}, "the breaker of the others is open"
    assert all(call.run_id == "run-1" for call in fleet.calls if call.fresh)
    assert progress[-1][1] == 8
    after = {reading.target.node: reading.breaker for reading in fleet.collector.readings()}
    assert after == before, "breakers are untouched"
    assert len(fleet.readings) == told
    await fleet.collector.close()


@virtual
async def test_a_run_goes_before_polls() -> None:
    fleet = Fleet(concurrency=1)
    limiter = fleet.collector._caller.limiter
    await limiter.acquire(urgent=True)
    for name in ("n1", "n2", "n3"):
        fleet.collector.set_target(target(name))
    run = asyncio.create_task(fleet.collector.fetch_fresh(["n3"], deadline=30, run_id="r"))
    await asyncio.sleep(1)
    limiter.release()
    await run
    assert (fleet.calls[0].node, fleet.calls[0].fresh) == ("n3", True)
    await fleet.collector.close()


@virtual
async def test_progress_is_measured_only_while_there_is_something_to_do() -> None:
    fleet = Fleet(fails(NotRead.CONNECTION_REFUSED))
    assert fleet.collector.progress_age() == 0
    fleet.collector.set_target(target())
    await asyncio.sleep(20)
    assert fleet.collector.progress_age() == 0, "the breaker is open: nothing is under way"
    await fleet.collector.close()


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
