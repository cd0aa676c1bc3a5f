"""kopf in its thread, against a small API server that fails in the ways real ones do."""

import asyncio
import json
import logging
import pwd
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gpudiag_operator.diagnostics import feed as feed_module
from gpudiag_operator.diagnostics.feed import FeedError, KopfFeed

COLLECTION = "/apis/gpudiag.dev/v1alpha1/gpudiagnostics"
KIND = {
    "name": "gpudiagnostics",
    "singularName": "gpudiagnostic",
    "kind": "GPUDiagnostic",
    "namespaced": True,
    "verbs": ["get", "list", "watch", "patch"],
}
NAMESPACE = {**KIND, "name": "namespaces", "singularName": "namespace", "kind": "Namespace", "namespaced": False}


def diagnostic(name: str, version: int) -> dict[str, Any]:
    return {
        "apiVersion": "gpudiag.dev/v1alpha1",
        "kind": "GPUDiagnostic",
        "metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": str(version)},
        "spec": {},
    }


def status(code: int, reason: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "so"}


class Server:
    """Answers discovery; lists and watches play ``lists`` and ``watches``, then go on without trouble."""

    def __init__(self) -> None:
        self.lists: list[int] = []
        """Statuses of the next lists; 200 after that."""
        self.watches: list[int | dict[str, Any]] = []
        """Statuses, or events, of the next watches; silence after that."""
        self.objects = [diagnostic("listed", 5)]
        self.listed = 0
        self.watching = asyncio.Event()
        self.serves = True
        self.tokens: set[str] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.tokens.add(request.headers.get("Authorization", ""))
        match request.path:
            case "/api":
                return web.json_response({"versions": ["v1"]})
            case "/apis":
                version = {"groupVersion": "gpudiag.dev/v1alpha1", "version": "v1alpha1"}
                group = {"name": "gpudiag.dev", "versions": [version], "preferredVersion": version}
                return web.json_response({"groups": [group]})
            case "/apis/gpudiag.dev/v1alpha1":
                return web.json_response({"resources": [KIND]})
            case "/apis/gpudiag.dev/v1alpha1/gpudiagnostics":
                return await (self.watch(request) if request.query.get("watch") else self.list())
            case "/api/v1":
                return web.json_response({"resources": [NAMESPACE]})  # kopf waits to see this kind
            case _:
                return web.json_response({"resources": []})

    async def list(self) -> web.StreamResponse:
        self.listed += 1
        code = self.lists.pop(0) if self.lists else 200
        if code != 200:
            return web.json_response(status(code, "Trouble"), status=code, headers={"Retry-After": "0"})
        return web.json_response({"metadata": {"resourceVersion": "10"}, "items": self.objects})

    async def watch(self, request: web.Request) -> web.StreamResponse:
        step = self.watches.pop(0) if self.watches else None
        if isinstance(step, int):
            return web.json_response(status(step, "Trouble"), status=step)
        response = web.StreamResponse()
        await response.prepare(request)
        if step is not None:
            await response.write(json.dumps(step).encode() + b"\n")
            if step["type"] == "ERROR":
                return response
        self.watching.set()
        await asyncio.sleep(60)
        return response


class Rig:
    def __init__(self, server: Server, kubeconfig: Path) -> None:
        self.server = server
        self.told: list[tuple[str | None, str]] = []
        self.feed = KopfFeed(self.take, kubeconfig=str(kubeconfig))
        self.task: asyncio.Task[None] | None = None

    def take(self, kind: str | None, body: Mapping[str, Any]) -> None:
        self.told.append((kind, body["metadata"]["name"]))

    def start(self) -> None:
        self.task = asyncio.create_task(self.feed.run())

    async def until(self, *told: tuple[str | None, str]) -> None:
        assert self.task is not None
        async with asyncio.timeout(20):
            while not set(told) <= set(self.told):
                assert not self.task.done(), self.task
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(feed_module, "LOGIN_SECONDS", 0.1)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kubeconfig = tmp_path / "config"
    cluster = {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": {"token": "secret"}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    made = Rig(server, kubeconfig)
    yield made
    if made.task is not None:
        await made.stop()
    await runner.cleanup()


async def test_lists_and_events_come_over_and_stopping_is_quick(rig: Rig) -> None:
    rig.server.watches = [{"type": "MODIFIED", "object": diagnostic("changed", 11)}]
    rig.start()
    await rig.until((None, "listed"), ("MODIFIED", "changed"))
    assert rig.feed.ready.is_set()
    assert rig.server.tokens == {"Bearer secret"}
    await rig.stop()


async def test_a_user_without_a_name_is_no_hindrance(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "POD_ID"):
        monkeypatch.delenv(name, raising=False)
    rig.start()
    await rig.until((None, "listed"))


async def test_deletions_come_over(rig: Rig) -> None:
    rig.server.watches = [{"type": "DELETED", "object": diagnostic("listed", 12)}]
    rig.start()
    await rig.until(("DELETED", "listed"))


@pytest.mark.parametrize("code", [429, 500, 503, 403])
async def test_a_list_that_fails_is_repeated(rig: Rig, code: int) -> None:
    rig.server.lists = [code, code]
    rig.start()
    await rig.until((None, "listed"))


async def test_credentials_that_are_refused_are_read_again(rig: Rig) -> None:
    rig.server.lists = [401]
    rig.start()
    await rig.until((None, "listed"))


async def test_a_version_that_is_gone_is_listed_again(rig: Rig) -> None:
    rig.server.watches = [{"type": "ERROR", "object": status(410, "Expired")}]
    rig.start()
    await rig.until((None, "listed"))
    async with asyncio.timeout(10):
        await rig.server.watching.wait()
    assert rig.server.listed == 2


async def test_a_watch_that_is_refused_is_repeated(rig: Rig) -> None:
    rig.server.watches = [500, 429, {"type": "ADDED", "object": diagnostic("late", 13)}]
    rig.start()
    await rig.until(("ADDED", "late"))


async def test_an_error_within_the_stream_starts_kopf_anew(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.server.watches = [
        {"type": "ERROR", "object": status(504, "Timeout")},
        {"type": "ADDED", "object": diagnostic("late", 13)},
    ]
    rig.start()
    await rig.until(("ADDED", "late"))
    assert "the watch of GPUDiagnostics ended, again in" in caplog.text


async def test_a_kind_that_is_gone_is_the_end(rig: Rig) -> None:
    rig.server.lists = [404]
    rig.start()
    assert rig.task is not None
    with pytest.raises(FeedError, match="404"):
        await asyncio.wait_for(rig.task, 15)
    rig.task = None


async def test_stopping_before_it_has_started_is_quick_too(rig: Rig) -> None:
    rig.start()
    await asyncio.sleep(0)
    await rig.stop()
