"""The reflector against a small server that breaks the watch protocol in every way."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web
from tests.unit.operator.fake_server import (
    PATH,
    Log,
    Server,
    a_node,
    bookmark,
    end,
    error_event,
    event,
)

from gpudiag_operator.kube.api import KubeAPI
from gpudiag_operator.kube.client import MAX_LINE_BYTES, KubeClient
from gpudiag_operator.kube.reflector import Reflector
from gpudiag_operator.kube.retry import Backoff


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
