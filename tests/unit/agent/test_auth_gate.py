"""Who may read: remembered answers, outages of the API server, and strangers who come in numbers."""

import asyncio
import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.auth import bearer, gate, remembered
from gpudiag_agent.auth.gate import Gate
from gpudiag_agent.auth.reviews import ReviewError
from gpudiag_agent.clock import ManualClock
from gpudiag_agent.server.problems import ProblemError

OPERATOR = "gpudiag-system/gpudiag-operator"


def jwt(name: str, *, ends_at: float | None = None) -> str:
    claims = {"sub": name} if ends_at is None else {"sub": name, "exp": ends_at}
    return ".".join(("e30", base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("="), "c2ln"))


class FakeReviewer:
    """Knows tokens; can be out of order, and can be held up."""

    def __init__(self) -> None:
        self.accounts: dict[str, str] = {}
        self.asked: list[str] = []
        self.down = False
        self.go = asyncio.Event()
        self.go.set()

    async def review(self, token: str) -> str:
        self.asked.append(token)
        await self.go.wait()
        if self.down:
            raise ReviewError("out of order")
        return self.accounts.get(token, "")

    async def close(self) -> None: ...


class World:
    def __init__(self) -> None:
        self.clock, self.reviewer = ManualClock(), FakeReviewer()
        self.counted: list[str] = []
        self.gate = Gate(
            self.reviewer, allowed=[OPERATOR], audience="gpudiag-agent", clock=self.clock, count=self.counted.append
        )
        self.good = jwt("good", ends_at=self.clock.now() + 600)
        self.reviewer.accounts[self.good] = OPERATOR

    async def status(self, token: str | None) -> int:
        try:
            await self.gate.admit(token)
        except ProblemError as problem:
            return problem.status
        return 200


@pytest.fixture
async def world() -> World:
    return World()


async def test_an_allowed_account_reads_and_is_asked_about_once_a_minute(world: World) -> None:
    for _ in range(5):
        assert await world.status(world.good) == 200
    assert len(world.reviewer.asked) == 1
    world.clock.advance(remembered.FRESH_SECONDS)
    assert await world.status(world.good) == 200
    assert len(world.reviewer.asked) == 2


@pytest.mark.parametrize("token", [None, "wrong"])
async def test_without_a_good_token_the_answer_says_how_to_get_one(world: World, token: str | None) -> None:
    with pytest.raises(ProblemError) as caught:
        await world.gate.admit(token)
    assert caught.value.status == 401
    assert "kubectl create token NAME --namespace NAMESPACE --audience gpudiag-agent" in caught.value.detail
    assert caught.value.headers["WWW-Authenticate"].startswith("Bearer")
    assert world.counted == ["Missing" if token is None else "Refused"]


async def test_another_account_is_known_and_may_not_read(world: World) -> None:
    world.reviewer.accounts["other"] = "team-a/default"
    with pytest.raises(ProblemError, match="team-a/default may not read") as caught:
        await world.gate.admit("other")
    assert caught.value.status == 403


async def test_a_user_whose_name_looks_like_an_account_is_none(world: World) -> None:
    world.reviewer.accounts["person"] = "ann@example.org"
    assert await world.status("person") == 403


async def test_a_refusal_is_remembered_for_seconds_only(world: World) -> None:
    assert [await world.status("late") for _ in range(3)] == [401, 401, 401]
    assert world.reviewer.asked == ["late"]
    world.reviewer.accounts["late"] = OPERATOR
    world.clock.advance(remembered.REFUSED_SECONDS)
    assert await world.status("late") == 200


async def test_a_token_that_is_taken_back_reads_no_longer_than_a_minute(world: World) -> None:
    assert await world.status(world.good) == 200
    del world.reviewer.accounts[world.good]
    world.clock.advance(remembered.FRESH_SECONDS)
    assert await world.status(world.good) == 401


class TestOutage:
    """The API server cannot review."""

    async def test_a_known_token_stays_good_until_it_ends(self, world: World) -> None:
        assert await world.status(world.good) == 200
        world.reviewer.down = True
        for _ in range(9):
            world.clock.advance(60)
            assert await world.status(world.good) == 200
        world.clock.advance(60)
        assert await world.status(world.good) == 503

    async def test_others_are_told_that_it_is_not_their_fault(self, world: World) -> None:
        world.reviewer.down = True
        with pytest.raises(ProblemError) as caught:
            await world.gate.admit(world.good)
        assert (caught.value.status, caught.value.title) == (503, "AuthUnavailable")
        assert "out of order" in caught.value.detail
        assert world.counted == ["Unavailable"]

    async def test_it_ends_with_the_next_good_answer(self, world: World) -> None:
        world.reviewer.down = True
        assert await world.status(world.good) == 503
        world.reviewer.down = False
        assert await world.status(world.good) == 200

    async def test_known_tokens_are_not_asked_about_with_every_request(self, world: World) -> None:
        assert await world.status(world.good) == 200
        world.reviewer.down = True
        world.clock.advance(remembered.FRESH_SECONDS)
        for _ in range(10):
            assert await world.status(world.good) == 200
        assert len(world.reviewer.asked) == 2

    async def test_a_token_that_names_no_end_is_known_for_an_hour(self, world: World) -> None:
        token = jwt("endless")
        world.reviewer.accounts[token] = OPERATOR
        assert await world.status(token) == 200
        world.reviewer.down = True
        world.clock.advance(remembered.UNDATED_SECONDS - 1)
        assert await world.status(token) == 200
        world.clock.advance(10)
        assert await world.status(token) == 503

    async def test_an_end_is_kept_also_while_the_last_answer_is_fresh(self, world: World) -> None:
        token = jwt("short", ends_at=world.clock.now() + 5)
        world.reviewer.accounts[token] = OPERATOR
        assert await world.status(token) == 200
        del world.reviewer.accounts[token]  # as the API server, which looks at the end itself
        world.clock.advance(5)
        assert await world.status(token) == 401


