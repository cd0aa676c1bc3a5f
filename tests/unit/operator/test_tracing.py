"""Spans of Once runs: exported where a collector is named, else nothing of the kind exists."""

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
from tests.unit.operator.test_agent_client import GOOD, Agent, agent, answer, says
from tests.unit.otlp_receiver import Receiver, ended, receiving

from gpudiag_operator.collect.agent_client import AgentClient
from gpudiag_operator.collect.collector import Collector
from gpudiag_operator.collect.routes import DirectRoute
from gpudiag_operator.collect.settings import CollectSettings
from gpudiag_operator.collect.trace_context import traceparent
from gpudiag_operator.diagnostics.once import OnceRuns, Order, Outcome
from gpudiag_operator.diagnostics.registry import Key
from gpudiag_operator.domain import NodeState, Target
from gpudiag_operator.observability import tracing
from gpudiag_operator.observability.otlp import COMPLAINT_SECONDS, OTLPSpans, Rarely

SETTINGS = CollectSettings(node_timeout=5, fresh_timeout=5)
KEY = Key("team-a", "before-training")
RUN = "0af7651916cd43dd8448eb211c80319c"


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


@asynccontextmanager
async def run_of(spans: tracing.Spans, *agents: tuple[str, Agent, Target]) -> AsyncIterator[asyncio.Future[Outcome]]:
    """A run over agents that are polled meanwhile."""
    client = AgentClient(SETTINGS, route=DirectRoute(9810), spans=spans.call)
    collecting = Collector(client, SETTINGS, listener=lambda _: None)
    done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def read(names: Sequence[str], deadline: float, run_id: str, *, full: bool) -> Mapping[str, NodeState]:
        readings = await collecting.fetch_fresh(names, deadline=deadline, run_id=run_id, full=full)
        return {name: NodeState(name=name, failure=readings[name].failure) for name in names}

    def finish(outcome: Outcome | None) -> str:
        assert outcome is not None
        done.set_result(outcome)
        return "Degraded"

    runs = OnceRuns(read, most=1, wall=time.time, monotonic=time.monotonic, freed=lambda: None, spans=spans.run)
    for _, _, target in agents:
        collecting.set_target(target)
    names = [name for name, _, _ in agents]
    runs.start(Order(key=KEY, names=names, missing=(), deadline=5.0, done=finish, run_id=RUN))
    try:
        yield done
    finally:
        await runs.close()
        await collecting.close()
        await client.close()


def span_ids(server: Agent, *, fresh: bool) -> list[tuple[str, ...]]:
    """Trace and span of the calls that an agent got."""
    chosen = [at for at, head in enumerate(server.requests) if ("fresh=true" in head) is fresh]
    return [tuple((server.header("traceparent", at) or "").split("-")[1:3]) for at in chosen]


async def test_a_run_is_a_span_and_each_call_one_below_it_that_the_agent_is_told(collector: Receiver) -> None:
    spans = OTLPSpans()
    async with agent(says(answer(GOOD))) as (good, pod), agent(says(answer(GOOD))) as (lying, other):
        lies = Target(node="n2", pod=type(pod)(name="b", uid="v", node="n2", ip=other.ip, ready=True, port=other.port))
        async with run_of(spans, ("n1", good, Target(node="n1", pod=pod)), ("n2", lying, lies)) as done:
            outcome = await asyncio.wait_for(done, 5)
            while not span_ids(good, fresh=False):
                await asyncio.sleep(0.01)
    await asyncio.to_thread(spans.stop, 5)

    assert collector.paths == ["/v1/traces"]
    assert {span.service for span in collector.spans} == {"gpudiag-operator"}
    (run,) = collector.named("diagnostic run")
    assert (run.trace, run.parent, run.error) == (outcome.run_id, "", None)
    assert run.about == {
        "k8s.namespace.name": "team-a",
        "gpudiag.diagnostic.name": "before-training",
        "gpudiag.run_id": RUN,
        "gpudiag.nodes.wanted": 2,
        "gpudiag.nodes.answered": 1,
        "gpudiag.verdict": "Degraded",
    }
    calls = {span.about["k8s.node.name"]: span for span in collector.named("agent call")}
    assert len(collector.spans) == 3, "polls have no spans"
    assert {(span.trace, span.parent) for span in calls.values()} == {(RUN, run.id)}
    assert (calls["n1"].error, calls["n1"].about["url.path"]) == (None, "/v1/report?fresh=true")
    assert calls["n2"].about["error.type"] == "IdentityMismatch"
    assert "n1" in (calls["n2"].error or "")
    assert span_ids(good, fresh=True) == [(RUN, calls["n1"].id)]
    assert span_ids(lying, fresh=True) == [(RUN, calls["n2"].id)]
    assert all(trace != RUN for trace, _ in span_ids(good, fresh=False))


