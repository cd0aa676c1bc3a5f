"""The HTTP contract, over a real server on loopback: every answer, its headers, and every refusal."""

import asyncio
import gzip
import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
import pytest
from tests.unit.agent.served_node import Node

from gpudiag_agent.publisher import MAX_WAITERS
from gpudiag_agent.sample import Sample, SourceFault
from gpudiag_api import wire
from gpudiag_api.times import from_rfc3339, to_rfc3339
from gpudiag_api.vocabulary import Capability


def problem(answer: aiohttp.ClientResponse, body: bytes, status: int) -> str:
    assert answer.status == status
    assert answer.content_type == "application/problem+json"
    details = json.loads(body)
    assert details["status"] == status
    assert details["title"]
    assert details["requestId"] == answer.headers["X-Request-Id"]
    return str(details["detail"])


class TestReport:
    async def test_it_is_the_report(self, node: Node) -> None:
        answer, body = await node.get("/v1/report")
        assert (answer.status, answer.content_type) == (200, "application/json")
        report = wire.decode(body)
        assert (report.agent.node_name, report.health, report.gpus[0].uuid) == ("n", "Healthy", "GPU-3")
        assert answer.headers["ETag"].startswith('W/"')
        assert report.sampled_at == to_rfc3339(node.clock.now())

    @pytest.mark.parametrize("form", ["{0}", '"other", {0}', "*", "{1}"])
    async def test_304_while_it_means_the_same(self, node: Node, form: str) -> None:
        answer, _ = await node.get("/v1/report")
        tag = answer.headers["ETag"]
        await node.look(temperature_celsius=44)
        again, body = await node.get("/v1/report", If_None_Match=form.format(tag, tag.removeprefix("W/")))
        assert (again.status, body, again.headers["ETag"]) == (304, b"", tag)
        assert again.headers["X-Gpudiag-Sampled-At"] == to_rfc3339(node.clock.now())
        assert "Date" in again.headers
        assert "X-Request-Id" in again.headers
        _, body = await node.get("/v1/report")
        assert wire.decode(body).gpus[0].measurements.temperature_celsius == 44

    @pytest.mark.parametrize("tag", [None, 'W/"other"', "nonsense"])
    async def test_waiting_without_the_current_tag_answers_at_once(self, node: Node, tag: str | None) -> None:
        async with asyncio.timeout(2):
            answer, _ = await node.get("/v1/report?wait=60s", **({"If_None_Match": tag} if tag else {}))
        assert answer.status == 200

    async def test_waiting_ends_when_the_meaning_changes(self, node: Node) -> None:
        answer, _ = await node.get("/v1/report")
        asked = asyncio.create_task(node.get("/v1/report?wait=60s", If_None_Match=answer.headers["ETag"]))
        await node.waiting(1)
        await node.look(temperature_celsius=50)
        assert not asked.done()
        await node.look(ecc_uncorrected_volatile=1)
        async with asyncio.timeout(2):
            changed, body = await asked
        assert changed.status == 200
        assert wire.decode(body).health == "Unhealthy"

    async def test_waiting_ends_by_itself(self, node: Node) -> None:
        answer, _ = await node.get("/v1/report")
        again, _ = await node.get("/v1/report?wait=20ms", If_None_Match=answer.headers["ETag"])
        assert again.status == 304

    async def test_many_wait_and_one_too_many_is_told_so(self, node: Node) -> None:
        answer, _ = await node.get("/v1/report")
        tag = answer.headers["ETag"]
        waiting = [asyncio.create_task(node.get("/v1/report?wait=60s", If_None_Match=tag)) for _ in range(MAX_WAITERS)]
        await node.waiting(MAX_WAITERS)
        refused, body = await node.get("/v1/report?wait=60s", If_None_Match=tag)
        assert "wait" in problem(refused, body, 503)
        assert refused.headers["Retry-After"] == "1"
        waiting.pop().cancel()
        await node.waiting(MAX_WAITERS - 1)
        node.xid(1)
        assert {answer.status for answer, _ in await asyncio.gather(*waiting)} == {200}
        assert node.publisher.waiting == 0

    async def test_fresh_samples_first(self, node: Node) -> None:
        await node.get("/v1/report?fresh=false")
        assert node.looks == 1
        node.clock.advance(1)
        answer, _ = await node.get("/v1/report?fresh=true")
        assert node.looks == 2
        assert answer.headers["X-Gpudiag-Sampled-At"] == to_rfc3339(node.clock.now())
        await asyncio.gather(*[node.get("/v1/report?fresh=true") for _ in range(10)])
        assert node.looks == 2

    @pytest.mark.parametrize(("accepts", "zipped"), [("gzip", True), ("br;q=1, *", True), ("gzip;q=0", False)])
    async def test_it_is_compressed_for_those_who_can(self, node: Node, accepts: str, zipped: bool) -> None:
        for number in range(8):
            node.xid(number)
        await node.look()
        answer, body = await node.get("/v1/report", Accept_Encoding=accepts)
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert ("Content-Encoding" in answer.headers) == zipped
        assert wire.decode(gzip.decompress(body) if zipped else body).gpus

    async def test_a_small_body_is_not_compressed(self, node: Node) -> None:
        answer, body = await node.get("/v1/report", Accept_Encoding="gzip")
        assert len(body) < 1024
        assert "Content-Encoding" not in answer.headers

    @pytest.mark.parametrize(
        ("query", "words"),
        [
            ("wait=30", "wait: '30' is not a duration"),
            ("wait=61s", "at most 60s"),
            ("wait=-1s", "not a duration"),
            ("fresh=yes", "fresh: 'yes' is neither true nor false"),
            ("since=1", "unknown query parameter 'since'; allowed are: wait, fresh"),
            ("wait=1s&wait=2s", "wait is given twice"),
        ],
    )
    async def test_a_wrong_question_is_told_what_is_allowed(self, node: Node, query: str, words: str) -> None:
        assert words in problem(*await node.get(f"/v1/report?{query}"), 400)

    async def test_before_the_first_sample_there_is_none(self, fresh_node: Node) -> None:
        for path in ("/v1/report", "/readyz"):
            answer, body = await fresh_node.get(path)
            assert "first sample" in problem(answer, body, 503)
            assert "X-Gpudiag-Sampled-At" not in answer.headers
        assert (await fresh_node.get("/healthz"))[0].status == 200

    async def test_a_hung_driver_is_ready_and_visibly_old(self, node: Node) -> None:
        before = to_rfc3339(node.clock.now())
        node.next = Sample(taken_at=0, fault=SourceFault(Capability.DRIVER_HUNG, "hangs"))
        node.clock.advance(60)
        await node.look()
        answer, body = await node.get("/v1/report")
        assert answer.headers["X-Gpudiag-Sampled-At"] == before
        assert wire.decode(body).health == "Unknown"
        assert (await node.get("/readyz"))[0].status == 200


