"""The door of the HTTP transport, with the real server on loopback over an API server in memory."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from opentelemetry import propagate
from tests.unit.mcp.test_identity import ReviewingAPI
from tests.unit.mcp.world import node, service

from gpudiag_mcp import tracing
from gpudiag_mcp.identity.buckets import Buckets
from gpudiag_mcp.identity.rights import Rights
from gpudiag_mcp.identity.tokens import Tokens
from gpudiag_mcp.kube.api import JSONObject, Resource
from gpudiag_mcp.kube.errors import ApiError
from gpudiag_mcp.metrics import Metrics
from gpudiag_mcp.options import CannotStartError, Options
from gpudiag_mcp.server.app import build_server
from gpudiag_mcp.server.http import callers, keep_warm, state_security, web_app
from gpudiag_mcp.server.tools import READ_ONLY
from gpudiag_mcp.web.gate import Gate, Limits
from gpudiag_mcp.web.health import readiness
from gpudiag_mcp.web.hosts import allowed_hosts
from gpudiag_mcp.web.patience import PatientProtocol
from gpudiag_mcp.web.rejection import Message, Receive, Scope, Send
from gpudiag_mcp.web.serving import Server, listen, metrics_page, serving

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
ACCEPT = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "get_gpu_health", "arguments": {}}}
INVENTORY = {"name": "describe_gpu_node", "arguments": {"node": "gpu-secret"}}
_NAMED = {"namespace": "team-a", "name": "d1"}
_ONE = ("get_gpu_diagnostic", "wait_for_gpu_diagnostic")
EVERY_READ: list[dict[str, Any]] = [
    {"name": spec.name, "arguments": _NAMED if spec.name in _ONE else arguments}
    for spec in READ_ONLY
    for arguments in ({}, {"node": "gpu-secret"})
]
READS: set[tuple[str, ...]] = {("alice", verb, "gpunodes", "", "") for verb in ("get", "list")} | {
    ("alice", "list", "gpudiagnostics", "", "")
}


class TracedAPI(ReviewingAPI):
    """Notes the trace context that a request to the API server would carry."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        super().__init__(*objects)
        self.traced: list[dict[str, str]] = []

    async def create(self, resource: Resource, body: JSONObject, **options: Any) -> bytes:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        self.traced.append(carrier)
        return await super().create(resource, body, **options)


@asynccontextmanager
async def facade(api: ReviewingAPI, *, token: str = "t-alice", **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    one = service(api)
    app = web_app(
        one,
        Options(transport="http", **options),
        tokens=Tokens(api, audience="gpudiag-mcp") if options.get("auth") != "none" else None,
        security=state_security(None),
    )
    at = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{at.getsockname()[1]}"
    headers = {**ACCEPT, **({"Authorization": f"Bearer {token}"} if token else {})}
    async with (
        one.running(),
        serving(Server(app, stop_seconds=1), at),
        httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=5) as client,
    ):
        client.metrics = one.metrics  # type: ignore[attr-defined]
        yield client


def result(answer: httpx2.Response) -> dict[str, Any]:
    """The result of a call, from JSON or from a stream of events."""
    assert answer.status_code == 200, answer.text
    text = answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        text = next(line for line in text.splitlines() if line.startswith("data: {")).removeprefix("data: ")
    found: dict[str, Any] = json.loads(text)["result"]
    return found


