"""Clients that are slow, silent or crooked: each is ended or refused in its time, and the agent goes on answering."""

import asyncio
import contextlib
import logging
import socket
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from tests.unit.agent.served_node import Node
from tests.unit.agent.tls_world import NAME, believing, pair, put, tls_node

from gpudiag_agent import logs, options, patience
from gpudiag_agent.serving import Serving

GET = b"GET /v1/report HTTP/1.1\r\nHost: n\r\n"
SOON = 0.05


class PlainNode(Node):
    """A node behind Serving, without TLS."""

    port: int
    health: int
    connections: Callable[[], list[web.RequestHandler]]


@asynccontextmanager
async def plain_node(*, large: bool = False, tls: Path | None = None) -> AsyncIterator[PlainNode]:
    """Served as the command serves it; ``large`` adds a page of 8 MiB at /large, ``tls`` has certificates."""
    node = PlainNode()
    with socket.create_server(("127.0.0.1", 0)) as free:
        node.health = free.getsockname()[1]
    secured = () if tls is None else ("--tls-cert-dir", str(tls))
    asked = options.parse(("--host", "127.0.0.1", "--health-port", str(node.health), *secured), {})
    serving, application = Serving(asked, clock=node.clock), node.server.application()
    if large:
        application.router.add_get("/large", _large)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, **patience.NO_BODIES)
    await runner.setup()
    sock = socket.create_server(("127.0.0.1", 0))
    node.port = sock.getsockname()[1]
    node.url = f"http://127.0.0.1:{node.port}"
    served = runner.server
    assert served is not None
    node.connections = lambda: served.connections
    parts = [asyncio.create_task(part) for part in await serving.start(runner, sock, node.server.probes())]
    await node.look()
    try:
        async with aiohttp.ClientSession() as node.client:
            yield node
    finally:
        for part in parts:
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
        await serving.close()
        await runner.cleanup()
        sock.close()


