"""Whose token it is and what its owner may do, with a clock that a test moves."""

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.mcp.world import NOW, Clock, FakeAPI

from gpudiag_mcp.answers.refusals import Refusal
from gpudiag_mcp.identity.buckets import Buckets
from gpudiag_mcp.identity.principal import Principal
from gpudiag_mcp.identity.remembered import Remembered
from gpudiag_mcp.identity.rights import ALLOWED_SECONDS, DENIED_SECONDS, Rights
from gpudiag_mcp.identity.tokens import BAD_SECONDS, GOOD_SECONDS, TokenRefused, Tokens, TokenUnverified
from gpudiag_mcp.kube.api import GPUNODES, LEASES, Headers, JSONObject, Resource
from gpudiag_mcp.kube.errors import ApiError, ApiUnavailable


class ReviewingAPI(FakeAPI):
    """Also reviews tokens (``users``: token to name) and access (``rights``: user, verb, plural, namespace, name)."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        super().__init__(*objects)
        self.users: dict[str, str] = {"t-alice": "alice"}
        self.audiences: Mapping[str, list[str]] = {}
        self.rights: set[tuple[str, ...]] = set()
        self.reviews: list[JSONObject] = []
        self.gate: asyncio.Event | None = None

    async def create(
        self,
        resource: Resource,
        body: JSONObject,
        *,
        namespace: str = "",
        dry_run: bool = False,
        headers: Headers = (),
    ) -> bytes:
        if resource.plural not in ("tokenreviews", "subjectaccessreviews"):
            return await super().create(resource, body, namespace=namespace, dry_run=dry_run, headers=headers)
        self.reviews.append(body)
        self._check("create", resource)
        if self.gate is not None:
            await self.gate.wait()
        spec = body["spec"]
        if resource.plural == "tokenreviews":
            user = self.users.get(spec["token"])
            status: dict[str, Any] = {"authenticated": user is not None, "error": "" if user else "no"}
            if user:
                audiences = self.audiences.get(spec["token"], spec["audiences"])
                status |= {"user": {"username": user, "uid": f"uid-{user}"}, "audiences": audiences}
        else:
            about = spec["resourceAttributes"]
            asked = (spec["user"], about["verb"], about["resource"], about.get("namespace", ""), about.get("name", ""))
            status = {"allowed": asked in self.rights}
        return json.dumps({"status": status}).encode()


def jwt(**claims: Any) -> str:
    return f"h.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.s"


def known(api: ReviewingAPI) -> tuple[Tokens, Clock]:
    clock = Clock()
    return Tokens(api, audience="gpudiag-mcp", clock=clock, monotonic=clock), clock


class TestTokens:
    async def test_a_token_is_asked_about_once_and_kept_for_seconds(self) -> None:
        api = ReviewingAPI()
        tokens, clock = known(api)
        assert (await tokens.principal("t-alice")).username == "alice"
        clock.now += GOOD_SECONDS - 1
        await tokens.principal("t-alice")
        assert len(api.reviews) == 1
        assert api.reviews[0]["spec"]["audiences"] == ["gpudiag-mcp"]
        clock.now += 2
        await tokens.principal("t-alice")
        assert len(api.reviews) == 2

    async def test_a_known_token_outlives_an_outage_until_its_entry_ends(self) -> None:
        api = ReviewingAPI()
        tokens, clock = known(api)
        await tokens.principal("t-alice")
        api.refuse["create", "tokenreviews"] = ApiUnavailable("away")
        clock.now += GOOD_SECONDS - 1
        assert (await tokens.principal("t-alice")).username == "alice"
        with pytest.raises(TokenUnverified) as caught:
            await tokens.principal("t-bob")
        assert caught.value.retry_after > 0
        clock.now += 2
        with pytest.raises(TokenUnverified):
            await tokens.principal("t-alice")

    async def test_no_token_is_used_longer_than_it_lives(self) -> None:
        api = ReviewingAPI()
        token = jwt(exp=NOW + 10)
        api.users[token] = "alice"
        tokens, clock = known(api)
        await tokens.principal(token)
        clock.now += 10
        with pytest.raises(TokenRefused) as caught:
            await tokens.principal(token)
        assert caught.value.reason == "Expired"
        assert len(api.reviews) == 1, "an expired token costs the API server nothing"

    @pytest.mark.parametrize("audiences", [[], ["https://kubernetes.default.svc"], ["gpudiag-mcp2"]])
    async def test_an_answer_for_another_audience_is_a_refusal(self, audiences: list[str]) -> None:
        api = ReviewingAPI()
        api.audiences = {"t-alice": audiences}
        tokens, _ = known(api)
        with pytest.raises(TokenRefused, match="--audience=gpudiag-mcp") as caught:
            await tokens.principal("t-alice")
        assert caught.value.reason == "Audience"

    async def test_a_refusal_is_kept_for_a_shorter_time(self) -> None:
        api = ReviewingAPI()
        tokens, clock = known(api)
        for _ in range(3):
            with pytest.raises(TokenRefused):
                await tokens.principal("nonsense")
        assert len(api.reviews) == 1
        clock.now += BAD_SECONDS + 1
        api.users["nonsense"] = "late"
        assert (await tokens.principal("nonsense")).username == "late"

    async def test_many_unknown_tokens_do_not_become_many_reviews(self) -> None:
        api = ReviewingAPI()
        tokens, _ = known(api)
        outcomes = [await _reason(tokens, f"guess-{at}") for at in range(150)]
        assert len(api.reviews) == 100
        assert outcomes[-1] == "Unverified"

    async def test_a_server_without_the_right_to_ask_says_so_and_lets_nobody_in(self) -> None:
        api = ReviewingAPI()
        api.refuse["create", "tokenreviews"] = ApiError(403, "Forbidden")
        tokens, _ = known(api)
        with pytest.raises(TokenUnverified, match="refuses its request"):
            await tokens.principal("t-alice")

    @given(st.text(alphabet=st.characters(codec="ascii"), max_size=200))
    def test_any_text_is_a_token_that_is_refused(self, token: str) -> None:
        api = ReviewingAPI()
        tokens, _ = known(api)
        assert asyncio.run(_reason(tokens, token)) in {"Missing", "Invalid", "Audience", "Expired"}


async def _reason(tokens: Tokens, token: str) -> str:
    try:
        await tokens.principal(token)
    except TokenRefused as error:
        return error.reason
    except TokenUnverified:
        return "Unverified"
    return ""


class TestRights:
    ALICE = Principal(username="alice", uid="1", groups=("dev",), extra=(("k", ("v",)),))

    async def test_the_api_server_is_asked_about_exactly_this_user(self) -> None:
        api = ReviewingAPI()
        api.rights = {("alice", "list", "gpunodes", "", "")}
        await Rights().require(api, self.ALICE, "list", GPUNODES)
        spec = api.reviews[0]["spec"]
        assert (spec["user"], spec["uid"], spec["groups"], spec["extra"]) == ("alice", "1", ["dev"], {"k": ["v"]})
        assert spec["resourceAttributes"]["group"] == "gpudiag.dev"

    async def test_an_answer_is_kept_for_30_s_a_denial_for_5(self) -> None:
        api, clock = ReviewingAPI(), Clock()
        rights = Rights(monotonic=clock)
        with pytest.raises(ApiError) as caught:
            await rights.require(api, self.ALICE, "list", GPUNODES)
        assert (caught.value.status, caught.value.verb, caught.value.resource) == (403, "list", "gpunodes")
        api.rights = {("alice", "list", "gpunodes", "", "")}
        with pytest.raises(ApiError):
            await rights.require(api, self.ALICE, "list", GPUNODES)
        clock.now += DENIED_SECONDS
        await rights.require(api, self.ALICE, "list", GPUNODES)
        api.rights = set()
        clock.now += ALLOWED_SECONDS - 1
        await rights.require(api, self.ALICE, "list", GPUNODES)
        clock.now += 1
        with pytest.raises(ApiError):
            await rights.require(api, self.ALICE, "list", GPUNODES)

    async def test_rights_are_not_shared_between_users_verbs_resources_and_namespaces(self) -> None:
        api = ReviewingAPI()
        api.rights = {("alice", "get", "leases", "a", "")}
        rights = Rights()
        await rights.require(api, self.ALICE, "get", LEASES, namespace="a")
        others = Principal(username="alice", uid="2"), Principal(username="bob")
        for who, verb, resource, namespace in (
            (others[1], "get", LEASES, "a"),
            (self.ALICE, "list", LEASES, "a"),
            (self.ALICE, "get", GPUNODES, "a"),
            (self.ALICE, "get", LEASES, "b"),
        ):
            with pytest.raises(ApiError):
                await rights.require(api, who, verb, resource, namespace=namespace)
        before = len(api.reviews)
        await rights.require(api, others[0], "get", LEASES, namespace="a")
        assert len(api.reviews) == before + 1, "another uid is another user, although the name is the same"

    async def test_a_server_that_may_not_ask_shows_nothing(self) -> None:
        api = ReviewingAPI()
        api.refuse["create", "subjectaccessreviews"] = ApiError(403, "Forbidden")
        with pytest.raises(Refusal, match="create subjectaccessreviews"):
            await Rights().require(api, self.ALICE, "list", GPUNODES)


class TestImpersonation:
    def test_a_service_account_is_named_with_uid_and_extra_and_without_implied_groups(self) -> None:
        one = Principal(
            username="system:serviceaccount:ns:sa",
            uid="7",
            groups=("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"),
            extra=(("authentication.kubernetes.io/credential-id", ("JTI=1",)),),
        )
        assert one.impersonation() == (
            ("Impersonate-User", "system:serviceaccount:ns:sa"),
            ("Impersonate-Uid", "7"),
            ("Impersonate-Extra-authentication.kubernetes.io%2Fcredential-id", "JTI=1"),
        )

    def test_groups_of_people_are_all_named(self) -> None:
        one = Principal(username="jane", groups=("dev", "ops", "system:authenticated"))
        assert one.impersonation() == (
            ("Impersonate-User", "jane"),
            ("Impersonate-Group", "dev"),
            ("Impersonate-Group", "ops"),
        )


class TestRemembered:
    @given(st.lists(st.tuples(st.integers(0, 20), st.floats(0, 5)), max_size=60))
    def test_it_is_bounded_and_never_older_than_asked(self, steps: list[tuple[int, float]]) -> None:
        clock = Clock(0.0)
        kept: Remembered[int, float] = Remembered(most=5, monotonic=clock)
        for key, passed in steps:
            clock.now += passed
            written = kept.known(key)
            assert written is None or clock.now - written < 10
            if written is None:
                kept.keep(key, clock.now, 10)
            assert len(kept) <= 5

    async def test_one_question_for_many_who_ask_even_if_the_first_goes_away(self) -> None:
        asked, go = 0, asyncio.Event()
        kept: Remembered[str, int] = Remembered(most=5)

        async def question() -> tuple[int, float]:
            nonlocal asked
            asked += 1
            await go.wait()
            return 42, 10.0

        first, second = (asyncio.create_task(kept.ask("k", question)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        go.set()
        assert await second == 42
        assert asked == 1


class TestBuckets:
    @given(st.lists(st.floats(0, 30), max_size=80), st.integers(1, 120), st.integers(1, 20))
    def test_never_more_than_the_burst_and_the_rate_allow(
        self, pauses: list[float], per_minute: int, burst: int
    ) -> None:
        clock = Clock(0.0)
        buckets = Buckets(per_minute=per_minute, burst=burst, monotonic=clock)
        taken = 0
        for pause in pauses:
            clock.now += pause
            wait = buckets.take("k")
            taken += not wait
            assert taken <= burst + clock.now * per_minute / 60 + 1e-6
        if wait := buckets.take("k"):
            clock.now += wait + 1e-6
            assert buckets.take("k") == 0

    def test_a_long_pause_does_not_save_up_more_than_the_burst(self) -> None:
        clock = Clock()
        buckets = Buckets(per_minute=60, burst=3, monotonic=clock)
        buckets.take("k")
        clock.now += 3600
        assert [buckets.take("k") == 0 for _ in range(4)] == [True, True, True, False]

    def test_keys_do_not_share_and_the_table_is_bounded(self) -> None:
        buckets = Buckets(per_minute=1, burst=1, most=3, monotonic=Clock())
        assert [buckets.take(f"k{at}") for at in range(50)] == [0.0] * 50
        assert len(buckets) == 3
        assert buckets.take("k49") > 0