class TestTraces:
    async def test_the_clients_trace_goes_on_to_the_api_server_as_a_span_of_our_own(self) -> None:
        api = TracedAPI(node("gpu-a"))
        api.rights = READS
        async with facade(api) as client:
            headers = {"traceparent": PARENT, "tracestate": "vendor=x"}
            answer = await client.post("/mcp", json=CALL, headers=headers)
        assert not result(answer).get("isError")
        assert answer.headers["x-request-id"] == TRACE
        assert len(api.traced) >= 2
        for carrier in api.traced:
            version, trace_id, span, flags = carrier["traceparent"].split("-")
            assert (version, trace_id, flags) == ("00", TRACE, "01")
            assert span != PARENT.split("-")[2]
            assert carrier["tracestate"] == "vendor=x"

    async def test_the_trace_of_the_message_wins_over_that_of_the_connection(self) -> None:
        api = TracedAPI(node("gpu-a"))
        api.rights = READS
        inner = "11111111111111111111111111111111"
        params = {**CALL["params"], "_meta": {"traceparent": f"00-{inner}-2222222222222222-00"}}  # type: ignore[dict-item]
        async with facade(api) as client:
            await client.post("/mcp", json={**CALL, "params": params}, headers={"traceparent": PARENT})
        assert {carrier["traceparent"].split("-")[1] for carrier in api.traced} == {TRACE, inner}

    async def test_without_a_parent_each_call_is_a_trace_on_every_transport(self) -> None:
        api = TracedAPI(node("gpu-a"))
        one = service(api, allow_create=True, unattended=True)
        async with one.running(), Client(build_server(one)) as client:
            for name in ("first", "second"):
                arguments = {"node": "gpu-a", "name": name, "dry_run": True, "wait_s": 0}
                assert not (await client.call_tool("create_gpu_diagnostic", arguments)).is_error
        traces = [carrier.get("traceparent", "-").split("-")[1] for carrier in api.traced]
        assert len(set(traces)) == 2
        assert all(len(trace) == 32 for trace in traces)

    @pytest.mark.parametrize("bad", ["", "00-0-0-0", f"ff-{TRACE}-00f067aa0ba902b7-01", "x" * 5000])
    def test_what_is_no_traceparent_begins_a_trace(self, bad: str) -> None:
        with tracing.continued({"traceparent": bad}), tracing.call() as trace_id:
            assert trace_id != TRACE
            assert int(trace_id, 16) > 0
            assert len(trace_id) == 32


