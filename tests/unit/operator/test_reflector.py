"""The reflector and the API client against a small server that breaks the watch protocol in every way."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any

import msgspec
import pytest
from aiohttp import web

from gpudiag_operator.kube.api import KubeAPI
from gpudiag_operator.kube.client import MAX_LINE_BYTES, KubeClient
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable
from gpudiag_operator.kube.reflector import Reflector
from gpudiag_operator.kube.retry import Backoff, retrying

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PATH = "/api/v1/nodes"


@dataclass
class NoAccess:
    """An API server without TLS, and a token that can be renewed."""

    host: str
    ssl: SSLContext | None = None
    server_hostname: str | None = None
    proxy: str | None = None
    token: str = "old"
    refreshed: int = 0

    async def authorization(self) -> str | None:
        return f"Bearer {self.token}"

    async def refresh(self) -> None:
        self.refreshed += 1
        self.token = "new"


def a_node(name: str, version: int, colour: str = "red", **extra: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, "colour": colour, **extra}


def event(kind: str, name: str, version: int, colour: str = "red") -> bytes:
    return json.dumps({"type": kind, "object": a_node(name, version, colour)}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    return json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}}).encode() + b"\n"


def end(version: int) -> bytes:
    """The bookmark after the initial events."""
    metadata = {"resourceVersion": str(version), "annotations": {"k8s.io/initial-events-end": "true"}}
    return json.dumps({"type": "BOOKMARK", "object": {"metadata": metadata}}).encode() + b"\n"


def error_event(code: int, reason: str) -> bytes:
    status = {"kind": "Status", "code": code, "reason": reason, "message": "so it is"}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


@dataclass
class Server:
    """Lists ``objects`` at ``version``; watches play ``scripts`` in turn, the last one then stays silent."""

    objects: list[dict[str, Any]] = field(default_factory=list)
    version: int = 1
    scripts: list[list[bytes | str]] = field(default_factory=list)
    lists: int = 0
    watches: list[dict[str, str]] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    fail_lists: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    other: Handler | None = None
    streams: bool = False
    """Whether it knows ``sendInitialEvents`` (WatchList)."""
    port: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """A watch has played all scripts and is silent."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.other is not None:
            return await self.other(request)
        query = dict(request.query)
        if query.get("sendInitialEvents") and not self.streams:
            return web.json_response({"kind": "Status", "reason": "Invalid", "code": 422}, status=422)
        if query.get("watch"):
            self.watches.append(query)
            return await self.play(request)
        self.queries.append(query)
        return self.list(query)

    def list(self, query: dict[str, str]) -> web.Response:
        if self.fail_lists:
            code, headers = self.fail_lists.pop(0)
            return web.json_response(
                {"kind": "Status", "reason": "Trouble", "code": code}, status=code, headers=headers
            )
        start, limit = int(query.get("continue") or 0), int(query["limit"])
        self.lists += start == 0
        more = str(start + limit) if start + limit < len(self.objects) else ""
        metadata = {"resourceVersion": str(self.version), "continue": more}
        return web.json_response({"metadata": metadata, "items": self.objects[start : start + limit]})

    async def play(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if not self.scripts:
            self.idle.set()
            await asyncio.sleep(60)
        for step in self.scripts.pop(0):
            if step == "cut":
                assert request.transport is not None
                request.transport.close()
                return response
            if step == "idle":
                await asyncio.sleep(0.01)
                self.idle.set()
            if step in {"silence", "idle"}:
                await asyncio.sleep(60)
            assert isinstance(step, bytes)
            await response.write(step)
        return response


class Log:
    """A listener that writes down what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str | None]] = []

    def upsert(self, name: str, item: str) -> None:
        self.told.append((name, item))

    def delete(self, name: str) -> None:
        self.told.append((name, None))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


@pytest.fixture
async def access(server: Server) -> NoAccess:
    return NoAccess(f"http://127.0.0.1:{server.port}")


@pytest.fixture
async def api(access: NoAccess) -> AsyncIterator[KubeClient]:
    async with KubeClient(access, request_seconds=5) as client:
        yield client


def colour(raw: msgspec.Raw) -> str | None:
    """The projection: only the colour is kept; white is of no interest."""
    found: str = msgspec.json.decode(raw, type=dict[str, Any])["colour"]
    if found == "broken":
        raise msgspec.ValidationError("no colour")
    return None if found == "white" else found


Run = Callable[..., Awaitable[tuple[Reflector[str], Log]]]


@pytest.fixture
async def run(api: KubeAPI, server: Server) -> AsyncIterator[Run]:
    """Start a reflector and wait until the server's last script is played."""
    tasks: list[asyncio.Task[Any]] = []

    async def start(**options: Any) -> tuple[Reflector[str], Log]:
        reflector = Reflector(
            api, PATH, colour, rng=random.Random(1), backoff=Backoff(initial=0.001, cap=0.01), **options
        )
        log = Log()
        reflector.add_listener(log)
        tasks.append(asyncio.create_task(reflector.run()))
        async with asyncio.timeout(5):
            await server.idle.wait()
            await reflector.synced.wait()
        assert not tasks[-1].done()
        return reflector, log

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_lists_in_chunks_and_watches_from_there(server: Server, run: Run) -> None:
    server.objects = [a_node(f"n{number}", number) for number in range(7)]
    server.version = 42
    reflector, log = await run(page=3, label_selector="pool=gpu")
    assert len(reflector.items) == 7
    assert len(log.told) == 7
    assert [query.get("continue", "") for query in server.queries] == ["", "3", "6"]
    assert {query["labelSelector"] for query in server.queries} == {"pool=gpu"}
    watch = server.watches[0]
    assert (watch["resourceVersion"], watch["allowWatchBookmarks"], watch["labelSelector"]) == (
        "42",
        "true",
        "pool=gpu",
    )
    assert 261 <= int(watch["timeoutSeconds"]) <= 319


async def test_tells_changes_of_the_projection_only(server: Server, run: Run) -> None:
    server.objects = [a_node("n1", 1)]
    server.scripts = [
        [
            event("ADDED", "n2", 2),
            event("MODIFIED", "n1", 3),
            event("MODIFIED", "n1", 4, "blue"),
            event("DELETED", "n2", 5),
            event("MODIFIED", "n1", 6, "white"),
            event("DELETED", "n9", 7),
        ]
    ]
    reflector, log = await run()
    assert log.told == [("n1", "red"), ("n2", "red"), ("n1", "blue"), ("n2", None), ("n1", None)]
    assert reflector.items == {}


async def test_goes_on_from_the_last_bookmark(server: Server, run: Run) -> None:
    server.scripts = [[event("ADDED", "n1", 5), bookmark(9)], [bookmark(12)], [event("MODIFIED", "n1", 15, "blue")]]
    await run()
    assert [watch["resourceVersion"] for watch in server.watches] == ["1", "9", "12", "15"]
    assert server.lists == 1


@pytest.mark.parametrize("gone", ["in the watch", "as status"])
async def test_410_lists_again_and_finds_what_was_deleted(server: Server, run: Run, gone: str) -> None:
    server.objects = [a_node("stays", 1), a_node("goes", 1), a_node("changes", 1)]
    server.scripts = [[error_event(410, "Expired")]]
    serve = server.play

    async def play(request: web.Request) -> web.StreamResponse:
        if len(server.watches) == 1:
            server.objects = [a_node("stays", 2), a_node("changes", 3, "blue"), a_node("comes", 4)]
            server.version = 7
            if gone == "as status":
                server.scripts.clear()
                return web.json_response({"code": 410, "reason": "Gone"}, status=410)
        return await serve(request)

    server.play = play  # type: ignore[method-assign]
    reflector, log = await run()
    assert log.told[3:] == [("goes", None), ("changes", "blue"), ("comes", "red")]
    assert reflector.items == {"stays": "red", "changes": "blue", "comes": "red"}
    assert server.watches[-1]["resourceVersion"] == "7"


async def test_a_cut_line_is_dropped_and_asked_for_again(server: Server, run: Run) -> None:
    whole = event("MODIFIED", "n1", 3, "blue")
    server.objects = [a_node("n1", 1)]
    server.scripts = [[event("ADDED", "n2", 2), whole[:-20], "cut"], [whole]]
    reflector, _ = await run()
    assert reflector.items == {"n1": "blue", "n2": "red"}
    assert [watch["resourceVersion"] for watch in server.watches] == ["1", "2", "3"]
    assert server.lists == 1


async def test_lines_may_come_in_pieces(server: Server, run: Run) -> None:
    data = event("ADDED", "n1", 2) + event("ADDED", "n2", 3)
    server.scripts = [[data[index : index + 7] for index in range(0, len(data), 7)]]
    reflector, _ = await run()
    assert set(reflector.items) == {"n1", "n2"}


@pytest.mark.parametrize(
    "line",
    [b"<html>\n", b'{"type": "ADDED"}\n', b'{"type": "PARTY", "object": {}}\n', b'{"type": "ADDED", "object": 3}\n'],
)
async def test_nonsense_is_survived_and_lists_again_in_the_end(server: Server, run: Run, line: bytes) -> None:
    server.scripts = [[line]] * 3
    await run()
    assert server.lists == 2
    assert len(server.watches) == 4


async def test_an_endless_line_is_given_up(server: Server, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    server.scripts = [[b"x" * (1 << 20)] * (2 + (MAX_LINE_BYTES >> 20))]
    _, log = await run()
    assert not log.told
    assert "a line of more than" in caplog.text


async def test_silence_is_not_trusted(server: Server, run: Run) -> None:
    server.objects = [a_node("n1", 1)]
    server.scripts = [[bookmark(5), "silence"]]
    await run(inactivity_seconds=0.05)
    assert server.watches[1]["resourceVersion"] == "5"
    assert server.lists == 1


async def test_any_outage_is_survived(server: Server, run: Run) -> None:
    faults: list[str] = []

    class Metrics:
        def listed(self, resource: str, count: int) -> None:
            faults.append(f"{resource} {count}")

        def watch_failed(self, resource: str, reason: str) -> None:
            faults.append(reason)

    server.objects = [a_node("n1", 1)]
    server.scripts = [[error_event(500, "InternalError")], ["cut"], [error_event(429, "TooManyRequests")]]
    server.scripts += [["cut"]] * 20
    reflector, _ = await run(metrics=Metrics())
    assert reflector.items == {"n1": "red"}
    assert faults[0] == "nodes 1"
    assert {"500", "429", "Unavailable"} <= set(faults)
    age = reflector.last_event_age()
    assert age is not None
    assert age < 5


async def test_an_object_that_cannot_be_read_keeps_what_was_known(server: Server, run: Run) -> None:
    server.objects = [a_node("n1", 1), a_node("odd", 1, "broken")]
    server.scripts = [[event("MODIFIED", "n1", 2, "broken"), event("ADDED", "n2", 3)]]
    reflector, _ = await run()
    assert reflector.items == {"n1": "red", "n2": "red"}


async def test_a_late_listener_is_told_everything(server: Server, run: Run) -> None:
    server.objects = [a_node("n1", 1)]
    reflector, _ = await run()
    late = Log()
    reflector.add_listener(late)
    assert late.told == [("n1", "red")]


async def test_a_page_that_fails_is_repeated_and_the_list_goes_on(server: Server, api: KubeClient) -> None:
    server.objects = [a_node(f"n{number}", number) for number in range(4)]
    server.fail_lists = [(503, {}), (429, {"Retry-After": "0"})]
    pages = [page async for page in api.list_pages(PATH, limit=2)]
    assert [len(page.items) for page in pages] == [2, 2]
    assert [page.final for page in pages] == [False, True]
    assert server.lists == 1


async def test_errors_are_typed(server: Server, api: KubeClient) -> None:
    async def refuse(request: web.Request) -> web.Response:
        code = int(request.path.rpartition("/")[2])
        reason = "AlreadyExists" if request.method == "POST" else "Whatever"
        body = {"kind": "Status", "reason": reason, "message": "no", "code": code, "details": {"retryAfterSeconds": 3}}
        return web.json_response(body, status=code)

    server.other = refuse
    for code, word in ((404, "not_found"), (409, "conflict"), (410, "gone"), (429, "throttled"), (500, "server_fault")):
        with pytest.raises(ApiError) as caught:
            await api.patch(f"/x/{code}", {})
        assert getattr(caught.value, word)
        assert (caught.value.status, caught.value.message, caught.value.retry_after) == (code, "no", 3)
        assert caught.value.retryable is (code in (429, 500))
    with pytest.raises(ApiError) as caught:
        await api.create("/x/409", {})
    assert caught.value.already_exists
    assert not caught.value.conflict


async def test_writes(server: Server, api: KubeClient) -> None:
    seen: list[tuple[str, str, str, Any]] = []

    async def record(request: web.Request) -> web.Response:
        body = json.loads(await request.read() or "null")
        seen.append((request.method, request.path, request.content_type, body))
        return web.json_response({"ok": True})

    server.other = record
    assert await api.create("/xs", {"a": 1}) == {"ok": True}
    await api.patch("/xs/1", {"a": 2})
    await api.patch_status("/xs/1", {"status": {"b": 3}}, resource_version="77")
    await api.delete("/xs/1", uid="u")
    assert seen == [
        ("POST", "/xs", "application/json", {"a": 1}),
        ("PATCH", "/xs/1", "application/merge-patch+json", {"a": 2}),
        (
            "PATCH",
            "/xs/1/status",
            "application/merge-patch+json",
            {"status": {"b": 3}, "metadata": {"resourceVersion": "77"}},
        ),
        (
            "DELETE",
            "/xs/1",
            "application/json",
            {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "u"}},
        ),
    ]


async def test_an_expired_token_is_renewed_once(server: Server, api: KubeClient, access: NoAccess) -> None:
    async def guard(request: web.Request) -> web.Response:
        if request.headers["Authorization"] != "Bearer new":
            return web.json_response({"code": 401, "reason": "Unauthorized"}, status=401)
        return web.json_response({"ok": True})

    server.other = guard
    assert await api.get("/x") == {"ok": True}
    assert access.refreshed == 1

    async def never(_: web.Request) -> web.Response:
        return web.json_response({"code": 401, "reason": "Unauthorized"}, status=401)

    server.other = never
    with pytest.raises(ApiError) as caught:
        await api.get("/x")
    assert caught.value.status == 401
    assert access.refreshed == 2


async def test_no_answer_is_unavailable() -> None:
    listening = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    listening.close()
    await listening.wait_closed()
    async with KubeClient(NoAccess(f"http://127.0.0.1:{port}")) as api:
        with pytest.raises(ApiUnavailable):
            await api.create("/x", {})


async def test_retrying_honours_the_server_and_gives_up() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def fail() -> None:
        raise ApiError(429, retry_after=7.0)

    with pytest.raises(ApiError):
        await retrying(fail, attempts=3, sleep=sleep)
    assert slept == [7.0, 7.0]
    slept.clear()

    async def refuse() -> None:
        raise ApiError(422)

    with pytest.raises(ApiError):
        await retrying(refuse, sleep=sleep)
    assert not slept


def test_back_off_doubles_to_its_cap_and_is_jittered() -> None:
    backoff = Backoff(initial=1, cap=8, rng=random.Random(2))
    delays = [backoff.next() for _ in range(6)]
    for delay, step in zip(delays, (1, 2, 4, 8, 8, 8), strict=True):
        assert step / 2 <= delay <= step
    backoff.reset()
    assert backoff.next() <= 1
    assert backoff.next(at_least=3600) == 30


@pytest.mark.parametrize(("later", "lag"), [([], 60), ([[bookmark(3), "idle"]], 0)])
async def test_the_copy_is_behind_from_a_fault_until_something_is_heard(
    server: Server, run: Run, later: list[list[bytes | str]], lag: float
) -> None:
    now = [100.0]
    server.scripts = [[event("ADDED", "n1", 2)], ["cut"], *later]
    reflector, _ = await run(monotonic=lambda: now[0])
    now[0] += 60
    assert reflector.lag() == lag


class TestStreamedLists:
    """WatchList: the first copy comes as events, ended by a marked bookmark."""

    @pytest.fixture(autouse=True)
    def new_server(self, server: Server) -> None:
        server.streams = True

    async def test_the_copy_is_told_when_it_is_complete(self, server: Server, run: Run) -> None:
        server.scripts = [[event("ADDED", "n1", 3), bookmark(4), event("ADDED", "n2", 5, "blue"), end(7)]]
        reflector, log = await run()
        assert reflector.items == {"n1": "red", "n2": "blue"}
        assert log.told == [("n1", "red"), ("n2", "blue")]
        assert (server.lists, server.queries) == (0, [])
        first, second = server.watches[:2]
        assert (first["sendInitialEvents"], first["resourceVersionMatch"]) == ("true", "NotOlderThan")
        assert ("sendInitialEvents" in second, second["resourceVersion"]) == (False, "7")

    async def test_nothing_is_told_before_the_end(self, server: Server, run: Run) -> None:
        server.scripts = [[event("ADDED", "old", 3), "cut"], [event("ADDED", "n1", 9), end(9)]]
        _, log = await run()
        assert log.told == [("n1", "red")]

    async def test_events_after_the_end_count_at_once(self, server: Server, run: Run) -> None:
        server.scripts = [
            [event("ADDED", "n1", 3), end(4), event("MODIFIED", "n1", 5, "blue"), event("DELETED", "n1", 6)]
        ]
        _, log = await run()
        assert log.told == [("n1", "red"), ("n1", "blue"), ("n1", None)]

    async def test_what_changes_or_goes_while_it_streams_is_right_in_the_end(self, server: Server, run: Run) -> None:
        stream = [event("ADDED", "n1", 1), event("ADDED", "n2", 2), bookmark(2), event("MODIFIED", "n1", 3, "white")]
        server.scripts = [[*stream, event("DELETED", "n2", 4), event("ADDED", "n3", 5), end(5)]]
        reflector, log = await run()
        assert reflector.items == {"n3": "red"}
        assert log.told == [("n3", "red")]

    async def test_a_gap_is_closed_by_a_new_stream_that_finds_deletions(self, server: Server, run: Run) -> None:
        gone = error_event(410, "Expired")
        server.scripts = [[event("ADDED", "n1", 1), end(2)], [gone], [event("ADDED", "n2", 8), end(9)]]
        _, log = await run()
        assert log.told == [("n1", "red"), ("n1", None), ("n2", "red")]
        assert [watch.get("sendInitialEvents") for watch in server.watches[:3]] == ["true", None, "true"]

    async def test_a_server_that_cannot_is_asked_once(self, server: Server, run: Run) -> None:
        server.streams = False
        server.objects = [a_node("n1", 1)]
        server.scripts = [[error_event(410, "Expired")]]
        reflector, _ = await run()
        assert reflector.items == {"n1": "red"}
        assert server.lists >= 1
        assert not any("sendInitialEvents" in watch for watch in server.watches)
