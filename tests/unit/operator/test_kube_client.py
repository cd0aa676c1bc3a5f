"""The API client and its retries against a small server that refuses, forgets tokens and hangs up."""

import asyncio
import json
import random
from typing import Any

import pytest
from aiohttp import web
from tests.unit.operator.fake_server import (
    NoAccess,
    Server,
)

from gpudiag_operator.kube.client import KubeClient
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable
from gpudiag_operator.kube.retry import Backoff, retrying


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
