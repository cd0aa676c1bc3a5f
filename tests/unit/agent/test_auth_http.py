"""Tokens over HTTP: what is open, what is not, and what a client is told."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from tests.unit.agent.served_node import Node
from tests.unit.agent.test_auth_gate import OPERATOR, FakeReviewer, jwt
from yarl import URL

from gpudiag_agent import access_options
from gpudiag_agent.auth.gate import Gate

TOKEN = jwt("operator", ends_at=1_900_000_000)
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
PROMETHEUS = "monitoring/prometheus"
SCRAPER = jwt("prometheus", ends_at=1_900_000_000)


@asynccontextmanager
async def guarded(*, anonymous: Collection[str] = access_options.ANONYMOUS, down: bool = False) -> AsyncIterator[Node]:
    node, reviewer = Node(), FakeReviewer()
    reviewer.accounts |= {TOKEN: OPERATOR, SCRAPER: PROMETHEUS}
    reviewer.down = down
    gate = Gate(reviewer, allowed=[OPERATOR], scrapers=[PROMETHEUS], audience="gpudiag-agent", clock=node.clock)
    node.server._admit, node.server._anonymous = gate.admit, frozenset(anonymous)
    runner = web.AppRunner(node.server.application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    sock = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, sock).start()
    node.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    async with aiohttp.ClientSession() as node.client:
        await node.look()
        yield node
    await gate.close()
    await runner.cleanup()


@pytest.mark.parametrize("path", ["/v1/report", "/v1/processes", "/v1/timeline", "/openapi.json", "/nothing"])
async def test_data_takes_a_token_and_paths_are_not_told_apart_without_one(path: str) -> None:
    async with guarded() as node:
        async with node.client.get(node.url + path) as answer:
            problem = json.loads(await answer.read())
            assert (answer.status, problem["title"]) == (401, "Unauthorized")
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert answer.content_type == "application/problem+json"
        async with node.client.get(node.url + path, headers=AUTHORIZED) as answer:
            assert answer.status == (404 if path == "/nothing" else 200)


async def test_the_header_that_passes_the_api_servers_proxy_will_do() -> None:
    async with guarded() as node:
        proxied = {"X-Gpudiag-Authorization": f"Bearer {TOKEN}"}
        async with node.client.get(f"{node.url}/v1/report", headers=proxied) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("anonymous", "open_paths"),
    [(access_options.ANONYMOUS, {"/healthz", "/readyz", "/metrics"}), (("/healthz",), {"/healthz"}), ((), set())],
)
async def test_what_is_open_is_configured(anonymous: tuple[str, ...], open_paths: set[str]) -> None:
    async with guarded(anonymous=anonymous) as node:
        statuses = {}
        for path in access_options.ANONYMOUS:
            async with node.client.get(node.url + path) as answer:
                statuses[path] = answer.status
        assert statuses == {path: 200 if path in open_paths else 401 for path in access_options.ANONYMOUS}


async def test_who_may_read_metrics_may_read_nothing_else() -> None:
    async with guarded(anonymous=()) as node:
        statuses = {}
        for path in ("/metrics", "/v1/report", "/v1/processes", "/metrics/", "/%6detrics/../v1/report", "/healthz"):
            url = URL(node.url + path, encoded=True)
            async with node.client.get(url, headers={"Authorization": f"Bearer {SCRAPER}"}) as answer:
                statuses[path] = answer.status
                assert b"nodeName" not in await answer.read()
        assert statuses.pop("/metrics") == 200
        assert set(statuses.values()) == {403}
        async with node.client.get(f"{node.url}/metrics", headers=AUTHORIZED) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("path", ["//metrics", "/metrics/", "/metrics/../v1/report", "/v1/report#/metrics"])
async def test_no_spelling_of_a_path_gets_around_it(path: str) -> None:
    async with guarded(anonymous=("/metrics",)) as node:
        reader, writer = await _raw(node, f"GET {path} HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n")
        said = (await reader.read()).decode()
        writer.close()
        assert said.split()[1] in {"400", "401"}
        assert "nodeName" not in said


async def test_without_an_api_server_the_operator_is_told_in_its_own_words() -> None:
    async with guarded(down=True) as node, node.client.get(f"{node.url}/v1/report", headers=AUTHORIZED) as answer:
        problem = json.loads(await answer.read())
        assert (answer.status, problem["title"]) == (503, "AuthUnavailable")
        assert answer.headers["Retry-After"] == "2"


@pytest.mark.parametrize("name", ["Authorization", "X-Gpudiag-Authorization", "X-Any"])
async def test_an_oversized_header_is_refused_before_anybody_looks_at_it(name: str) -> None:
    async with guarded() as node:
        head = f"GET /v1/report HTTP/1.1\r\nHost: n\r\n{name}: Bearer {'a' * 100_000}\r\n\r\n"
        reader, writer = await _raw(node, head)
        assert (await reader.readline()).split()[1] == b"400"
        writer.close()
        async with node.client.get(f"{node.url}/v1/report", headers=AUTHORIZED) as answer:
            assert answer.status == 200


async def test_two_authorization_headers_are_no_way_around_it() -> None:
    async with guarded() as node:
        head = "GET /v1/report HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer x\r\n"
        head += f"Authorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
        reader, writer = await _raw(node, head)
        assert (await reader.readline()).split()[1] in {b"400", b"401"}
        writer.close()


async def test_the_description_names_the_token_only_where_one_is_asked_for() -> None:
    async with guarded() as node, node.client.get(f"{node.url}/openapi.json", headers=AUTHORIZED) as answer:
        described = await answer.json()
    assert described["components"]["securitySchemes"]["serviceAccountToken"]["scheme"] == "bearer"
    for path, operations in described["paths"].items():
        asked = path.startswith("/v1/")
        assert ("security" in operations["get"]) is asked
        assert ({"401", "403"} <= operations["get"]["responses"].keys()) is asked


async def test_the_plain_description_has_none(node: Node) -> None:
    _, body = await node.get("/openapi.json")
    assert b"serviceAccountToken" not in body


async def _raw(node: Node, head: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = int(node.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode())
    return reader, writer
