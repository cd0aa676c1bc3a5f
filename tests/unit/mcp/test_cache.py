"""The caches: opened lazily, watch-fed, bounded, forgotten with the right to read."""

import asyncio
from typing import Any, ClassVar

import pytest
from tests.unit.mcp.world import Clock, FakeAPI, diagnostic, lease, node, settle

from gpudiag_mcp.cache.fleet import FleetCopy, Place
from gpudiag_mcp.cache.pool import Caches
from gpudiag_mcp.cache.reader import OwnIdentity, Reader, read
from gpudiag_mcp.kube.errors import AccessError, ApiError, ApiUnavailable
from gpudiag_mcp.metrics import Metrics


class Rig:
    """Caches over one API server in memory per context; counts what is opened."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.apis: list[FakeAPI] = []
        self.metrics = Metrics()
        self.prepare: Any = lambda api: None
        self.caches = Caches(self.open, metrics=self.metrics, monotonic=self.clock, **{"open_seconds": 0.2, **settings})

    async def open(self, context: str) -> FleetCopy:
        api = FakeAPI(node("gpu-a"), diagnostic())
        self.prepare(api)
        self.apis.append(api)
        place = Place(context=context, cluster=context, identity="me", namespace="default")
        return FleetCopy(api, place, operator_namespace="gpudiag-system", monotonic=self.clock)

    def count(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("mcp_cache_requests_total", {"result": result}) or 0.0


async def test_the_first_use_opens_and_the_others_hit() -> None:
    rig = Rig()
    first = await rig.caches.use("a")
    assert await rig.caches.use("a") is first
    assert (rig.count("miss"), rig.count("hit")) == (1, 1)
    assert list(first.nodes.items) == ["gpu-a"]
    await rig.caches.clear()
    assert all(api.closed for api in rig.apis)


async def test_calls_at_the_same_time_open_it_once() -> None:
    rig = Rig()
    used = await asyncio.gather(*(rig.caches.use("a") for _ in range(20)))
    assert len(rig.apis) == 1
    assert len(set(map(id, used))) == 1
    await rig.caches.clear()


async def test_the_least_recently_used_goes_first() -> None:
    rig = Rig(most=2)
    await rig.caches.use("a")
    await rig.caches.use("b")
    await rig.caches.use("a")
    await rig.caches.use("c")
    assert [api.closed for api in rig.apis] == [False, True, False]
    await rig.caches.clear()


async def test_what_is_idle_for_five_minutes_is_swept() -> None:
    rig = Rig()
    await rig.caches.use("a")
    rig.clock.now += 200
    await rig.caches.use("b")
    rig.clock.now += 100
    await rig.caches.sweep()
    assert [fleet.place.context for fleet in rig.caches.opened()] == ["b"]
    await rig.caches.clear()


async def test_a_copy_older_than_its_bound_is_read_anew() -> None:
    rig = Rig()
    before = await rig.caches.use("a")
    rig.clock.now += 151
    assert await rig.caches.use("a") is not before
    assert rig.apis[0].closed
    assert rig.count("miss") == 2
    await rig.caches.clear()


async def test_while_the_cluster_is_away_an_old_copy_is_used_and_says_so() -> None:
    rig = Rig()
    before = await rig.caches.use("a")
    rig.clock.now += 151
    rig.prepare = lambda api: api.refuse.update({("list", "gpunodes"): ApiUnavailable("away")})
    reader = await read(rig.caches, OwnIdentity(), "a")
    assert reader._fleet is before
    assert [one.name for one in await reader.nodes()] == ["gpu-a"]
    assert "has not been heard for 151 s" in reader.warnings[0]
    assert rig.apis[1].closed
    await rig.caches.clear()


async def test_a_cluster_that_never_answered_is_an_error_in_time() -> None:
    rig = Rig()
    rig.prepare = lambda api: api.refuse.update({("list", "gpunodes"): ApiUnavailable("connection refused")})
    with pytest.raises(ApiUnavailable, match="connection refused"):
        await rig.caches.use("a")
    assert rig.apis[0].closed
    assert not rig.caches.opened()


async def test_forbidden_empties_that_copy_at_once_and_is_asked_again() -> None:
    rig = Rig()
    fleet = await rig.caches.use("a")
    rig.apis[0].fail_watches("gpunodes", ApiError(403))
    await settle()
    assert not fleet.nodes.items
    reader = await read(rig.caches, OwnIdentity(), "a")
    with pytest.raises(ApiError):
        await reader.nodes()
    assert await reader.diagnostics()
    rig.apis[0].refuse.clear()
    rig.apis[0]._broken.clear()
    assert await (await read(rig.caches, OwnIdentity(), "a")).nodes()
    await rig.caches.clear()


@pytest.mark.parametrize("error", [ApiError(401), AccessError("the plugin failed")])
async def test_an_identity_that_is_not_accepted_ends_the_whole_cache(error: Exception) -> None:
    rig = Rig()
    fleet = await rig.caches.use("a")
    rig.apis[0].fail_watches("gpunodes", error)
    await settle()
    assert fleet.locked_out
    rig.prepare = lambda api: api.refuse.update({("list", "gpunodes"): ApiUnavailable("away")})
    with pytest.raises(ApiUnavailable):
        await rig.caches.use("a")
    assert rig.apis[0].closed, "what it had read must not be shown, not even while nothing newer can be had"
    rig.prepare = lambda api: None
    assert await rig.caches.use("a") is not fleet
    await rig.caches.clear()


async def test_the_watch_keeps_it_current() -> None:
    rig = Rig()
    fleet = await rig.caches.use("a")
    rig.apis[0].put(node("gpu-b"), "ADDED")
    rig.apis[0].remove("gpunodes", "gpu-a")
    await settle()
    assert list(fleet.nodes.items) == ["gpu-b"]
    assert rig.apis[0].lists == 2
    await rig.caches.clear()


async def test_a_node_that_cannot_be_decoded_is_unknown_and_not_missing() -> None:
    rig = Rig()
    fleet = await rig.caches.use("a")
    broken = node("gpu-z")
    broken["status"]["gpus"] = "not a list"
    rig.apis[0].put(broken, "ADDED")
    await settle()
    assert fleet.nodes.items["gpu-z"].status.health == "Unknown"
    assert fleet.nodes.items["gpu-z"].status.reason == "Unreadable"
    await rig.caches.clear()


async def test_a_caller_is_asked_for_before_every_read() -> None:
    """The seam of the HTTP transport: an object that is cached is no reason to show it."""

    class Stranger(OwnIdentity):
        name = "stranger"
        asked: ClassVar[list[tuple[str, str, str]]] = []

        async def require(self, api: Any, verb: str, resource: Any, *, namespace: str = "", name: str = "") -> None:
            self.asked.append((verb, resource.plural, namespace))
            raise ApiError(403, verb=verb, resource=resource.plural)

    rig = Rig()
    fleet = await rig.caches.use("a")
    assert fleet.nodes.items
    reader = Reader(fleet, Stranger())
    for ask in (
        reader.nodes(),
        reader.nodes("gpu-a"),
        reader.diagnostics("x"),
        reader.diagnostic("x", "fleet"),
        reader.stored_diagnostic("x", "fleet"),
    ):
        with pytest.raises(ApiError):
            await ask
    assert Stranger.asked == [
        ("list", "gpunodes", ""),
        ("get", "gpunodes", ""),
        ("list", "gpudiagnostics", "x"),
        ("get", "gpudiagnostics", "x"),
        ("get", "gpudiagnostics", "x"),
    ]
    await rig.caches.clear()


async def test_an_identity_of_one_namespace_reads_that_namespace() -> None:
    rig = Rig()
    rig.prepare = lambda api: api.refuse.update({("watch", "gpudiagnostics"): ApiError(403)})
    fleet = await rig.caches.use("a")
    await settle()
    reader = Reader(fleet, OwnIdentity())
    with pytest.raises(ApiError):
        await reader.diagnostics()
    assert [one.key for one in await reader.diagnostics("gpudiag-system")] == ["gpudiag-system/fleet"]
    assert await reader.diagnostic("gpudiag-system", "fleet")
    await rig.caches.clear()


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (lambda api: None, "the Lease is read"),
        (lambda api: api.stored["leases"].clear(), "there is no Lease"),
        (lambda api: api.refuse.update({("get", "leases"): ApiError(403)}), "may not be read"),
        (lambda api: api.put({**lease(), "spec": {"renewTime": "?"}}), "names no time"),
    ],
)
async def test_the_sign_of_the_operator(change: Any, state: str) -> None:
    rig = Rig()
    rig.prepare = change
    sign = (await rig.caches.use("a")).sign
    assert (sign.renewed is not None) == (state == "the Lease is read")
    assert state in sign.problem or sign.renewed is not None
    await rig.caches.clear()
