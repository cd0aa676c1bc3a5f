"""The registry: the newest version wins, namesakes are told apart, the oldest are served first; lists and deletions."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, cast

import msgspec
import pytest

from gpudiag_operator.diagnostics import sync
from gpudiag_operator.diagnostics.expiry import Expiry
from gpudiag_operator.diagnostics.registry import DiagnosticRegistry, Key, read
from gpudiag_operator.kube.api import KubeAPI, Page
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable


def body(name: str, version: int = 1, *, namespace: str = "ns", uid: str = "", **metadata: Any) -> dict[str, Any]:
    given = {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": {**given, "creationTimestamp": "2026-01-01T00:00:00Z", **metadata}}


class Rig:
    def __init__(self, *, most: int = 100, most_per_namespace: int = 100) -> None:
        self.told: list[Key] = []
        self.registry = DiagnosticRegistry(self.told.append, most=most, most_per_namespace=most_per_namespace)

    def names(self) -> list[str]:
        return sorted(key.name for key in self.registry.all_keys())

    def excess(self) -> list[str]:
        return [name for name in self.names() if self.registry.excess(Key("ns", name))]


def test_changes_are_told_and_repeats_are_not() -> None:
    rig = Rig()
    rig.registry.upsert(body("a"))
    rig.registry.upsert(body("a"))
    rig.registry.upsert(body("a", 2))
    rig.registry.delete(Key("ns", "a"), "uid-a")
    assert [str(key) for key in rig.told] == ["ns/a"] * 3
    assert len(rig.registry) == 0


def test_an_older_version_that_comes_late_is_not_believed() -> None:
    rig = Rig()
    rig.registry.upsert(body("a", 10, generation=2))
    rig.registry.upsert(body("a", 9, generation=1))
    found = rig.registry.get(Key("ns", "a"))
    assert found is not None
    assert found.generation == 2


def test_the_deletion_of_a_namesake_of_yesterday_deletes_nothing() -> None:
    rig = Rig()
    rig.registry.upsert(body("a", 1, uid="old"))
    rig.registry.upsert(body("a", 5, uid="new"))
    rig.registry.delete(Key("ns", "a"), "old")
    assert rig.names() == ["a"]


def test_what_is_no_object_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.registry.upsert({"metadata": {"name": "a"}})
    assert "was ignored" in caplog.text
    assert rig.names() == []


def test_a_spec_that_is_not_known_is_a_problem_with_its_path() -> None:
    found = read({**body("a"), "spec": {"target": {"nodeNames": "all of them"}}})
    assert found.problem.startswith("spec.target.nodeNames: this version of the operator does not know")


def test_the_oldest_are_served_and_the_next_moves_up() -> None:
    rig = Rig(most=2)
    rig.registry.upsert(body("young", creationTimestamp="2026-03-01T00:00:00Z"))
    rig.registry.upsert(body("old", creationTimestamp="2026-01-01T00:00:00Z"))
    assert rig.excess() == []
    rig.registry.upsert(body("middle", creationTimestamp="2026-02-01T00:00:00Z"))
    assert rig.excess() == ["young"]
    rig.told.clear()
    rig.registry.upsert(body("old", 2, creationTimestamp="2026-01-01T00:00:00Z", deletionTimestamp="x"))
    assert rig.excess() == []
    assert Key("ns", "young") in rig.told


def test_a_namespace_has_a_limit_of_its_own() -> None:
    rig = Rig(most_per_namespace=1)
    rig.registry.upsert(body("a"))
    rig.registry.upsert(body("b"))
    rig.registry.upsert(body("c", namespace="other"))
    assert rig.excess() == ["b"]
    assert "namespace ns" in str(rig.registry.excess(Key("ns", "b")))


class API:
    """Lists ``pages``, or raises what is in ``faults`` first; remembers deletions."""

    def __init__(self) -> None:
        self.pages: list[list[dict[str, Any]]] = [[]]
        self.faults: list[Exception] = []
        self.deleted: list[tuple[str, str | None, str | None]] = []

    async def list_pages(self, path: str) -> AsyncGenerator[Page, None]:
        if self.faults:
            raise self.faults.pop(0)
        for page in self.pages:
            items = [msgspec.Raw(json.dumps(one).encode()) for one in page]
            yield Page(items=items, resource_version="1", final=page is self.pages[-1])

    async def delete(self, path: str, *, uid: str | None = None, resource_version: str | None = None) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.deleted.append((path, uid, resource_version))

    @property
    def kube(self) -> KubeAPI:
        return cast("KubeAPI", self)


class TestLists:
    async def test_a_complete_list_finds_what_was_deleted_unseen(self) -> None:
        rig, api = Rig(), API()
        rig.registry.upsert(body("gone"))
        rig.registry.upsert(body("replaced", uid="old"))
        api.pages = [[body("a")], [body("replaced", 7, uid="new")]]
        await sync.list_into(api.kube, rig.registry)
        assert rig.names() == ["a", "replaced"]

    async def test_the_first_list_waits_for_api_server_kind_and_rights(self, caplog: pytest.LogCaptureFixture) -> None:
        rig, api = Rig(), API()
        api.faults = [ApiUnavailable("refused"), ApiError(404), ApiError(403, "Forbidden")]
        api.pages = [[body("a")]]
        await sync.first_list(api.kube, rig.registry, sleep_seconds=0)
        assert rig.names() == ["a"]
        for said in ("waiting for the API server", "apply the CustomResourceDefinitions", "waiting for leave"):
            assert said in caplog.text

    async def test_a_later_list_that_fails_is_left_to_the_next_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sync, "RESYNC_SECONDS", 0)
        rig, api = Rig(), API()
        api.faults = [ApiError(410, "Expired"), ApiUnavailable("refused")]
        api.pages = [[body("a")]]
        task = asyncio.create_task(sync.resync(api.kube, rig.registry))
        async with asyncio.timeout(5):
            while not rig.names():
                await asyncio.sleep(0)
        task.cancel()


class TestExpiry:
    async def expire(self, api: API) -> Rig:
        rig = Rig()
        rig.registry.upsert(body("a", 42))
        expiry = Expiry(api.kube, rig.registry)
        task = asyncio.create_task(expiry.run())
        await asyncio.sleep(0)
        found = rig.registry.get(Key("ns", "a"))
        assert found is not None
        expiry.delete(found)
        assert expiry.depth == 1
        for _ in range(5):
            await asyncio.sleep(0)
        assert expiry.depth == 0
        assert not task.done()
        task.cancel()
        return rig

    async def test_deletes_that_very_object_in_that_very_state(self) -> None:
        api = API()
        await self.expire(api)
        path = "/apis/gpudiag.dev/v1alpha1/namespaces/ns/gpudiagnostics/a"
        assert api.deleted == [(path, "uid-a", "42")]

    @pytest.mark.parametrize("fault", [ApiUnavailable("refused"), ApiError(409, "Conflict"), ApiError(500)])
    async def test_a_failure_is_left_to_the_next_time(self, fault: Exception) -> None:
        api = API()
        api.faults = [fault]
        rig = await self.expire(api)
        assert rig.names() == ["a"]

    async def test_what_is_gone_already_is_forgotten(self) -> None:
        api = API()
        api.faults = [ApiError(404)]
        rig = await self.expire(api)
        assert rig.names() == []
