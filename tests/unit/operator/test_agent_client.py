"""One call to an agent: every way to misbehave gives its own word, and no agent costs the operator much."""

import asyncio
import gc
import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from gpudiag_api import wire
from gpudiag_api.vocabulary import Capability, Health, NotRead
from gpudiag_api.wire import GPU, MAX_REPORT_BYTES, AgentInfo, CapabilityGap, Report
from gpudiag_operator.collect.agent_client import AgentClient
from gpudiag_operator.collect.classify import Stage
from gpudiag_operator.collect.limiter import Limiter, Slot
from gpudiag_operator.collect.outcome import Answer, FetchError
from gpudiag_operator.collect.routes import DirectRoute
from gpudiag_operator.collect.settings import CollectSettings
from gpudiag_operator.domain import AgentPod

SETTINGS = CollectSettings(node_timeout=0.15, fresh_timeout=0.15)
DATE = "Sat, 31 Jan 2026 09:30:00 GMT"
SAMPLED = "2026-01-31T09:29:55Z"
REPORT = Report(
    version=wire.WIRE_VERSION,
    agent=AgentInfo(version="0.1.0", node_name="n1"),
    sampled_at=SAMPLED,
    health=Health.HEALTHY,
    gpus=(
        GPU(index=0, uuid="GPU-0", pci="0000:3b:00.0", health=Health.HEALTHY),
        GPU(index=1, uuid="GPU-1", pci="0000:3c:00.0", health=Health.HEALTHY),
    ),
)