async def _large(_: web.Request) -> web.Response:
    return web.Response(body=b"x" * (8 << 20))


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext | None = None) -> AsyncIterator[Streams]:
    name = NAME if context else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What was said until the other side hung up."""
    async with asyncio.timeout(5):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def answers(node: Node) -> None:
    assert (await node.get("/v1/report"))[0].status == 200


async def drip(writer: asyncio.StreamWriter, what: bytes) -> None:
    """A byte at a time, until nobody takes it."""
    try:
        for byte in what:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(SOON / 10)
    except ConnectionError:
        pass


class TestSlow:
    """Each step of a client has its time."""

    @pytest.fixture(autouse=True)
    def _soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(patience, "HEAD_SECONDS", SOON)
        monkeypatch.setattr(patience, "UNREAD_SECONDS", SOON)
        monkeypatch.setitem(patience.NO_BODIES, "lingering_time", SOON)

    @pytest.mark.parametrize("sent", [b"", b"\r\n", b"G", GET, GET + b"X-Any: "])
    async def test_a_head_that_does_not_end_is_ended(self, sent: bytes) -> None:
        async with plain_node() as node:
            for port in (node.port, node.health):
                async with connected(port) as (reader, writer):
                    writer.write(sent)
                    assert await ended(reader) == b""
            await answers(node)

    async def test_bytes_now_and_then_buy_no_time(self) -> None:
        async with plain_node() as node, connected(node.port) as (reader, writer):
            dripping = asyncio.create_task(drip(writer, GET + b"X-Any: " + b"a" * 1000))
            assert await ended(reader) == b""
            await dripping

    async def test_the_same_holds_for_the_next_request_of_a_connection(self) -> None:
        async with plain_node() as node, connected(node.port) as (reader, writer):
            writer.write(GET + b"\r\n")
            async with asyncio.timeout(5):
                assert (await reader.readline()).split()[1] == b"200"
            writer.write(b"GET /v1")
            await ended(reader)

    @pytest.mark.parametrize("pause", [False, True], ids=["at once", "later"])
    async def test_half_a_request_behind_a_whole_one_is_ended_after_that_was_answered(self, pause: bool) -> None:
        async with plain_node() as node, connected(node.port) as (reader, writer):
            writer.write(GET + b"\r\n")
            if pause:
                await asyncio.sleep(0)
            writer.write(b"GET /v1")
            said = await ended(reader)
            assert said.startswith(b"HTTP/1.1 200")
            assert said.count(b"HTTP/1.1") == 1

    async def test_over_tls_too(self, tmp_path: Path) -> None:
        made = pair()
        put(tmp_path, made)
        async with tls_node(tmp_path) as node, connected(node.port, believing(made)) as (reader, writer):
            writer.write(GET)
            assert await ended(reader) == b""

    async def test_an_idle_connection_and_a_long_poll_are_not_slow(self) -> None:
        async with plain_node() as node:
            answer, _ = await node.get("/v1/report")
            assert answer.status == 200
            waited, _ = await node.get("/v1/report?wait=200ms", If_None_Match=answer.headers["ETag"])
            assert waited.status == 304, "longer than a head may take"
            assert node.client.connector is not None
            assert len(node.client.connector._conns) == 1, "the same connection"

    @pytest.mark.parametrize("body", [b"", b"half", b"5\r\nha"])
    async def test_a_body_that_does_not_come_is_not_waited_for(self, body: bytes) -> None:
        size = b"Transfer-Encoding: chunked" if b"\r\n" in body else b"Content-Length: 100000000"
        async with plain_node() as node, connected(node.port) as (reader, writer):
            writer.write(b"POST /v1/report HTTP/1.1\r\nHost: n\r\n" + size + b"\r\n\r\n" + body)
            assert (await ended(reader)).startswith(b"HTTP/1.1 405")

    @pytest.mark.parametrize("secured", [False, True], ids=["plain", "TLS"])
    async def test_an_answer_that_nobody_reads_is_not_kept(self, secured: bool, tmp_path: Path) -> None:
        made = pair()
        put(tmp_path, made)
        async with (
            plain_node(large=True, tls=tmp_path if secured else None) as node,
            connected(node.port, believing(made) if secured else None) as (_, writer),
        ):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"GET /large HTTP/1.1\r\nHost: n\r\n\r\n")
            async with asyncio.timeout(5):
                while not (seen := node.connections()):
                    await asyncio.sleep(0)
                while node.connections():
                    await asyncio.sleep(SOON / 10)
            assert seen


class TestCrooked:
    """Requests that a proxy before the agent could read in another way than it does."""

    SMUGGLED = b"GET /v1/processes HTTP/1.1\r\nHost: n\r\n\r\n"

    @pytest.mark.parametrize(
        "head",
        [
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Content-Length: 5\r\nContent-Length: 6\r\n",
            b"Content-Length: +5\r\n",
            b"Content-Length: 5, 5\r\n",
            b"Content-Length: -1\r\n",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            b"Transfer-Encoding: xchunked\r\n",
            b"Transfer-Encoding : chunked\r\n",
            b"Transfer-Encoding:\x0bchunked\r\n",
            b"X: y\r\n continued: z\r\n",
            b"X: y\nTransfer-Encoding: chunked\r\n",
            b"X: y\rTransfer-Encoding: chunked\r\n",
            b"X: a\x00b\r\n",
            b": nameless\r\n",
        ],
    )
    async def test_a_head_of_two_readings_is_refused_and_what_follows_it_is_not_answered(self, head: bytes) -> None:
        async with plain_node() as node:
            async with connected(node.port) as (reader, writer):
                writer.write(GET + head + b"\r\n" + b"0\r\n\r\n" + self.SMUGGLED)
                said = await ended(reader)
                assert said.count(b"HTTP/1.") == 1
                assert said.split()[1] == b"400"
                assert b"nodeName" not in said
            await answers(node)

    @pytest.mark.parametrize(
        "head",
        [
            GET + b"".join(b"X-%d: y\r\n" % number for number in range(1000)) + b"\r\n",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: n\r\n\r\n",
            b"A" * 100_000 + b" / HTTP/1.1\r\nHost: n\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
            b"GET /v1/report HTTP/9.9\r\nHost: n\r\n\r\n",
        ],
        ids=["many headers", "long path", "long method", "TLS to a plain port", "a version there is not"],
    )
    async def test_what_is_no_request_of_ours_is_refused(self, head: bytes) -> None:
        async with plain_node() as node:
            async with connected(node.port) as (reader, writer):
                writer.write(head)
                said = await ended(reader)
                assert not said or said.split()[1] == b"400"
            await answers(node)

    @pytest.mark.parametrize(
        "path",
        [
            "/../../../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/..%2f..%2fetc%2fpasswd",
            "//etc/passwd",
            "/v1/report/../../../etc/passwd",
            "/healthz/%2e%2e/etc/passwd",
            "/etc/passwd%00",
            "file:///etc/passwd",
        ],
    )
    async def test_no_path_leads_to_a_file_of_the_host(self, path: str) -> None:
        async with plain_node() as node:
            for port in (node.port, node.health):
                async with connected(port) as (reader, writer):
                    writer.write(f"GET {path} HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n".encode())
                    said = await ended(reader)
                    assert said.split()[1] in {b"400", b"404"}
                    assert b"root:" not in said

    async def test_a_body_that_unpacks_to_much_is_not_unpacked(self) -> None:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        bomb = packer.compress(bytes(64 << 20)) + packer.flush()
        async with plain_node() as node:
            tracemalloc.start()
            try:
                headers = {"Content-Encoding": "gzip"}
                async with node.client.post(f"{node.url}/v1/report", data=bomb, headers=headers) as answer:
                    assert answer.status == 405
                await answers(node)
                assert tracemalloc.get_traced_memory()[1] < 1 << 20
            finally:
                tracemalloc.stop()


async def test_plain_connections_are_bounded_in_number() -> None:
    async with plain_node() as node, contextlib.AsyncExitStack() as stack:
        for _ in range(16):
            reader, writer = await stack.enter_async_context(connected(node.health))
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: n\r\n\r\n")
            assert (await reader.readline()).split()[1] == b"200"
        reader, _ = await stack.enter_async_context(connected(node.health))
        assert await ended(reader) == b""


async def test_a_large_answer_comes_whole() -> None:
    async with plain_node(large=True) as node:
        answer, body = await node.get("/large")
        assert (answer.status, len(body)) == (200, 8 << 20)


async def test_nonsense_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("aiohttp.server"), "filters", [])
    for said in (1, 0):
        if not said:
            logs.skip_malformed_requests()
            caplog.clear()
        async with plain_node() as node, connected(node.port) as (reader, writer):
            writer.write(GET + b"Content-Length: nonsense\r\n\r\n")
            await ended(reader)
        assert len([one for one in caplog.records if one.name == "aiohttp.server"]) == said
