"""The collector on a clock of its own: back-off, grace, breaker, overrides, without a real second."""

import asyncio

import msgspec
import pytest
from tests.unit.operator.polled_fleet import (
    EPOCH,
    Call,
    Fleet,
    blocked,
    fails,
    hangs,
    healthy,
    pod,
    report,
    target,
    virtual,
)

from gpudiag_api.vocabulary import BreakerState, Health, NotRead
from gpudiag_operator.collect.outcome import Answer
from gpudiag_operator.domain import BreakerSnapshot, Failure, Target


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
