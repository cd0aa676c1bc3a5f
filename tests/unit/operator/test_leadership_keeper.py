"""Taking and keeping Leases against an API server in a dictionary, and how they spread over replicas."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, cast

import pytest
from tests.unit.operator.fake_api import Clock, FakeAPI

from gpudiag_operator.kube.api import KubeAPI
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable
from gpudiag_operator.leadership.claims import Claim, Leadership, claims_of
from gpudiag_operator.leadership.election import Election, Timing
from gpudiag_operator.leadership.fence import Fence
from gpudiag_operator.leadership.keeper import Duty, Keeper, LeadershipLostError

NAMESPACE = "ops"
PATH = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/gpudiag-operator"
WALL = 1_800_000_000.0


class Wire(FakeAPI):
    """Answers take a while: others have their turn meanwhile."""

    async def get(self, path: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        return await super().get(path)

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        return await super().create(path, body)


class Replica:
    """One process that competes for one Lease."""

    def __init__(self, api: Any, clock: Clock, identity: str, *, owner: Mapping[str, str] | None = None) -> None:
        self.clock = clock
        self.problem: str | None = None
        self.acquired: list[str] = []
        self.fence = Fence(clock)
        duty = Duty(
            problem=lambda: self.problem,
            may_take=lambda *_: True,
            acquired=self.acquired.append,
            clock=clock,
            wall=lambda: WALL + clock.now,
            jitter=lambda low, _: low,
        )
        self.election = Election(identity, Timing())
        self.keeper = Keeper(
            cast("KubeAPI", api),
            namespace=NAMESPACE,
            name="gpudiag-operator",
            election=self.election,
            fence=self.fence,
            duty=duty,
            owner=owner,
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api() -> FakeAPI:
    return FakeAPI()


def spec(api: FakeAPI) -> Mapping[str, Any]:
    found: Mapping[str, Any] = api.objects[PATH]["spec"]
    return found


async def test_of_two_one_takes_it(api: FakeAPI, clock: Clock) -> None:
    one, two = Replica(api, clock, "one"), Replica(api, clock, "two")
    await asyncio.gather(one.keeper.turn(), two.keeper.turn())
    assert (one.acquired, two.acquired) == (["gpudiag-operator"], [])
    assert (one.fence.left(), two.fence.left()) == (10, 0)
    assert spec(api)["holderIdentity"] == "one"
    assert api.objects[PATH]["metadata"]["labels"] == {"app.kubernetes.io/name": "gpudiag-operator"}
    assert "ownerReferences" not in api.objects[PATH]["metadata"]


async def test_a_new_lease_goes_with_its_owner(api: FakeAPI, clock: Clock) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "gpudiag-operator", "uid": "1"}
    await Replica(api, clock, "one", owner=account).keeper.turn()
    assert api.objects[PATH]["metadata"]["ownerReferences"] == [account]


async def test_a_dead_leaders_lease_is_taken_when_its_time_is_over(api: FakeAPI, clock: Clock) -> None:
    one, two = Replica(api, clock, "one"), Replica(api, clock, "two")
    await one.keeper.turn()
    for _ in range(15):
        await two.keeper.turn()
        clock.now += 1
    assert two.acquired == []
    await two.keeper.turn()
    assert two.acquired == ["gpudiag-operator"]
    assert (spec(api)["holderIdentity"], spec(api)["leaseTransitions"]) == ("two", 1)
    assert one.fence.left() == 0, "closed five seconds before"


async def test_a_lease_that_was_given_up_is_taken_at_once_and_given_up_once(api: FakeAPI, clock: Clock) -> None:
    one, two = Replica(api, clock, "one"), Replica(api, clock, "two")
    await one.keeper.turn()
    await two.keeper.turn()
    await one.keeper.release()
    assert (spec(api)["holderIdentity"], spec(api)["leaseDurationSeconds"]) == ("", 1)
    await two.keeper.turn()
    assert two.acquired == ["gpudiag-operator"]
    await one.keeper.release()
    await one.keeper.turn()
    assert spec(api)["holderIdentity"] == "two"


async def test_of_two_that_find_it_expired_one_takes_it(clock: Clock) -> None:
    api = Wire()
    replicas = [Replica(api, clock, name) for name in ("dead", "one", "two")]
    for each in replicas:
        await each.keeper.turn()
    clock.now += 15
    await asyncio.gather(*(each.keeper.turn() for each in replicas[1:]))
    assert sorted(len(each.acquired) for each in replicas[1:]) == [0, 1]
    assert spec(api)["leaseTransitions"] == 1


async def test_a_leader_that_slept_finds_its_lease_taken_when_it_renews(api: FakeAPI, clock: Clock) -> None:
    one, two = Replica(api, clock, "one"), Replica(api, clock, "two")
    await one.keeper.turn()
    await two.keeper.turn()
    clock.now += 15
    await two.keeper.turn()
    with pytest.raises(LeadershipLostError):
        await asyncio.wait_for(one.keeper.run(), 5)
    assert spec(api)["holderIdentity"] == "two"


async def test_giving_up_what_another_took_changes_nothing(api: FakeAPI, clock: Clock) -> None:
    one, two = Replica(api, clock, "one"), Replica(api, clock, "two")
    await one.keeper.turn()
    await two.keeper.turn()
    clock.now += 15
    await two.keeper.turn()
    await one.keeper.release()
    assert spec(api)["holderIdentity"] == "two"


async def test_a_process_that_makes_no_progress_does_not_renew(
    api: FakeAPI, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = Replica(api, clock, "one"), Replica(api, clock, "two")
    await one.keeper.turn()
    before = spec(api)
    one.problem = "no call to an agent began or ended for 130 s"
    for _ in range(8):
        await two.keeper.turn()
        await one.keeper.turn()
        clock.now += 2
    assert spec(api) == before
    assert one.fence.left() == 0
    assert caplog.text.count("not renewing Lease gpudiag-operator: no call") == 1
    await two.keeper.turn()
    assert two.acquired == ["gpudiag-operator"]
    with pytest.raises(LeadershipLostError, match="held by two now"):
        await one.keeper.run()


async def test_one_that_makes_progress_again_in_time_keeps_it(api: FakeAPI, clock: Clock) -> None:
    one = Replica(api, clock, "one")
    await one.keeper.turn()
    one.problem = "stuck"
    clock.now += 12
    await one.keeper.turn()
    assert one.fence.left() == 0
    one.problem = None
    await one.keeper.turn()
    assert one.fence.left() == 10
    assert one.acquired == ["gpudiag-operator"], "it never was anybody else's"


async def test_an_outage_takes_it_from_nobody(api: FakeAPI, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    one, two = Replica(api, clock, "one"), Replica(api, clock, "two")
    await one.keeper.turn()
    await two.keeper.turn()
    api.refuse = {"get": ApiError(503), "patch": ApiError(503)}
    for _ in range(40):
        clock.now += 3
        for each in (one, two):
            with pytest.raises(ApiError):
                await each.keeper.turn()
    assert one.fence.left() == 0
    api.refuse = {}
    await one.keeper.turn()
    await two.keeper.turn()
    assert one.fence.left() == 10
    assert two.acquired == []
    assert "renewed again; nobody had taken it" in caplog.text


async def test_a_take_whose_answer_was_lost_is_found(clock: Clock) -> None:
    class Lossy(FakeAPI):
        lose = True

        async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
            answer = await super().create(path, body)
            if self.lose:
                raise ApiUnavailable("the answer was lost")
            return answer

    api = Lossy()
    one = Replica(api, clock, "one")
    with pytest.raises(ApiUnavailable):
        await one.keeper.turn()
    assert (one.acquired, one.fence.left()) == ([], 0)
    await one.keeper.turn()
    assert one.acquired == ["gpudiag-operator"]


async def test_a_lease_that_somebody_deleted_or_labelled_is_kept(api: FakeAPI, clock: Clock) -> None:
    one = Replica(api, clock, "one")
    await one.keeper.turn()
    api.edit(PATH, labels={"seen": "yes"})
    for _ in range(2):  # the conflict shows what is there now
        await one.keeper.turn()
    assert spec(api)["renewTime"].startswith("2027")
    assert one.fence.left() == 10
    del api.objects[PATH]
    clock.now += 2
    for _ in range(2):
        await one.keeper.turn()
    assert spec(api)["holderIdentity"] == "one"
    assert one.fence.left() == 10
    assert one.acquired == ["gpudiag-operator"]


# Several Leases


def test_one_process_has_one_lease_and_shards_have_each_their_own() -> None:
    assert claims_of(1) == (Claim(lease="gpudiag-operator", shard=0, aggregates=True),)
    assert [claim.lease for claim in claims_of(2)] == ["gpudiag-aggregator", "gpudiag-shard-0", "gpudiag-shard-1"]
    assert [claim.aggregates for claim in claims_of(2)] == [True, False, False]


async def settle(replicas: list[Leadership], clock: Clock, *, seconds: float) -> None:
    """Let each look at all Leases every half second."""
    for _ in range(int(seconds * 2)):
        await asyncio.gather(*(keeper.turn() for one in replicas for keeper in one._keepers.values()))
        clock.now += 0.5


def replica(api: FakeAPI, clock: Clock, shards: int) -> Leadership:
    one = Leadership(claims_of(shards), Fence(clock), clock=clock)
    parts = one.compete(cast("KubeAPI", api), namespace=NAMESPACE, timing=Timing(), problem=lambda: None)
    for part in parts.values():
        part.close()
    return one


def held(one: Leadership) -> set[str]:
    return {name for name, leads in one.leading().items() if leads}


async def test_leases_spread_over_replicas(clock: Clock) -> None:
    api = Wire()
    replicas = [replica(api, clock, 4) for _ in range(2)]
    await settle(replicas[:1], clock, seconds=3)  # the other one starts a little later
    await settle(replicas, clock, seconds=12)
    sizes = sorted(len(held(one)) for one in replicas)
    assert sum(sizes) == 5
    assert sizes[0] >= 2
    assert not held(replicas[0]) & held(replicas[1])
    assert all(one.standby() for one in replicas), "nothing is left to take"


async def test_one_replica_takes_all_in_time(api: FakeAPI, clock: Clock) -> None:
    one, two = replica(api, clock, 4), replica(api, clock, 4)
    await settle([one, two], clock, seconds=12)
    await settle([two], clock, seconds=20)
    assert len(held(two)) == 5
    assert held(one) == set()
    order = [one.acquired.get_nowait() for _ in range(one.acquired.qsize())]
    assert {claim.lease for claim in order} < {claim.lease for claim in claims_of(4)}


async def test_a_shard_that_nobody_reads_is_said(api: FakeAPI, clock: Clock) -> None:
    one, two = replica(api, clock, 2), replica(api, clock, 2)
    await settle([one, two], clock, seconds=12)
    assert one.orphaned() == ""
    one.may_take = lambda *_, **__: False  # type: ignore[method-assign]
    await settle([one], clock, seconds=40)
    assert "nobody reads the nodes of shard" in one.orphaned()
    assert (one.role(), two.role()) != ("standby", "standby")


async def test_without_election_everything_is_held(clock: Clock) -> None:
    one = Leadership(claims_of(1), Fence(clock), clock=clock)
    one.without_election()
    assert one.acquired.get_nowait().aggregates
    clock.now += 1e9
    assert one.any
    assert one.role() == "gpudiag-operator"
    await one.resign()
    assert not one.any