async def test_a_run_is_a_trace_of_its_own_wherever_it_is_started(collector: Receiver) -> None:
    spans = OTLPSpans()
    with spans.run(KEY, RUN, 1), spans.run(KEY, RUN[::-1], 1):
        pass
    await asyncio.to_thread(spans.stop, 5)
    assert {(span.trace, span.parent) for span in collector.spans} == {(RUN, ""), (RUN[::-1], "")}


async def test_a_run_that_is_cancelled_says_so_and_its_calls_too(collector: Receiver) -> None:
    spans = OTLPSpans()
    asked = asyncio.Event()

    async def silent(head: str, _: object) -> None:
        if "fresh=true" in head:
            asked.set()
        await asyncio.sleep(60)

    async with agent(silent) as (server, pod), run_of(spans, ("n1", server, Target(node="n1", pod=pod))):
        await asyncio.wait_for(asked.wait(), 5)
    await asyncio.to_thread(spans.stop, 5)
    (run,), (call,) = collector.named("diagnostic run"), collector.named("agent call")
    assert "cancelled" in (run.error or "")
    assert "gpudiag.verdict" not in run.about
    assert call.about["error.type"] == "cancelled"


async def test_a_collector_that_is_away_costs_one_line_and_no_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://someone:secret@127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    for name in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal"):
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
    caplog.set_level(logging.INFO)
    with tracing.exported(stop_seconds=0.2) as spans:
        for number in range(3):
            with spans.run(KEY, f"{number + 1:032x}", 1):
                pass
            await asyncio.sleep(0.02)
        began = time.monotonic()
    assert time.monotonic() - began < 4
    assert ended()
    complaints = [record for record in caplog.records if record.name.startswith("opentelemetry")]
    assert len(complaints) == 1
    assert f"spans are exported to 127.0.0.1:{port}" in caplog.text
    assert "secret" not in caplog.text


def test_it_complains_once_in_five_minutes() -> None:
    rarely = Rarely()

    def passes(at: float) -> bool:
        record = logging.makeLogRecord({})
        record.created = at
        return rarely.filter(record)

    assert [passes(at) for at in (10.0, 10.0, 9.0 + COMPLAINT_SECONDS, 10.0 + COMPLAINT_SECONDS)] == [
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_the_standard_variables_decide(variables: dict[str, str], wanted: bool) -> None:
    assert tracing.wanted(variables) is wanted


def test_a_variable_that_cannot_be_used_is_told_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    with tracing.exported() as spans, spans.run(KEY, RUN, 1), spans.call("n1", "/v1/report", RUN) as header:
        assert header.split("-")[1] == RUN
        assert isinstance(spans, tracing.NoSpans)
    assert "max_queue_size must be a positive integer" in caplog.text


def test_a_poll_is_no_span_and_costs_an_id_only(collector: Receiver) -> None:
    with tracing.exported() as spans, spans.call("n1", "/v1/report", "") as header:
        assert len(header) == len(traceparent(""))
    assert collector.spans == []


def test_nothing_of_opentelemetry_is_imported_where_no_collector_is_named() -> None:
    program = (
        "import sys, gpudiag_operator.app as app\n"
        "with app.tracing.exported() as spans: assert isinstance(spans, app.tracing.NoSpans)\n"
        "found = [name for name in sys.modules if name.startswith(('opentelemetry', 'google.protobuf'))]\n"
        "sys.exit(f'imported: {found}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
