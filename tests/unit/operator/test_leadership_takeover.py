"""What a process takes over from another: states from GPUNodes, writes without repetition, breakers to be respected."""

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
    gap,
    node_of,
    spec_of,
    xid,
)
from tests.unit.operator.polled_fleet import EPOCH, Fleet, target, virtual

from gpudiag_api.kinds import GPUDiagnosticSpec
from gpudiag_api.vocabulary import BreakerState, Capability, Health, NotRead
from gpudiag_operator.assess.policy import Judge
from gpudiag_operator.domain import BreakerSnapshot, Failure, NodeState
from gpudiag_operator.publish import limits
from gpudiag_operator.publish.gpunode import status_of
from gpudiag_operator.publish.publisher import Publisher
from gpudiag_operator.publish.recall import recall

GPUNODE = "/apis/gpudiag.dev/v1alpha1/gpunodes/n1"

# One process and an aggregator judge the same


STATES = {
    "healthy": node_of(),
    "sick": node_of(findings=(finding(CRITICAL), finding(WARNING, 1))),
    "lost GPU": node_of(findings=(finding(CRITICAL, 9),)),
    "of the node": node_of(findings=(finding(CRITICAL, None),)),
    "agent says more": node_of(health=Health.DEGRADED),
    "GPU says more": node_of(gpus=1, health=Health.UNHEALTHY),
    "blind": node_of(capabilities=(gap(Capability.DRIVER_HUNG),)),
    "silent": node_of(failure=NotRead.TIMEOUT, findings=(finding(),)),
    "breaker open": node_of(
        failure=NotRead.TIMEOUT, breaker=BreakerSnapshot(state=BreakerState.OPEN, opened_at=NOW, open_for_seconds=61.5)
    ),
    "application's XID": node_of(xids=(application_xid(),)),
    "many XIDs": node_of(xids=tuple(xid(sequence=at) for at in range(40, 0, -1))),
    "many findings": node_of(
        gpus=16, findings=tuple(finding(WARNING, at % 16, reason=f"R{at}") for at in range(16 * 6))
    ),
}
SPECS: dict[str, dict[str, Any]] = {
    "default": {},
    "checks": {"checks": {"exclude": ["ECCUncorrectable"]}},
    "xids": {"policy": {"xids": {"ignore": [48], "critical": [31]}}},
    "expects": {"policy": {"expectedGPUsPerNode": 8, "expectedDriverVersion": "1.2.3"}},
}


@pytest.mark.parametrize("spec", [spec_of(**given) for given in SPECS.values()], ids=list(SPECS))
@pytest.mark.parametrize("state", STATES.values(), ids=list(STATES))
def test_a_recalled_state_is_judged_as_the_one_it_was_made_from(state: NodeState, spec: GPUDiagnosticSpec) -> None:
    kept = limits.fitted(state)
    again = recall("n1", status_of(kept, generation=1, now=NOW))
    mine, others = Judge(spec).row(kept), Judge(spec).row(again)
    # What a row shows of its state; the rest (labels, Pod, uid) comes from the Node.
    for row in (mine, others):
        assert row.state.name == "n1"
    plain = {"state": NodeState(name="n1")}
    assert msgspec.structs.replace(others, **plain) == msgspec.structs.replace(mine, **plain)
    assert again.health is kept.health
    assert again.message == kept.message
    assert again.breaker == kept.breaker
    assert (again.failure and again.failure.reason) == (kept.failure and kept.failure.reason)


def test_what_does_not_fit_is_left_out_once() -> None:
    many = STATES["many findings"]
    kept = limits.fitted(many)
    assert (len(kept.findings), kept.findings_truncated) == (limits.FINDINGS, True)
    assert limits.fitted(kept) is kept
    assert status_of(kept, generation=1, now=NOW).findings_truncated
    assert recall("n1", status_of(kept, generation=1, now=NOW)).findings_truncated
    assert limits.fitted(STATES["sick"]) is STATES["sick"]


# Writing where another wrote


class Rig:
    def __init__(self, api: FakeAPI) -> None:
        self.api = api
        self.clock = Clock()
        self.publisher = Publisher(api, clock=self.clock, wall=lambda: NOW + self.clock.now)

    async def put(self, state: NodeState) -> list[tuple[str, str]]:
        before = len(self.api.calls)
        self.publisher.submit(state)
        for _ in range(20):
            delay = await self.publisher.step()
            if delay is None:
                break
            self.clock.now += delay
        return self.api.calls[before:]

    def told(self, body: dict[str, Any]) -> None:
        self.publisher.restore("n1", body)


