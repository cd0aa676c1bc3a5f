"""TokenReview over real TLS, and every way in which an API server can fail to answer. The real one: tests/cluster."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.unit.agent.tls_world import pair

from gpudiag_agent.auth import reviews
from gpudiag_agent.auth.reviews import APIServer, ReviewError
from gpudiag_operator.agent_tls.pairs import Pair

Handler = Callable[[web.Request], Awaitable[web.Response]]
ACCOUNT = "system:serviceaccount:gpudiag-system:gpudiag-operator"


class FakeServer:
    """Says what it is told, to whoever comes."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {
            "authenticated": True,
            "user": {"username": ACCOUNT, "uid": "1"},
            "audiences": ["gpudiag-agent"],
        }
        self.code = 201
        self.instead: Handler | None = None
        self.seen: list[tuple[str, dict[str, Any]]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append((request.headers["Authorization"], await request.json()))
        if self.instead is not None:
            return await self.instead(request)
        return web.json_response({"kind": "TokenReview", "status": self.status}, status=self.code)


@asynccontextmanager
async def serving(folder: Path, made: Pair) -> AsyncIterator[tuple[FakeServer, APIServer]]:
    (folder / "token").write_text("agents-own\n")
    (folder / "ca.crt").write_bytes(made.authority)
    for name, content in (("server.crt", made.certificate), ("server.key", made.key)):
        (folder / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    server, app = FakeServer(), web.Application()
    app.router.add_post(reviews.PATH, server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    sock = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, sock, ssl_context=context).start()
    client = APIServer(f"https://localhost:{sock.getsockname()[1]}", folder=folder, audience="gpudiag-agent")
    try:
        yield server, client
    finally:
        await client.close()
        await runner.cleanup()


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[FakeServer, APIServer]]:
    async with serving(tmp_path, pair("localhost")) as made:
        yield made


Both = tuple[FakeServer, APIServer]


async def test_it_asks_for_its_audience_with_its_own_token(both: Both) -> None:
    server, client = both
    assert await client.review("theirs") == "gpudiag-system/gpudiag-operator"
    [(authorization, body)] = server.seen
    assert authorization == "Bearer agents-own"
    assert body["spec"] == {"token": "theirs", "audiences": ["gpudiag-agent"]}


async def test_its_own_token_is_read_anew_for_each_review(both: Both, tmp_path: Path) -> None:
    server, client = both
    await client.review("t")
    (tmp_path / "token").write_text("renewed")
    await client.review("t")
    assert [authorization for authorization, _ in server.seen] == ["Bearer agents-own", "Bearer renewed"]


@pytest.mark.parametrize(
    "status",
    [
        {"authenticated": False, "error": "invalid bearer token"},
        {},
        {"authenticated": True, "user": {"username": ACCOUNT}, "audiences": []},
        {"authenticated": True, "user": {"username": ACCOUNT}},
        {"authenticated": True, "user": {"username": ACCOUNT}, "audiences": ["https://kubernetes.default.svc"]},
        {"authenticated": True, "user": {}, "audiences": ["gpudiag-agent"]},
    ],
)
async def test_what_is_not_vouched_for_this_audience_is_nobody(both: Both, status: dict[str, Any]) -> None:
    server, client = both
    server.status = status
    assert await client.review("t") == ""


@pytest.mark.parametrize("name", ["ann", "system:node:n", "gpudiag-system:gpudiag-operator"])
async def test_who_is_no_service_account_keeps_a_name_that_no_account_has(both: Both, name: str) -> None:
    server, client = both
    server.status["user"] = {"username": name}
    assert "/" not in await client.review("t")


@pytest.mark.parametrize(("code", "words"), [(403, "grant it to create tokenreviews"), (401, "401"), (500, "500")])
async def test_a_server_that_refuses_the_agent_cannot_review(both: Both, code: int, words: str) -> None:
    server, client = both
    server.code = code
    with pytest.raises(ReviewError, match=words):
        await client.review("t")


@pytest.mark.parametrize(
    "body", [b"<html>", b"{" + b" " * 200_000 + b"}", b"[" * 100_000, b'{"status": {"authenticated": 1}}']
)
async def test_what_is_no_review_is_none(both: Both, body: bytes) -> None:
    server, client = both

    async def other(_: web.Request) -> web.Response:
        return web.Response(status=201, body=body)

    server.instead = other
    with pytest.raises(ReviewError, match="no TokenReview"):
        await client.review("t")


async def test_a_server_that_does_not_answer_is_not_waited_for(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = both
    monkeypatch.setattr(reviews, "SECONDS", 0.2)

    async def never(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    server.instead = never
    with pytest.raises(ReviewError, match="within"):
        await client.review("t")


async def test_a_server_that_is_another_gets_no_token(tmp_path: Path) -> None:
    async with serving(tmp_path, pair("localhost")) as (server, client):
        (tmp_path / "ca.crt").write_bytes(pair("localhost").authority)
        with pytest.raises(ReviewError, match="certificate verify failed"):
            await client.review("t")
        assert not server.seen


async def test_a_redirect_is_not_followed(both: Both) -> None:
    server, client = both

    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "https://localhost:1/"})

    server.instead = elsewhere
    with pytest.raises(ReviewError, match="307"):
        await client.review("t")


async def test_without_a_token_of_its_own_it_cannot_ask(both: Both, tmp_path: Path) -> None:
    (tmp_path / "token").unlink()
    with pytest.raises(ReviewError, match="No such file"):
        await both[1].review("t")


async def test_new_authorities_of_the_cluster_are_taken_up(tmp_path: Path) -> None:
    made = pair("localhost")
    async with serving(tmp_path, made) as (_, client):
        (tmp_path / "ca.crt").write_bytes(pair("localhost").authority)
        with pytest.raises(ReviewError):
            await client.review("t")
        (tmp_path / "ca.crt").write_bytes(made.authority)
        assert await client.review("t")
