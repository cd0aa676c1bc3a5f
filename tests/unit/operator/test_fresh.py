"""Fresh reads of Once runs: all at once, within a deadline, and no breaker notices."""

import asyncio
from typing import Any

import pytest
from tests.unit.operator.polled_fleet import Call, Fleet, blocked, fails, hangs, healthy, target, virtual

from gpudiag_api.vocabulary import BreakerState, NotRead
from gpudiag_operator.collect.outcome import Answer, FetchError
from gpudiag_operator.collect.settings import CollectSettings
from gpudiag_operator.domain import Reading


@virtual
async def test_a_full_run_asks_for_everything_else_as_well() -> None:
    fleet = Fleet()
    fleet.collector.set_target(target())
    found = await fleet.collector.fetch_fresh(["n1"], deadline=30, run_id="r", full=True)
    details = found["n1"].details
    assert details is not None
    assert details.missing == ()
    assert details.timeline is not None
    assert fleet.paths == ["/v1/timeline?points=60", "/v1/topology", "/v1/processes"]
    await fleet.collector.close()


@virtual
async def test_a_run_that_is_not_full_does_not() -> None:
    fleet = Fleet()
    fleet.collector.set_target(target())
    found = await fleet.collector.fetch_fresh(["n1"], deadline=30, run_id="r")
    assert (found["n1"].details, fleet.paths) == (None, [])
    await fleet.collector.close()


@virtual
async def test_an_agent_that_gives_no_details_was_still_read() -> None:
    class Plain(Fleet):
        async def details(self, path: str) -> bytes:
            raise FetchError(NotRead.BAD_RESPONSE, "HTTP 404")

    fleet = Plain()
    fleet.collector.set_target(target())
    reading = (await fleet.collector.fetch_fresh(["n1"], deadline=30, run_id="r", full=True))["n1"]
    assert (reading.failure, reading.report is not None) == (None, True)
    assert reading.details is not None
    assert len(reading.details.missing) == 3
    assert fleet.state() is BreakerState.CLOSED
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
async def test_runs_at_the_same_time_ask_a_node_once_and_a_later_one_asks_anew() -> None:
    async def slow(call: Call) -> Answer:
        await asyncio.sleep(3 if call.fresh else 0)
        return await healthy(call)

    fleet = Fleet(slow)
    fleet.collector.set_target(target())

    async def run(name: str, after: float, **options: Any) -> Reading:
        await asyncio.sleep(after)
        return (await fleet.collector.fetch_fresh(["n1"], deadline=30, run_id=name, **options))["n1"]

    first, second, later, full = await asyncio.gather(run("a", 0), run("b", 0.5), run("c", 2), run("d", 0, full=True))
    assert [one.failure for one in (first, second, later, full)] == [None] * 4
    assert [call.run_id for call in fleet.calls if call.fresh] == ["a", "d", "c"]
    assert second.report is first.report
    assert (second.details, full.details is not None) == (None, True)
    await fleet.collector.close()


@virtual
async def test_a_run_that_ends_early_leaves_its_calls_to_the_others_and_cancels_its_own() -> None:
    fleet = Fleet()
    fleet.behave["n1"] = lambda call: slow(call) if call.fresh else healthy(call)
    ended: list[str] = []

    async def slow(call: Call) -> Answer:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            ended.append(call.run_id)
            raise
        return await healthy(call)

    fleet.collector.set_target(target())
    hasty = asyncio.create_task(fleet.collector.fetch_fresh(["n1"], deadline=1, run_id="hasty"))
    patient = asyncio.create_task(fleet.collector.fetch_fresh(["n1"], deadline=30, run_id="patient"))
    assert (await hasty)["n1"].failure is not None
    assert (await patient)["n1"].failure is None
    assert [call.run_id for call in fleet.calls if call.fresh] == ["hasty"]
    assert ended == []
    await fleet.collector.fetch_fresh(["n1"], deadline=1, run_id="alone")
    await asyncio.sleep(0.1)
    assert ended == ["alone"]
    assert fleet.collector.limiter.free == CollectSettings().concurrency, "a slot leaked"
    await fleet.collector.close()


@virtual
async def test_a_failure_is_told_to_all_who_wait_for_it() -> None:
    fleet = Fleet()
    fleet.behave["n1"] = lambda call: (fails(NotRead.NOT_JSON, after=1) if call.fresh else healthy)(call)
    fleet.collector.set_target(target())
    runs = [fleet.collector.fetch_fresh(["n1"], deadline=30, run_id=name) for name in "abc"]
    failures = [found["n1"].failure for found in await asyncio.gather(*runs)]
    assert [failure.reason for failure in failures if failure] == [NotRead.NOT_JSON] * 3
    assert len([call for call in fleet.calls if call.fresh]) == 1
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