class TestLimits:
    async def test_calls_beyond_the_rate_are_told_to_wait_by_the_tool(self) -> None:
        api = ReviewingAPI(node("gpu-a"))
        api.rights = READS
        async with facade(api, calls_per_minute=8) as client:
            answers = [result(await client.post("/mcp", json=CALL)) for _ in range(3)]
            metrics: Metrics = client.metrics  # type: ignore[attr-defined]
            assert metrics.registry.get_sample_value("mcp_rate_limited_total", {"what": "call"}) == 1
        assert [one.get("isError", False) for one in answers] == [False, False, True]
        assert answers[2]["content"][0]["text"].startswith("TooManyRequests: ")
        assert "Repeat this one in" in answers[2]["content"][0]["text"]

    async def test_requests_far_beyond_it_do_not_reach_the_protocol(self) -> None:
        async with facade(ReviewingAPI(), calls_per_minute=1) as client:
            listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
            statuses = [(await client.post("/mcp", json=listing)).status_code for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2

    async def test_principals_do_not_share_a_limit(self) -> None:
        async with facade(ReviewingAPI(), calls_per_minute=1) as client:
            listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
            for _ in range(6):
                await client.post("/mcp", json=listing)
            api_users = {"Authorization": "Bearer t-bob"}
            assert (await client.post("/mcp", json=listing, headers=api_users)).status_code == 401

    async def test_requests_at_once_are_bounded_for_each_and_for_all(self) -> None:
        metrics, go = Metrics(), asyncio.Event()

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            await go.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        gate = gate_of(slow, metrics=metrics, limits=Limits(at_once=3, at_once_each=2))
        working = [asyncio.create_task(ask(gate, token)) for token in ("t-alice", "t-alice", "t-alice", "t-bob")]
        await asyncio.sleep(0.02)
        refused = await ask(gate, "t-bob")
        go.set()
        assert [await one for one in working] == [200, 200, 429, 200]
        assert refused == 503
        assert await ask(gate, "t-alice") == 200, "what has ended makes room"

    @pytest.mark.parametrize("kind", [b"", b"text/plain", b"application/x-www-form-urlencoded"])
    async def test_what_does_not_say_that_it_is_json_is_refused(self, kind: bytes) -> None:
        async def protocol(*_: object) -> None:
            raise AssertionError("it got through")

        assert await ask(gate_of(protocol, limits=Limits()), headers=[(b"content-type", kind)]) == 415

    async def test_a_body_is_bounded_in_size_and_time(self) -> None:
        reached: list[Scope] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            reached.append(scope)

        gate = gate_of(app, limits=Limits(body_bytes=10, body_seconds=0.05))
        part: Message = {"type": "http.request", "body": b"x" * 6, "more_body": True}
        assert await ask(gate, messages=[part, part]) == 413
        assert await ask(gate, messages=[], headers=[(b"content-length", b"11")]) == 413
        assert await ask(gate, messages=[part]) == 408
        assert await ask(gate, messages=[part, {"type": "http.disconnect"}]) == 400
        assert not reached

    async def test_headers_that_never_end_are_hung_up_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(PatientProtocol, "header_seconds", 0.2)
        at = listen("127.0.0.1", 0)
        async with serving(Server(metrics_page(Metrics().registry)), at):
            reader, writer = await asyncio.open_connection("127.0.0.1", at.getsockname()[1])
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" in await reader.readline()
            await reader.readuntil(b"0\r\n\r\n")
            async with asyncio.timeout(2):
                with suppress(ConnectionError):  # what is sent after the end is answered by a reset
                    for _ in range(100):
                        writer.write(b"G")
                        await writer.drain()
                        await asyncio.sleep(0.01)
                        if reader.at_eof():
                            break
                    assert await reader.read() == b""
            assert reader.at_eof() or reader.exception() is not None, "hung up on, and in time"
            writer.close()

    async def test_headers_are_bounded_in_size(self) -> None:
        async with facade(ReviewingAPI()) as client:
            answer = await client.post("/mcp", json=CALL, headers={"X-Large": "x" * (40 << 10)})
        assert answer.status_code == 431


class TestWhoCalls:
    async def test_without_authentication_everyone_is_the_process(self) -> None:
        api = ReviewingAPI(node("gpu-a"))
        async with facade(api, token="", auth="none") as client:
            answer = result(await client.post("/mcp", json=CALL))
        assert answer["structuredContent"]["source"]["identity"] == "tester"
        assert not api.reviews

    async def test_a_call_that_comes_from_nowhere_is_refused(self) -> None:
        one = service(ReviewingAPI())
        caller_of = callers(one, Buckets(per_minute=60, burst=9), authenticated=True)
        with pytest.raises(Exception, match="the caller is not known"):
            await caller_of()

    async def test_what_is_cached_is_forbidden_without_the_callers_own_right(self) -> None:
        api = ReviewingAPI(node("gpu-secret"))
        api.users["t-bob"] = "bob"
        api.rights = READS
        async with facade(api) as client:
            assert "gpu-secret" in (await client.post("/mcp", json={**CALL, "params": INVENTORY})).text
            bob = {"Authorization": "Bearer t-bob"}
            for params in EVERY_READ:
                answer = result(await client.post("/mcp", json={**CALL, "params": params}, headers=bob))
                assert answer["isError"], params
                assert answer["content"][0]["text"].startswith("Forbidden: bob may not"), params
            read = {**CALL, "method": "resources/read", "params": {"uri": "gpudiag://fleet"}}
            assert "Forbidden: bob" in (await client.post("/mcp", json=read, headers=bob)).text
            about = {"ref": {"type": "ref/prompt", "name": "gpu-triage"}, "argument": {"name": "node", "value": ""}}
            complete = {**CALL, "method": "completion/complete", "params": about}
            done = result(await client.post("/mcp", json=complete, headers=bob))
            assert done["completion"]["values"] == []
        assert api.lists == 2, "all of this came from one copy of each collection"

    async def test_the_lease_is_only_for_those_who_may_get_it(self) -> None:
        api = ReviewingAPI(node("gpu-a"))
        api.rights = READS
        async with facade(api) as client:
            hidden = result(await client.post("/mcp", json=CALL))["structuredContent"]["source"]
        api.rights = READS | {("alice", "get", "leases", "gpudiag-system", "gpudiag-operator")}
        async with facade(api) as client:
            shown = result(await client.post("/mcp", json=CALL))["structuredContent"]["source"]
        assert hidden["freshness"] == "Unknown"
        assert "get leases" in hidden["freshness_reason"]
        assert shown["freshness"] == "Fresh"

    async def test_probes_need_no_token_and_tell_no_addresses(self) -> None:
        async with facade(ReviewingAPI(node("gpu-a")), token="") as client:
            assert (await client.get("/healthz")).status_code == 200
            early = await client.get("/readyz")
        assert (early.status_code, early.json()["backends"]) == (503, [])

    async def test_the_cache_is_kept_open_and_a_refusal_is_asked_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gpudiag_mcp.server.http.RETRY_SECONDS", 0.0)
        api = ReviewingAPI(node("gpu-a"))
        api.refuse["list", "gpunodes"] = ApiError(403, "Forbidden")
        one = service(api)
        async with one.running(), asyncio.timeout(5):
            warm = asyncio.create_task(keep_warm(one))
            while not one.caches.opened():
                await asyncio.sleep(0)
            ready, detail = readiness(one.caches.opened())
            assert not ready
            assert detail["backends"][0]["gpunodes"] == {"state": "Refused", "status": 403}
            api.refuse.clear()
            while not readiness(one.caches.opened())[0]:
                await asyncio.sleep(0)
            warm.cancel()


class TestHosts:
    @pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "::"])
    async def test_whatever_the_address_a_foreign_host_is_misdirected(self, host: str) -> None:
        async with facade(ReviewingAPI(), host=host) as client:
            assert (await client.post("/mcp", json=CALL, headers={"Host": "evil.example"})).status_code == 421

    def test_the_names_of_the_service_are_allowed(self) -> None:
        hosts = allowed_hosts(Options(service_name="gpus", namespace="ops", allowed_hosts=("mcp.example.com",)))
        assert {"localhost:*", "gpus", "gpus.ops:*", "gpus.ops.svc.cluster.local:*", "mcp.example.com"} <= set(hosts)
        assert "*" not in hosts