Behaviour = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes = b"", status: str = "200 OK", *, length: int | None = None, **headers: str | None) -> bytes:
    """One HTTP answer; headers with None are left out."""
    sent: dict[str, str | None] = {
        "Date": DATE,
        "X-Gpudiag-Sampled-At": SAMPLED,
        "Content-Type": "application/json",
        "Content-Length": str(len(body) if length is None else length),
        "ETag": 'W/"1"',
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items() if value is not None)
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def says(data: bytes) -> Behaviour:
    async def behave(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return behave


class Agent:
    """A server on loopback that behaves as told and remembers what it was asked."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.requests: list[str] = []
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.requests.append(head)
                await self.behave(head, writer)
                if writer.is_closing():
                    return
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def header(self, name: str, request: int = -1) -> str | None:
        lines = (line.partition(": ") for line in self.requests[request].split("\r\n"))
        return next((value for key, _, value in lines if key.lower() == name.lower()), None)


@asynccontextmanager
async def agent(behave: Behaviour, host: str = "127.0.0.1") -> AsyncIterator[tuple[Agent, AgentPod]]:
    server = Agent(behave)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(server.serve(reader, writer)))

    listening = await asyncio.start_server(connected, host, 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server, AgentPod(name="a", uid="u", node="n1", ip=host, ready=True, port=server.port)
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def client() -> AsyncIterator[AgentClient]:
    made = AgentClient(SETTINGS, route=DirectRoute(9810), token=lambda: "secret")
    yield made
    await made.close()


async def fetch(client: AgentClient, pod: AgentPod, limiter: Limiter | None = None, **options: Any) -> Answer:
    limiter = limiter or Limiter(1)
    slot = Slot(limiter, urgent=False)
    await slot.hold()
    try:
        return await client.fetch(pod, slot, **{"seconds": SETTINGS.node_timeout, **options})
    finally:
        slot.drop()
        assert limiter.free == 1, "a slot leaked"


GOOD = wire.encode(REPORT)
TWICE = wire.encode(msgspec.structs.replace(REPORT, gpus=(REPORT.gpus[0], REPORT.gpus[0])))
SAME_INDEX = wire.encode(
    msgspec.structs.replace(REPORT, gpus=(REPORT.gpus[0], msgspec.structs.replace(REPORT.gpus[1], index=0)))
)
OTHER_NODE = wire.encode(msgspec.structs.replace(REPORT, agent=AgentInfo(version="0.1.0", node_name="n2")))
NEWER = wire.encode(msgspec.structs.replace(REPORT, version="1.7"))
NEXT = wire.encode(msgspec.structs.replace(REPORT, version="1.1"))
NEWER_WORD = NEXT.replace(b'"health":"Healthy"', b'"health":"Splendid"')
OTHER_MAJOR = json.dumps({"wireVersion": "2.0", "nodes": {"n1": "fine"}}).encode()
DEEP = b'{"wireVersion": "1.0", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BOMB = gzip.compress(b"[" + b" " * (200 << 20), compresslevel=1)
PROBLEM = json.dumps({"title": "AuthUnavailable", "detail": "TokenReview timed out"}).encode()


async def test_reads_a_report(client: AgentClient) -> None:
    async with agent(says(answer(GOOD))) as (server, pod):
        assert await fetch(client, pod) == Answer(report=REPORT, etag='W/"1"')
        assert server.requests[0].startswith("GET /v1/report HTTP/1.1\r\n")
        assert server.header("authorization") == "Bearer secret"
        assert server.header("accept-encoding") == "gzip"


async def test_reads_an_agent_one_minor_version_ahead_without_its_new_fields(client: AgentClient) -> None:
    async with agent(says(answer(NEXT[:-1] + b',"mood":{"good":true}}'))) as (_, pod):
        assert (await fetch(client, pod)).report == msgspec.structs.replace(REPORT, version="1.1")


async def test_reads_gzip(client: AgentClient) -> None:
    packed = answer(gzip.compress(GOOD), Content_Encoding="gzip")
    async with agent(says(packed)) as (_, pod):
        assert (await fetch(client, pod)).report == REPORT


async def test_a_call_leaves_no_cycle_behind(client: AgentClient) -> None:
    """So the garbage collector may rest while thousands of polls are in flight (``calm_garbage_collector``)."""
    unchanged = answer(status="304 Not Modified")

    async def alternate(head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(unchanged if "If-None-Match" in head else answer(GOOD))

    async with agent(alternate) as (_, pod):
        known = (await fetch(client, pod)).report
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                await fetch(client, pod)
                await fetch(client, pod, etag='W/"1"', known=known)
            assert gc.collect() < 100, "less than one object for two calls"
        finally:
            gc.enable()


async def test_speaks_ipv6(client: AgentClient) -> None:
    async with agent(says(answer(GOOD)), host="::1") as (server, pod):
        assert (await fetch(client, pod)).report == REPORT
        assert server.header("host") == f"[::1]:{pod.port}"


async def test_waits_only_with_an_etag(client: AgentClient) -> None:
    async with agent(says(answer(GOOD))) as (server, pod):
        await fetch(client, pod, wait=30.0)
        assert "wait" not in server.requests[0]
        server.behave = says(answer(status="304 Not Modified", length=0))
        told = await fetch(client, pod, wait=30.0, etag='W/"1"', known=REPORT)
        assert told == Answer(report=None, etag='W/"1"')
        assert server.requests[1].startswith("GET /v1/report?wait=30s HTTP/1.1\r\n")
        assert server.header("if-none-match") == 'W/"1"'
        assert server.connections == 1, "one kept connection"


async def test_fresh_reads_use_a_connection_of_their_own(client: AgentClient) -> None:
    async with agent(says(answer(GOOD))) as (server, pod):
        await fetch(client, pod)
        run = "0af76519-16cd-43dd-8448-eb211c80319c"
        await fetch(client, pod, fresh=True, run_id=run)
        await fetch(client, pod)
        assert server.connections == 2
        assert server.requests[1].startswith("GET /v1/report?fresh=true ")
        assert server.header("connection", 1) == "close"
        assert server.header("x-request-id", 1) == run
        assert (server.header("traceparent", 1) or "").startswith("00-0af7651916cd43dd8448eb211c80319c-")


async def test_calls_and_connections_are_counted(client: AgentClient) -> None:
    async with agent(hangs_before(b"")) as (_, pod):
        call = asyncio.create_task(fetch(client, pod))
        async with asyncio.timeout(5):
            while client.calls[Stage.SENT] == 0:
                await asyncio.sleep(0.001)
        assert client.calls == {Stage.CONNECTING: 0, Stage.SENT: 1, Stage.BODY: 0}
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    assert set(client.calls.values()) == {0}
    assert client.opened == 1


async def test_a_wait_for_the_limit_is_counted() -> None:
    limiter = Limiter(1)
    await limiter.acquire(urgent=False)
    waiting = asyncio.create_task(limiter.acquire(urgent=True))
    await asyncio.sleep(0)
    assert (limiter.waiting, limiter.waits) == (1, 1)
    limiter.release()
    await waiting
    assert limiter.waited_seconds > 0


async def test_a_connection_has_a_lifetime() -> None:
    client = AgentClient(CollectSettings(node_timeout=1, connection_lifetime=0.0), route=DirectRoute(9810))
    async with agent(says(answer(GOOD))) as (server, pod):
        await fetch(client, pod)
        assert server.header("connection") == "close"
    await client.close()


def hangs_before(data: bytes) -> Behaviour:
    async def behave(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await asyncio.sleep(60)

    return behave


def closes_after(data: bytes) -> Behaviour:
    async def behave(_: str, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return behave


async def floods(_: str, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(length=100 << 20))
    await send_much(writer)


async def floods_in_chunks(_: str, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(Content_Length=None, Transfer_Encoding="chunked"))
    await send_much(writer, chunked=True)


async def send_much(writer: asyncio.StreamWriter, *, chunked: bool = False) -> None:
    block = b" " * 65536
    for _ in range(1600):
        writer.write(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
        await writer.drain()


MISBEHAVIOURS: dict[str, tuple[Behaviour, NotRead, str]] = {
    "hangs after accepting": (hangs_before(b""), NotRead.TIMEOUT, "did not answer within"),
    "hangs in the head": (hangs_before(b"HTTP/1.1 200 OK\r\nDate:"), NotRead.TIMEOUT, "did not answer within"),
    "hangs in the body": (hangs_before(answer(GOOD[:50], length=len(GOOD))), NotRead.BODY_TIMEOUT, "did not finish"),
    "closes at once": (closes_after(b""), NotRead.CONNECTION_CLOSED, "without an answer"),
    "closes early": (closes_after(answer(GOOD[:50], length=len(GOOD))), NotRead.CONNECTION_CLOSED, "in the middle"),
    "500": (says(answer(b"oops", "500 Internal Server Error")), NotRead.SERVER_ERROR, "HTTP 500"),
    "503": (says(answer(b"", "503 Busy")), NotRead.SERVER_ERROR, "HTTP 503"),
    "auth outage": (says(answer(PROBLEM, "503 Busy")), NotRead.AUTH_UNAVAILABLE, "TokenReview timed out"),
    "401": (says(answer(b"", "401 Unauthorized")), NotRead.UNAUTHORIZED, "HTTP 401"),
    "403": (says(answer(b"", "403 Forbidden")), NotRead.UNAUTHORIZED, "HTTP 403"),
    "404": (says(answer(b"", "404 Not Found")), NotRead.BAD_RESPONSE, "HTTP 404"),
    "redirects": (says(answer(b"", "302 Found", Location="http://127.0.0.1:1/")), NotRead.BAD_RESPONSE, "HTTP 302"),
    "304 unasked": (says(answer(status="304 Not Modified")), NotRead.BAD_RESPONSE, "HTTP 304"),
    "HTML": (says(answer(b"<html>hi</html>", Content_Type="text/html")), NotRead.NOT_JSON, "text/html"),
    "empty": (says(answer(b"")), NotRead.NOT_JSON, "not JSON"),
    "not HTTP": (closes_after(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), NotRead.BAD_RESPONSE, "does not speak HTTP"),
    "other JSON": (says(answer(b'{"hello": 1}')), NotRead.BAD_RESPONSE, "wireVersion"),
    "deep JSON": (says(answer(DEEP)), NotRead.BAD_RESPONSE, "nested too deeply"),
    "broken UTF-8": (says(answer(GOOD.replace(b"GPU-0", b"GP\xff-0"))), NotRead.NOT_JSON, "not JSON"),
    "100 MB": (floods, NotRead.RESPONSE_TOO_LARGE, "larger than"),
    "100 MB in chunks": (floods_in_chunks, NotRead.RESPONSE_TOO_LARGE, "larger than"),
    "gzip bomb": (says(answer(BOMB, Content_Encoding="gzip")), NotRead.RESPONSE_TOO_LARGE, "larger than"),
    "false gzip": (says(answer(GOOD, Content_Encoding="gzip")), NotRead.BAD_RESPONSE, "gzip"),
    "half gzip": (says(answer(gzip.compress(GOOD)[:-9], Content_Encoding="gzip")), NotRead.BAD_RESPONSE, "incomplete"),
    "brotli": (says(answer(GOOD, Content_Encoding="br")), NotRead.BAD_RESPONSE, "'br'"),
    "much newer": (says(answer(NEWER)), NotRead.AGENT_VERSION_SKEW, "'1.7'"),
    "a newer word": (says(answer(NEWER_WORD)), NotRead.AGENT_VERSION_SKEW, "'1.1'"),
    "other major": (says(answer(OTHER_MAJOR)), NotRead.AGENT_VERSION_SKEW, "'2.0'"),
    "another node": (says(answer(OTHER_NODE)), NotRead.IDENTITY_MISMATCH, "'n2'"),
    "one GPU twice": (says(answer(TWICE)), NotRead.BAD_RESPONSE, "twice"),
    "one index twice": (says(answer(SAME_INDEX)), NotRead.BAD_RESPONSE, "twice"),
    "stale": (says(answer(GOOD, X_Gpudiag_Sampled_At="2026-01-31T09:28:59Z")), NotRead.STALE_SAMPLE, "61s old"),
    "odd time": (says(answer(GOOD, X_Gpudiag_Sampled_At="yesterday")), NotRead.BAD_RESPONSE, "Sampled-At"),
}


@pytest.mark.parametrize("name", MISBEHAVIOURS)
async def test_each_misbehaviour_has_its_word(client: AgentClient, name: str) -> None:
    behave, reason, text = MISBEHAVIOURS[name]
    async with agent(behave) as (_, pod):
        with pytest.raises(FetchError) as caught:
            await fetch(client, pod)
    assert caught.value.reason is reason
    assert text in caught.value.message
    assert "; " in caught.value.message, "says what to do"


async def test_a_closed_port_refuses(client: AgentClient) -> None:
    async with agent(says(b"")) as (_, pod):
        pass
    with pytest.raises(FetchError) as caught:
        await fetch(client, pod)
    assert caught.value.reason is NotRead.CONNECTION_REFUSED


@pytest.mark.parametrize("name", ["100 MB", "100 MB in chunks", "gzip bomb"])
async def test_large_answers_cost_little_memory(client: AgentClient, name: str) -> None:
    async with agent(MISBEHAVIOURS[name][0]) as (_, pod):
        tracemalloc.start()
        try:
            with pytest.raises(FetchError):
                await fetch(client, pod)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 8 * MAX_REPORT_BYTES


async def test_hostile_words_are_made_fit_for_a_message(client: AgentClient) -> None:
    body = json.dumps({"detail": "\x1b[31m\nall is well" + "x" * 5000}).encode()
    async with agent(says(answer(body, "500 Oops"))) as (_, pod):
        with pytest.raises(FetchError) as caught:
            await fetch(client, pod)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("interval", "sampled", "stale"),
    [
        (10.0, "2026-01-31T09:29:00Z", False),
        (10.0, "2026-01-31T09:28:59Z", True),
        (60.0, "2026-01-31T09:27:01Z", False),
        (60.0, "2026-01-31T09:26:59Z", True),
    ],
)
async def test_staleness_follows_the_sampling_interval_and_holds_for_304(
    client: AgentClient, interval: float, sampled: str, stale: bool
) -> None:
    about = AgentInfo(version="0.1.0", node_name="n1", sampling_interval_seconds=interval)
    known = msgspec.structs.replace(REPORT, agent=about)
    for data in (
        answer(wire.encode(known), X_Gpudiag_Sampled_At=sampled),
        answer(status="304 Not Modified", X_Gpudiag_Sampled_At=sampled),
    ):
        async with agent(says(data)) as (_, pod):
            try:
                await fetch(client, pod, etag='W/"1"', known=known)
                got = None
            except FetchError as error:
                got = error.reason
            assert got is (NotRead.STALE_SAMPLE if stale else None)


async def test_an_agent_that_says_why_is_not_stale(client: AgentClient) -> None:
    hung = msgspec.structs.replace(REPORT, capabilities=(CapabilityGap(reason=Capability.DRIVER_HUNG),))
    data = answer(wire.encode(hung), X_Gpudiag_Sampled_At="2026-01-31T08:00:00Z")
    async with agent(says(data)) as (_, pod):
        assert (await fetch(client, pod)).report == hung


async def test_a_token_that_cannot_be_read_is_not_the_agents_fault() -> None:
    def unreadable() -> str:
        raise FileNotFoundError(2, "No such file or directory")

    client = AgentClient(SETTINGS, route=DirectRoute(9810), token=unreadable)
    async with agent(says(answer(GOOD))) as (server, pod):
        with pytest.raises(FetchError) as caught:
            await fetch(client, pod)
        assert not server.requests
    await client.close()
    assert caught.value.reason is NotRead.AUTH_UNAVAILABLE
    assert caught.value.ignored


async def test_a_request_without_a_first_byte_holds_no_slot(client: AgentClient) -> None:
    """With one slot, a thousand waiting polls would otherwise starve the one that has news."""
    news = asyncio.Event()

    async def late(_: str, writer: asyncio.StreamWriter) -> None:
        await news.wait()
        writer.write(answer(GOOD))

    limiter = Limiter(1)
    async with agent(late) as (_, slow), agent(says(answer(GOOD))) as (_, quick):
        one = Slot(limiter, urgent=False)
        await one.hold()
        waiting = asyncio.create_task(client.fetch(slow, one, seconds=10))
        other = Slot(limiter, urgent=False)
        async with asyncio.timeout(5):
            await other.hold()  # free as soon as the first request is sent
            assert (await client.fetch(quick, other, seconds=5)).report == REPORT
            news.set()
            await other.hold()
            await asyncio.sleep(0.05)
            assert not waiting.done(), "reading needs the slot"
            other.drop()
            assert (await waiting).report == REPORT
        one.drop()
    assert limiter.free == 1


async def test_waiting_for_the_slot_is_not_on_the_nodes_clock(client: AgentClient) -> None:
    limiter = Limiter(1)
    async with agent(says(answer(GOOD))) as (_, pod):
        slot = Slot(limiter, urgent=False)
        await slot.hold()
        reading = asyncio.create_task(client.fetch(pod, slot, seconds=SETTINGS.node_timeout))
        other = Slot(limiter, urgent=False)
        await other.hold()
        await asyncio.sleep(2 * SETTINGS.node_timeout)
        other.drop()
        assert (await reading).report == REPORT
        slot.drop()


async def test_a_cancelled_call_closes_its_connection(client: AgentClient) -> None:
    async with agent(hangs_before(answer(GOOD[:50], length=len(GOOD)))) as (server, pod):
        call = asyncio.create_task(fetch(client, pod, seconds=60.0))
        while not server.requests:
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        server.behave = says(answer(GOOD))
        assert (await fetch(client, pod)).report == REPORT
        assert server.connections == 2