async def test_a_standby_follows_what_the_leader_writes() -> None:
    api = FakeAPI()
    leader, standby = Rig(api), Rig(api)
    await leader.put(node_of())
    before = api.objects[GPUNODE]
    standby.told(before)
    await leader.put(STATES["sick"])
    standby.told(api.objects[GPUNODE])
    assert await standby.put(STATES["sick"]) == [], "after the takeover nothing is new"
    heir = Rig(api)
    heir.told(before)
    heir.told(api.objects[GPUNODE])
    assert await heir.put(node_of()) != [], "what it saw first is not what is stored"


async def test_a_watch_that_lags_at_the_takeover_repeats_no_event() -> None:
    api = FakeAPI()
    leader, heir = Rig(api), Rig(api)
    await leader.put(node_of())
    heir.told(api.objects[GPUNODE])
    await leader.put(STATES["sick"])
    assert await heir.put(STATES["sick"]) == [], "it looks before its first write"
    writes = await heir.put(node_of())
    assert [verb for verb, _ in writes] == ["create", "status"], "an Event and the status"


async def test_an_older_version_never_replaces_a_newer_one() -> None:
    api = FakeAPI()
    leader, heir = Rig(api), Rig(api)
    await leader.put(node_of())
    old = dict(api.objects[GPUNODE])
    await leader.put(STATES["sick"])
    heir.told(api.objects[GPUNODE])
    heir.told(old)
    assert await heir.put(STATES["sick"]) == []


async def test_what_this_process_wrote_is_not_taken_from_a_late_event() -> None:
    api = FakeAPI()
    leader = Rig(api)
    await leader.put(node_of())
    old = api.objects[GPUNODE]
    await leader.put(STATES["sick"])
    leader.told(old)
    assert await leader.put(STATES["sick"]) == []


# Nodes that another process polls


@pytest.mark.parametrize(
    ("breaker", "called", "reason"),
    [
        (BreakerSnapshot(), True, None),
        (BreakerSnapshot(state=BreakerState.FORCED_OPEN), True, None),
        (BreakerSnapshot(state=BreakerState.OPEN, opened_at=EPOCH, open_for_seconds=60), False, NotRead.TIMEOUT),
        (BreakerSnapshot(state=BreakerState.HALF_OPEN, opened_at=EPOCH, open_for_seconds=1), False, NotRead.TIMEOUT),
    ],
    ids=["closed", "no longer forced", "open", "half-open"],
)
def test_a_fresh_read_respects_the_breaker_of_the_node_s_owner(
    breaker: BreakerSnapshot, called: bool, reason: NotRead | None
) -> None:
    @virtual
    async def run() -> None:
        agents = Fleet()
        said = "no answer (the circuit breaker is open; failures in a row: 3)"
        failure = Failure(reason=NotRead.TIMEOUT, message=said, since=EPOCH)
        agents.collector._strangers = lambda name: (target(name), breaker, failure) if name == "n1" else None
        found = await agents.collector.fetch_fresh(["n1", "nobody"], deadline=5, run_id="r")
        assert (len(agents.calls) == 1) is called
        assert all(call.fresh for call in agents.calls)
        assert (found["n1"].failure and found["n1"].failure.reason) == reason
        if found["n1"].failure is not None:
            assert found["n1"].failure.message.endswith(": no answer"), "as its owner would say it"
        assert found["nobody"].failure is not None
        assert found["nobody"].failure.reason is NotRead.NODE_GONE
        assert agents.states == [], "it is nobody's breaker here"
        assert agents.collector.reading("n1") is None
        await agents.collector.close()

    run()


def test_a_fresh_read_respects_what_people_forced() -> None:
    @virtual
    async def run() -> None:
        agents = Fleet()
        agents.collector._strangers = lambda name: (target(name), BreakerSnapshot(), None)
        agents.collector.set_override("n1", "ForceOpen")
        found = await agents.collector.fetch_fresh(["n1"], deadline=5, run_id="r")
        assert found["n1"].failure is not None
        assert found["n1"].failure.reason is NotRead.FORCED_OPEN
        assert agents.calls == []
        await agents.collector.close()

    run()