class TestStrangers:
    """Numbers, at once and over time."""

    async def test_one_token_is_reviewed_once_however_many_ask(self, world: World) -> None:
        world.reviewer.go.clear()
        asking = [asyncio.create_task(world.status(world.good)) for _ in range(50)]
        await asyncio.sleep(0)
        asking[0].cancel()  # who goes away takes nobody with it
        await asyncio.sleep(0)
        world.reviewer.go.set()
        assert await asyncio.gather(*asking[1:]) == [200] * 49
        assert len(world.reviewer.asked) == 1

    async def test_reviews_at_once_are_bounded_and_the_rest_is_told_to_come_again(self, world: World) -> None:
        world.reviewer.go.clear()
        asking = [asyncio.create_task(world.status(f"t{number}")) for number in range(gate.MOST_REVIEWS + 5)]
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(world.reviewer.asked) == gate.MOST_REVIEWS
        world.reviewer.go.set()
        assert sorted(await asyncio.gather(*asking)) == [401] * gate.MOST_REVIEWS + [503] * 5

    async def test_reviews_in_a_second_are_bounded(self, world: World) -> None:
        statuses = [await world.status(f"t{number}") for number in range(gate.MOST_PER_SECOND + 3)]
        assert statuses == [401] * gate.MOST_PER_SECOND + [503] * 3
        world.clock.advance(1)
        assert await world.status("one more") == 401

    async def test_a_flood_of_wrong_tokens_locks_no_known_one_out(self, world: World) -> None:
        assert await world.status(world.good) == 200
        for second in range(40):
            for number in range(gate.MOST_PER_SECOND):
                await world.status(f"{second}-{number}")
            assert await world.status(world.good) == 200
            world.clock.advance(1)
        world.clock.advance(remembered.FRESH_SECONDS - 40)
        world.reviewer.go.clear()
        flood = [asyncio.create_task(world.status(f"f{number}")) for number in range(gate.MOST_REVIEWS)]
        await asyncio.sleep(0)
        assert await world.status(world.good) == 200, "known, though nobody can be asked now"
        world.reviewer.go.set()
        await asyncio.gather(*flood)

    def test_memory_is_bounded_and_holds_no_token(self) -> None:
        kept = remembered.Remembered()
        for number in range(5000):
            kept.refuse(bearer.fingerprint(f"r{number}"), "", monotonic=0)
            kept.allow(bearer.fingerprint(f"a{number}"), OPERATOR, expires_at=None, monotonic=0)
        assert len(kept) == remembered.MOST_ALLOWED + remembered.MOST_REFUSED
        assert {len(key) for key in (*kept._allowed, *kept._refused)} == {32}


class TestBearer:
    """Headers from anybody."""

    @pytest.mark.parametrize(
        ("headers", "token"),
        [
            ({"Authorization": "Bearer abc.def-1_~+/="}, "abc.def-1_~+/="),
            ({"Authorization": "bearer  abc"}, "abc"),
            ({"X-Gpudiag-Authorization": "Bearer abc"}, "abc"),
            ({"Authorization": "Bearer one", "X-Gpudiag-Authorization": "Bearer two"}, "one"),
            ({"Authorization": "Basic YTpi", "X-Gpudiag-Authorization": "Bearer two"}, None),
            ({"Authorization": "Bearer a b"}, None),
            ({"Authorization": "Bearer "}, None),
            ({"Authorization": "Bearer tökén"}, None),
            ({"Authorization": "Bearer " + "a" * (bearer.MAX_TOKEN + 1)}, None),
            ({}, None),
        ],
    )
    def test_what_is_a_token(self, headers: dict[str, str], token: str | None) -> None:
        assert bearer.token_of(headers) == token

    def test_the_end_of_a_jwt(self) -> None:
        assert bearer.expiry(jwt("x", ends_at=1_900_000_000)) == 1_900_000_000
        assert bearer.expiry(jwt("x")) is None
        assert bearer.expiry("opaque") is None

    @given(st.text(max_size=200), st.binary(max_size=200))
    def test_nothing_breaks_it(self, text: str, claims: bytes) -> None:
        bearer.token_of({"Authorization": text})
        bearer.expiry(text)
        bearer.expiry(f"a.{base64.urlsafe_b64encode(claims).decode()}.b")
