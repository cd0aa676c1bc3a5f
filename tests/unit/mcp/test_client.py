"""The API client against a small server on loopback: what it sends, and what it makes of bad answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gpudiag_mcp.kube.access import open_access
from gpudiag_mcp.kube.api import GPUDIAGNOSTICS, GPUNODES
from gpudiag_mcp.kube.client import MAX_LINE_BYTES, KubeClient
from gpudiag_mcp.kube.errors import ApiError, ApiUnavailable
from gpudiag_mcp.kube.kubeconfig import Context, Entry

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, **user: Any) -> AsyncIterator[KubeClient]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    context = Context(
        name="c",
        cluster_name="k",
        user_name="me",
        namespace="default",
        cluster=Entry(fields={"server": f"http://{host}:{port}"}, base=Path()),
        user=Entry(fields={"token": "t", **user}, base=Path()),
    )
    client = KubeClient(await open_access(context), request_seconds=2.0)
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


def node_json(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": "7"}}


async def test_a_list_is_read_page_by_page() -> None:
    async def handler(request: web.Request) -> web.Response:
        more = request.query.get("continue")
        page = {"metadata": {"resourceVersion": "9"}, "items": [node_json("b" if more else "a")]}
        if not more:
            page["metadata"]["continue"] = "next"  # type: ignore[index]
        return web.json_response(page)

    async with serving(handler) as client:
        pages = [page async for page in client.pages(GPUNODES)]
    assert [len(page.items) for page in pages] == [1, 1]
    assert [page.final for page in pages] == [False, True]


async def test_a_creation_is_strict_and_carries_the_callers_headers() -> None:
    seen: dict[str, Any] = {}

    async def handler(request: web.Request) -> web.Response:
        seen.update(query=dict(request.query), headers=request.headers.copy(), path=request.path)
        return web.json_response(node_json("x"))

    async with serving(handler, **{"as": "admin"}) as client:
        body = {"metadata": {"name": "x"}}
        await client.create(
            GPUDIAGNOSTICS,
            body,
            namespace="team-a",
            dry_run=True,
            headers=[("impersonate-user", "alice"), ("Impersonate-Group", "a"), ("Impersonate-Group", "ü")],
        )
    assert seen["path"] == "/apis/gpudiag.dev/v1alpha1/namespaces/team-a/gpudiagnostics"
    assert seen["query"] == {"fieldValidation": "Strict", "fieldManager": "gpudiag-mcp", "dryRun": "All"}
    assert seen["headers"]["Authorization"] == "Bearer t"
    assert seen["headers"].getall("Impersonate-User") == ["alice"], "the caller's identity wins over the kubeconfig's"
    assert seen["headers"].getall("Impersonate-Group") == ["a", "ü"]


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (403, {"kind": "Status", "reason": "Forbidden", "message": "no"}, "Forbidden"),
        (429, {"reason": "TooManyRequests"}, "TooManyRequests"),
        (502, None, ""),
    ],
)
async def test_an_error_keeps_what_was_asked(status: int, body: Any, reason: str) -> None:
    async def handler(_: web.Request) -> web.Response:
        text = "<html>bad gateway</html>" if body is None else json.dumps(body)
        return web.Response(status=status, text=text, headers={"Retry-After": "3"})

    async with serving(handler) as client:
        with pytest.raises(ApiError) as caught:
            await client.get(GPUDIAGNOSTICS, "d", namespace="n")
    error = caught.value
    assert (error.status, error.reason, error.retry_after) == (status, reason, 3.0)
    assert (error.verb, error.resource, error.namespace, error.name) == ("get", "gpudiagnostics", "n", "d")


@pytest.mark.parametrize("answer", [b"not json", b"[]", b'{"items": 1}'])
async def test_what_no_api_server_says_is_no_answer(answer: bytes) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=answer)

    async with serving(handler) as client:
        with pytest.raises(ApiUnavailable):
            [page async for page in client.pages(GPUNODES)]


async def test_a_redirect_is_not_followed_with_the_token() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/steal"})

    async with serving(handler) as client:
        with pytest.raises(ApiError) as caught:
            await client.get(GPUNODES, "a")
    assert caught.value.status == 302


async def test_a_watch_tells_that_it_was_accepted_then_events_then_its_error() -> None:
    lines = [
        {"type": "ADDED", "object": node_json("a")},
        {"type": "BOOKMARK", "object": node_json("")},
        {"type": "ERROR", "object": {"code": 410, "reason": "Expired"}},
    ]

    async def handler(_: web.Request) -> web.Response:
        return web.Response(text="".join(json.dumps(line) + "\n" for line in lines))

    async with (
        serving(handler) as client,
        aclosing(client.watch(GPUNODES, resource_version="1", timeout_seconds=5)) as watch,
    ):
        assert await anext(watch) is None
        seen = [await anext(watch), await anext(watch)]
        with pytest.raises(ApiError) as caught:
            await anext(watch)
    assert [event.type for event in seen if event] == ["ADDED", "BOOKMARK"]
    assert caught.value.gone


async def test_a_watch_line_has_a_bound() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(6):
            await response.write(b"x" * (1 << 20))
        return response

    assert MAX_LINE_BYTES < 6 << 20
    async with serving(handler) as client:
        with pytest.raises(ApiUnavailable, match="a line of more than"):
            async for _ in client.watch(GPUNODES, resource_version="1", timeout_seconds=5):
                pass


async def test_no_server_and_no_answer_are_told_apart_from_a_refusal() -> None:
    async def handler(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(handler) as client:
        client._timeout = type(client._timeout)(0.05)
        with pytest.raises(ApiUnavailable, match="no answer in time"):
            await client.get(GPUNODES, "a")