class TestStateKeys:
    def test_keys_are_read_one_a_line(self, tmp_path: Path) -> None:
        file = tmp_path / "keys"
        file.write_text(f"{'a' * 32}\n{'b' * 64}\n")
        one, other = state_security(file), state_security(file)
        assert other.codec.unseal(one.codec.seal(b"state")) == b"state"

    @pytest.mark.parametrize("text", ["", "short", f"{'a' * 32}\nshort"])
    def test_weak_keys_are_refused(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "keys"
        file.write_text(text)
        with pytest.raises(CannotStartError, match="openssl rand -hex 32"):
            state_security(file)


def gate_of(app: Any, *, metrics: Metrics | None = None, limits: Limits) -> Gate:
    api = ReviewingAPI()
    api.users["t-bob"] = "bob"
    return Gate(
        app,
        path="/mcp",
        tokens=Tokens(api, audience="gpudiag-mcp"),
        rights=Rights(),
        requests=Buckets(per_minute=600, burst=100),
        metrics=metrics or Metrics(),
        limits=limits,
    )


async def ask(
    gate: Gate,
    token: str = "t-alice",
    *,
    messages: list[Message] | None = None,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> int:
    """The status of an answer to a request whose body arrives as these messages, then nothing more."""
    coming = list(messages) if messages is not None else [{"type": "http.request", "body": b"{}", "more_body": False}]
    statuses: list[int] = []

    async def receive() -> Message:
        if coming:
            return coming.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if "status" in message:
            statuses.append(message["status"])

    kind = (b"content-type", b"application/json; charset=utf-8")
    own = [(b"authorization", f"Bearer {token}".encode()), kind, *(headers or [])]
    await gate({"type": "http", "method": "POST", "path": "/mcp", "headers": own}, receive, send)
    return statuses[0]
