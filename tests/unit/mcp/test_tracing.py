"""Spans of the facade: requests of ours, messages of the MCP SDK, in the client's trace, exported where wanted."""

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from mcp.shared import _otel
from tests.unit.mcp.test_gate import CALL, PARENT, READS, TRACE, TracedAPI, facade, result
from tests.unit.mcp.world import node
from tests.unit.otlp_receiver import Receiver, ended, receiving

from gpudiag_mcp import otlp, tracing


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        yield receiver


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, collector: Receiver) -> otlp.Export:
    """As ``tracing.exported`` does it, but for this test only: a global provider cannot be taken back."""
    made = otlp.Export()
    for module in (_otel, tracing):
        monkeypatch.setattr(module, "_tracer", made.provider.get_tracer("test"))
    return made


async def test_a_call_is_a_span_of_the_clients_trace_down_to_the_api_server(
    collector: Receiver, export: otlp.Export
) -> None:
    api = TracedAPI(node("gpu-a"))
    api.rights = READS
    async with facade(api) as client:
        answer = await client.post("/mcp", json=CALL, headers={"traceparent": PARENT})
    await asyncio.to_thread(export.stop, 5)
    assert not result(answer).get("isError")

    assert {span.service for span in collector.spans} == {"gpudiag-mcp"}
    assert {span.trace for span in collector.spans} == {TRACE}
    (request,), (message,) = collector.named("/mcp"), collector.named("tools/call get_gpu_health")
    assert request.parent == PARENT.split("-")[2]
    assert request.about == {"http.request.method": "POST", "url.path": "/mcp", "http.response.status_code": 200}
    assert message.parent == request.id
    assert message.about["gen_ai.tool.name"] == "get_gpu_health"
    told = [tuple(carrier["traceparent"].split("-")[1:3]) for carrier in api.traced]
    assert set(told) <= {(TRACE, span.id) for span in collector.spans}, "the API server is told a span that exists"
    assert told


async def test_who_is_refused_is_a_span_too_and_begins_a_trace(collector: Receiver, export: otlp.Export) -> None:
    async with facade(TracedAPI(node("gpu-a")), token="") as client:
        answer = await client.post("/mcp", json=CALL)
    await asyncio.to_thread(export.stop, 5)
    (span,) = collector.spans
    assert (span.trace, span.parent, span.error) == (answer.headers["x-request-id"], "", None)
    assert span.about["http.response.status_code"] == answer.status_code == 401


async def test_a_trace_that_its_client_does_not_record_is_not_recorded_here(
    collector: Receiver, export: otlp.Export
) -> None:
    async with facade(TracedAPI(node("gpu-a")), token="") as client:
        answer = await client.post("/mcp", json=CALL, headers={"traceparent": PARENT[:-2] + "00"})
    await asyncio.to_thread(export.stop, 5)
    assert collector.spans == []
    assert answer.headers["x-request-id"] == TRACE


async def test_names_that_clients_choose_are_cut(collector: Receiver, export: otlp.Export) -> None:
    long = "x" * 100_000
    async with facade(TracedAPI(node("gpu-a"))) as client:
        for call in (
            {**CALL, "params": {"name": long, "arguments": {}}},
            {**CALL, "method": long},
            {**CALL, "id": long},
            {**CALL, "method": "resources/read", "params": {"uri": f"gpu://{long}"}},
        ):
            await client.post("/mcp", json=call)
    await asyncio.to_thread(export.stop, 5)
    assert len(collector.named("/mcp")) == 4
    assert any(span.error for span in collector.spans)
    for span in collector.spans:
        texts = [span.name, span.error or "", *map(str, span.about.values())]
        assert max(map(len, texts)) <= otlp.LONGEST


async def test_a_collector_that_is_away_delays_neither_calls_nor_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{gone.getsockname()[1]}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    for name in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal"):
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
    away = otlp.Export()
    monkeypatch.setattr(tracing, "_tracer", away.provider.get_tracer("test"))
    async with facade(TracedAPI(node("gpu-a")), token="") as client:
        for _ in range(3):
            assert (await client.post("/mcp", json=CALL)).status_code == 401
    began = time.monotonic()
    await asyncio.to_thread(away.stop, 0.2)
    assert time.monotonic() - began < 4
    assert ended()
    assert len([record for record in caplog.records if record.name.startswith("opentelemetry")]) == 1


PROGRAM = """
import sys
from gpudiag_mcp import tracing
with tracing.exported(), tracing.request({}, method="POST", path="/mcp"):
    pass
found = [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "google."))]
print(len(found))
"""


def test_the_standard_variable_is_all_it_takes(collector: Receiver) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], timeout=60, check=True)
    assert [(span.name, span.service) for span in collector.spans] == [("/mcp", "gpudiag-mcp")]


@pytest.mark.parametrize("variables", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}])
def test_nothing_of_the_sdk_is_imported_where_no_collector_is_named(variables: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "0"


def test_a_variable_that_cannot_be_used_is_told_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    with tracing.exported(), tracing.call() as trace_id:
        assert len(trace_id) == 32
    assert "max_queue_size must be a positive integer" in caplog.text