class TestEveryAnswer:
    PATHS = ("/v1/report", "/healthz", "/readyz", "/metrics", "/openapi.json", "/nowhere", "/v1/report?x=1")

    @pytest.mark.parametrize("path", PATHS)
    async def test_names_itself_its_age_and_its_trace(self, node: Node, path: str) -> None:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        answer, _ = await node.get(path, X_Request_Id="run-7/node:3", traceparent=trace)
        assert answer.headers["X-Request-Id"] == "run-7/node:3"
        assert answer.headers["traceparent"] == trace
        assert from_rfc3339(answer.headers["X-Gpudiag-Sampled-At"]) == pytest.approx(node.clock.now())
        assert abs((parsedate_to_datetime(answer.headers["Date"]) - datetime.now(UTC)).total_seconds()) < 60
        assert answer.headers["Server"] == "gpudiag-agent"

    async def test_has_an_id_of_its_own_where_none_came_and_none_that_could_hurt(self, node: Node) -> None:
        first, _ = await node.get("/healthz")
        second, _ = await node.get("/healthz", X_Request_Id='"\t{}', traceparent="00-0-0-00")
        third, _ = await node.get("/healthz", X_Request_Id="x" * 1000)
        assert len({len(first.headers["X-Request-Id"]), len(second.headers["X-Request-Id"])} - {32}) == 0
        assert first.headers["X-Request-Id"] != second.headers["X-Request-Id"]
        assert "traceparent" not in second.headers
        assert third.headers["X-Request-Id"] == "x" * 128

    async def test_errors_are_problems(self, node: Node) -> None:
        assert "openapi.json" in problem(*await node.get("/nowhere"), 404)
        answer, body = await node.get("/v1/report", method="DELETE")
        assert "GET" in problem(answer, body, 405)
        assert "GET" in answer.headers["Allow"]

    @pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json"])
    async def test_refuses_unknown_parameters_everywhere(self, node: Node, path: str) -> None:
        assert "unknown query parameter 'q'; this path takes none" in problem(*await node.get(f"{path}?q=1"), 400)

    async def test_a_bug_is_a_problem_with_an_id_that_the_log_has(
        self, node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(node.sampler, "fresh", lambda: 1 / 0)
        answer, body = await node.get("/v1/report?fresh=true")
        assert "log" in problem(answer, body, 500)
        assert caplog.records[-1].__dict__["requestId"] == answer.headers["X-Request-Id"]

    async def test_head_is_get_without_the_body(self, node: Node) -> None:
        answer, body = await node.get("/v1/report", method="HEAD")
        assert (answer.status, body) == (200, b"")
        assert "ETag" in answer.headers


class TestOtherPaths:
    async def test_metrics(self, node: Node) -> None:
        node.xid(1)
        node.xid(2)
        await node.look()
        await node.get("/v1/report")
        node.clock.advance(7)
        answer, body = await node.get("/metrics")
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        lines = body.decode().splitlines()
        for line in (
            'gpudiag_gpu_temperature_celsius{gpu="3",uuid="GPU-3"} 41.0',
            'gpudiag_gpu_power_watts{gpu="3",uuid="GPU-3"} 212.5',
            'gpudiag_gpu_utilization_ratio{gpu="3",uuid="GPU-3"} 0.5',
            'gpudiag_gpu_memory_used_bytes{gpu="3",uuid="GPU-3"} 7.0',
            'gpudiag_gpu_ecc_errors_total{gpu="3",scope="volatile",type="corrected",uuid="GPU-3"} 4.0',
            'gpudiag_gpu_xid_events_total{pci="0000:3b:00.0",uuid="GPU-3",xid="31"} 2.0',
            'gpudiag_gpu_health{gpu="3",health="Healthy",uuid="GPU-3"} 1.0',
            'gpudiag_gpu_health{gpu="3",health="Unhealthy",uuid="GPU-3"} 0.0',
            'gpudiag_gpu_condition{check="Temperature",gpu="3",uuid="GPU-3"} 0.0',
            'gpudiag_agent_check_up{check="Temperature"} 1.0',
            "gpudiag_agent_sample_age_seconds 7.0",
            "gpudiag_agent_kernel_log_lost_records_total 2.0",
            'gpudiag_agent_samples_total{result="OK"} 2.0',
            'gpudiag_agent_http_requests_total{code="200",path="/v1/report"} 1.0',
        ):
            assert line in lines
        assert not any("memory_temperature" in line and "{" in line for line in lines), "unsupported is absent"
        success = f"{node.clock.now() - 7:.9e}"
        assert f'gpudiag_agent_check_last_success_timestamp_seconds{{check="GPULost"}} {success}' in lines

    async def test_a_blind_check_is_down_and_its_last_success_stays(self, node: Node) -> None:
        node.next = Sample(taken_at=0, fault=SourceFault(Capability.DRIVER_HUNG, "hangs"))
        await node.look()
        page = (await node.get("/metrics"))[1].decode()
        assert 'gpudiag_agent_check_up{check="Temperature"} 0.0' in page
        assert 'gpudiag_agent_check_up{check="XID"} 1.0' in page
        success = f"{node.clock.now() - 1:.9e}"
        assert f'gpudiag_agent_check_last_success_timestamp_seconds{{check="Temperature"}} {success}' in page
        assert 'gpudiag_gpu_health{gpu="3",health="Unknown",uuid="GPU-3"} 1.0' in page

    async def test_openapi_describes_what_is_served(self, node: Node) -> None:
        _, body = await node.get("/openapi.json")
        document = json.loads(body)
        assert document["openapi"] == "3.1.0"
        served = {r.canonical for r in node.application.router.resources()}
        assert set(document["paths"]) == served
        properties = document["components"]["schemas"]["Report"]["properties"]
        report = json.loads((await node.get("/v1/report"))[1])
        assert set(report) <= set(properties)
        parameters = {p["name"] for p in document["paths"]["/v1/report"]["get"]["parameters"]}
        assert parameters == {"If-None-Match", "wait", "fresh"}
