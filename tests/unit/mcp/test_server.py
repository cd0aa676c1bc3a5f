"""The server as a client sees it, in memory, in both protocol eras."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from mcp import Client, MCPError
from mcp.types import (
    CallToolResult,
    ElicitResult,
    ErrorData,
    PromptReference,
    ResourceTemplateReference,
    TextResourceContents,
)
from tests.unit.mcp.world import FakeAPI, allocation, diagnostic, finding, full, node, nodes, service, settle, xid

from gpudiag_mcp.cache.reader import OwnIdentity
from gpudiag_mcp.create.policy import Provenance
from gpudiag_mcp.kube.errors import ApiError, ApiUnavailable
from gpudiag_mcp.metrics import Metrics
from gpudiag_mcp.objects.diagnostic import GPUDiagnostic
from gpudiag_mcp.questions.diagnostics import done
from gpudiag_mcp.server.app import INSTRUCTIONS, build_server
from gpudiag_mcp.server.ask import begin
from gpudiag_mcp.server.tools import stored

GOLDEN = Path(__file__).parent / "golden" / "tools.json"
ERAS = pytest.mark.parametrize("era", ["auto", "legacy"])

FLEET = [
    node("gpu-a"),
    node(
        "gpu-b",
        health="Unhealthy",
        reason="VolatileUncorrectableErrors",
        recommendedAction="DrainAndResetGPU",
        findings=[finding()],
        xids=[xid(pod="team-a/train-0")],
        allocations=[allocation("gpu-b", 0, "train-0"), allocation("gpu-b", 1, "train-1")],
    ),
    node("gpu-c", health="Unknown", reason="Timeout"),
]


def said(result: CallToolResult) -> str:
    """The text of a result."""
    assert result.content[0].type == "text"
    return result.content[0].text


def data(result: CallToolResult) -> dict[str, Any]:
    """The structured content of a result."""
    assert not result.is_error, said(result)
    assert result.structured_content is not None
    content: dict[str, Any] = result.structured_content
    return content


async def ask(api: FakeAPI, tool: str, era: str = "auto", **arguments: Any) -> dict[str, Any]:
    one = service(api)
    async with one.running(), Client(build_server(one), mode=era) as client:
        result = await client.call_tool(tool, arguments)
    return data(result)


async def refusal(api: FakeAPI, tool: str, /, *, contexts: tuple[str, ...] = ("test",), **arguments: Any) -> str:
    one = service(api, contexts=contexts)
    async with one.running(), Client(build_server(one)) as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    return said(result)


async def schemas(**changes: Any) -> list[dict[str, Any]]:
    one = service(FakeAPI(), **changes)
    async with one.running(), Client(build_server(one)) as client:
        listed = await client.list_tools()
    return [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed.tools]


class TestWhatIsListed:
    async def test_the_schemas_of_all_tools_are_public_and_do_not_change_by_accident(self) -> None:
        """Regenerate on purpose: .venv/bin/python -m tests.unit.mcp.regenerate"""
        stored = json.loads(GOLDEN.read_text())
        assert await schemas(allow_create=True) == stored

    async def test_it_costs_a_model_at_most_8_kb(self) -> None:
        seen = [{key: tool[key] for key in ("name", "description", "inputSchema")} for tool in await schemas()]
        assert len(json.dumps(seen, separators=(",", ":"))) <= 8 << 10

    async def test_every_tool_is_complete_and_portable(self) -> None:
        for tool in await schemas(allow_create=True):
            assert len(tool["name"]) <= 32
            assert tool["description"]
            assert tool["title"]
            assert tool["outputSchema"]["type"] == "object"
            assert tool["inputSchema"]["type"] == "object"
            assert tool["inputSchema"]["additionalProperties"] is False
            assert tool["annotations"]["openWorldHint"] is False
            for name, schema in tool["inputSchema"]["properties"].items():
                assert schema.get("type") in ("string", "integer", "boolean", "array"), name
                assert schema["type"] != "array" or "items" in schema

    async def test_without_leave_there_is_nothing_that_writes(self) -> None:
        listed = await schemas()
        assert all(tool["annotations"]["readOnlyHint"] for tool in listed)
        assert "create_gpu_diagnostic" not in {tool["name"] for tool in listed}
        assert "Unknown tool" in await refusal(FakeAPI(), "create_gpu_diagnostic", node="gpu-a")

    async def test_context_is_an_argument_only_where_there_is_a_choice(self) -> None:
        assert not any("context" in tool["inputSchema"]["properties"] for tool in await schemas())
        assert all(
            "context" in tool["inputSchema"]["properties"]
            for tool in await schemas(contexts=("a", "b"), allow_create=True)
        )

    def test_the_instructions_are_short(self) -> None:
        assert len(INSTRUCTIONS.splitlines()) <= 8

    async def test_prompts_resources_and_templates(self) -> None:
        one = service(FakeAPI())
        async with one.running(), Client(build_server(one)) as client:
            prompts = {prompt.name for prompt in (await client.list_prompts()).prompts}
            static = {str(one.uri) for one in (await client.list_resources()).resources}
            templates = {one.uri_template for one in (await client.list_resource_templates()).resource_templates}
        assert prompts == {"gpu-health-check", "diagnose-xid-errors", "gpu-triage"}
        assert static == {"gpudiag://fleet"}
        assert templates == {
            "gpudiag://nodes/{node}",
            "gpudiag://diagnostics/{namespace}/{name}",
            "gpudiag://xids/{code}",
        }


class TestAnswers:
    @ERAS
    async def test_verdict_evidence_action_source_in_this_order(self, era: str) -> None:
        answer = await ask(FakeAPI(*FLEET), "get_gpu_health", era)
        assert answer["verdict"] == "Unhealthy"
        assert [row["node"] for row in answer["worst"]] == ["gpu-b", "gpu-c"]
        assert answer["next"]["action"] == "DrainAndResetGPU"
        keys = list(answer)
        assert keys[:2] == ["verdict", "summary"]
        assert keys.index("findings") < keys.index("next") < keys.index("source")

    async def test_the_source_names_cluster_identity_age_and_freshness(self) -> None:
        source = (await ask(FakeAPI(*FLEET), "get_gpu_health"))["source"]
        assert source == {
            "context": "test",
            "cluster": "cluster-1",
            "identity": "tester",
            "age_s": 0.0,
            "freshness": "Fresh",
        }

    @pytest.mark.parametrize(
        "tool",
        [
            "list_gpu_nodes",
            "get_gpu_inventory",
            "get_gpu_health",
            "analyze_xid_errors",
            "describe_gpu_node",
            "get_pod_gpu_allocation",
            "get_nvlink_topology",
            "get_gpu_timeline",
            "explain_failure",
            "get_incident_report",
            "list_gpu_diagnostics",
        ],
    )
    @pytest.mark.parametrize("arguments", [{}, {"node": "gpu-b"}])
    async def test_every_question_is_answered_for_the_fleet_and_for_a_node(
        self, tool: str, arguments: dict[str, Any]
    ) -> None:
        for objects in (FLEET, [*FLEET, diagnostic(), full("full-1", "gpu-b")]):
            answer = await ask(FakeAPI(*objects), tool, **arguments)
            assert answer["summary"]
            assert answer["source"]["cluster"] == "cluster-1"

    async def test_an_empty_cluster_is_unknown_and_says_why(self) -> None:
        answer = await ask(FakeAPI(), "get_gpu_health")
        assert answer["verdict"] == "Unknown"
        assert "no GPUNodes" in answer["summary"]

    async def test_a_change_in_the_cluster_is_in_the_next_answer(self) -> None:
        api = FakeAPI(node("gpu-a"))
        one = service(api)
        async with one.running(), Client(build_server(one)) as client:
            before = await client.call_tool("get_gpu_health", {})
            api.put(node("gpu-a", health="Unhealthy"))
            await settle()
            after = await client.call_tool("get_gpu_health", {})
        assert [data(each)["verdict"] for each in (before, after)] == ["Healthy", "Unhealthy"]
        assert api.lists == 2, "one list per collection, the rest by watch"


class TestRefusals:
    async def test_an_unknown_argument_is_refused_with_the_known_ones(self) -> None:
        text = await refusal(FakeAPI(*FLEET), "get_gpu_health", nodes="gpu-a")
        assert text == "UnknownArgument: get_gpu_health has no argument 'nodes'. Did you mean node? It has: node."

    @pytest.mark.parametrize(
        ("tool", "arguments", "says"),
        [
            ("list_gpu_nodes", {"limit": 500}, "Invalid: limit: Input should be less than or equal to 100."),
            ("list_gpu_nodes", {"health": "Sick"}, "Invalid: health: Input should be '', 'Healthy', 'Degraded'"),
            ("get_gpu_diagnostic", {"name": "a"}, "Invalid: namespace: Field required."),
            ("get_gpu_timeline", {"gpu": 2}, "Invalid: gpu is an index on a node: pass node as well"),
        ],
    )
    async def test_a_wrong_value_is_named_with_what_is_right(
        self, tool: str, arguments: dict[str, Any], says: str
    ) -> None:
        assert says in await refusal(FakeAPI(*FLEET), tool, **arguments)

    async def test_a_context_where_there_is_only_one_is_refused(self) -> None:
        assert "has no argument 'context'" in await refusal(FakeAPI(*FLEET), "get_gpu_health", context="prod")

    async def test_an_unknown_node_gets_the_nearest_names(self) -> None:
        text = await refusal(FakeAPI(*FLEET), "describe_gpu_node", node="gpu-bb")
        assert text.startswith("NotFound: there is no GPUNode 'gpu-bb'. Nearest names: gpu-b")

    async def test_a_name_that_no_object_has_goes_nowhere(self) -> None:
        text = await refusal(FakeAPI(*FLEET), "get_gpu_diagnostic", namespace="../../secrets", name="x")
        assert text.startswith("Invalid: namespace '../../secrets' is not a name")

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (ApiError(403), "kubectl create clusterrole gpudiag-access --verb=get,list,watch --resource=gpunodes"),
            (ApiError(401), "Log in again"),
            (ApiError(404), "does not know gpunodes.gpudiag.dev. Install gpudiag there"),
        ],
    )
    async def test_what_the_api_server_refuses_is_said_with_the_way_out(self, error: ApiError, expected: str) -> None:
        api = FakeAPI(*FLEET)
        api.refuse["list", "gpunodes"] = error
        assert expected in await refusal(api, "get_gpu_health")

    async def test_an_api_server_that_is_away_is_no_verdict(self) -> None:
        api = FakeAPI(*FLEET)
        api.refuse["list", "gpunodes"] = ApiUnavailable("connection refused")
        one = service(api)
        one.caches._open_seconds = 0.2
        async with one.running(), Client(build_server(one)) as client:
            result = await client.call_tool("get_gpu_health", {})
        assert result.is_error
        assert "Unavailable" in said(result)
        assert "connection refused" in said(result)

    async def test_a_right_that_is_taken_away_empties_the_cache(self) -> None:
        api = FakeAPI(*FLEET)
        one = service(api)
        async with one.running(), Client(build_server(one)) as client:
            first = await client.call_tool("get_gpu_health", {})
            api.fail_watches("gpunodes", ApiError(403))
            await settle()
            second = await client.call_tool("get_gpu_health", {})
        assert not first.is_error
        assert second.is_error
        assert "Forbidden" in said(second)

    async def test_without_a_right_to_diagnostics_nodes_are_still_answered(self) -> None:
        api = FakeAPI(*FLEET)
        api.refuse["list", "gpudiagnostics"] = ApiError(403)
        answer = await ask(api, "get_gpu_timeline", node="gpu-b")
        assert answer["events"]
        assert "list gpudiagnostics is forbidden" in answer["warnings"][0]
        text = await refusal(api, "list_gpu_diagnostics")
        assert "pass the namespace argument" in text

    async def test_a_bug_gives_a_correlation_id_and_no_traceback(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: Any, **__: Any) -> None:
            raise RuntimeError("secret detail")

        monkeypatch.setattr("gpudiag_mcp.questions.health.fleet_health", broken)
        text = await refusal(FakeAPI(*FLEET), "get_gpu_health")
        assert "correlation id" in text
        assert "secret" not in text


class TestResourcesPromptsCompletions:
    async def test_resources_hold_the_same_answers(self) -> None:
        one = service(FakeAPI(*FLEET, diagnostic()))
        async with one.running(), Client(build_server(one)) as client:
            read = {}
            for uri in (
                "gpudiag://fleet",
                "gpudiag://nodes/gpu-b",
                "gpudiag://diagnostics/gpudiag-system/fleet",
                "gpudiag://xids/79",
            ):
                content = (await client.read_resource(uri)).contents[0]
                assert isinstance(content, TextResourceContents)
                read[uri] = json.loads(content.text)
        assert read["gpudiag://fleet"]["verdict"] == "Unhealthy"
        assert read["gpudiag://nodes/gpu-b"]["node"] == "gpu-b"
        assert read["gpudiag://diagnostics/gpudiag-system/fleet"]["name"] == "fleet"
        assert read["gpudiag://xids/79"]["codes"][0]["code"] == 79

    @pytest.mark.parametrize("uri", ["gpudiag://nodes/gpu-x", "gpudiag://xids/79x", "gpudiag://xids/0"])
    async def test_what_is_not_there_is_not_found(self, uri: str) -> None:
        one = service(FakeAPI(*FLEET))
        async with one.running(), Client(build_server(one)) as client:
            with pytest.raises(MCPError) as caught:
                await client.read_resource(uri)
        assert caught.value.error.code == -32602

    async def test_completions_come_from_the_cluster(self) -> None:
        one = service(FakeAPI(*FLEET, diagnostic()))
        async with one.running(), Client(build_server(one)) as client:
            nodes = await client.complete(
                ResourceTemplateReference(uri="gpudiag://nodes/{node}"), {"name": "node", "value": "gpu-"}
            )
            codes = await client.complete(PromptReference(name="diagnose-xid-errors"), {"name": "code", "value": ""})
            names = await client.complete(
                ResourceTemplateReference(uri="gpudiag://diagnostics/{namespace}/{name}"),
                {"name": "name", "value": ""},
                {"namespace": "gpudiag-system"},
            )
        assert nodes.completion.values == ["gpu-a", "gpu-b", "gpu-c"]
        assert codes.completion.values == ["79"]
        assert names.completion.values == ["fleet"]

    @ERAS
    @pytest.mark.parametrize(
        ("name", "arguments", "said"),
        [
            ("gpu-tirage", {}, "there is no prompt 'gpu-tirage'; there are: gpu-health-check"),
            ("gpu-triage", {"pot": "x"}, "gpu-triage has no argument 'pot'; it has: node, pod"),
            ("gpu-health-check", {"node": "x"}, "gpu-health-check has no argument 'node'; it has: none"),
        ],
    )
    async def test_a_prompt_that_does_not_exist_is_refused_with_those_that_do(
        self, era: str, name: str, arguments: dict[str, str], said: str
    ) -> None:
        one = service(FakeAPI())
        async with one.running(), Client(build_server(one), mode=era) as client:
            with pytest.raises(MCPError, match=said) as caught:
                await client.get_prompt(name, arguments)
        assert caught.value.error.code == -32602

    async def test_prompts_name_the_tool_and_the_argument(self) -> None:
        one = service(FakeAPI())
        async with one.running(), Client(build_server(one)) as client:
            prompt = await client.get_prompt("gpu-triage", {"pod": "team-a/train-0"})
        content = prompt.messages[0].content
        assert content.type == "text"
        assert "explain_failure with pod=team-a/train-0" in content.text


class TestCreating:
    ARGUMENTS: ClassVar[dict[str, Any]] = {"node": "gpu-b", "detail": "Full", "wait_s": 5}

    @ERAS
    @pytest.mark.parametrize(("approve", "created"), [(True, 1), (False, 0)])
    async def test_a_client_that_can_ask_asks(self, era: str, approve: bool, created: int) -> None:
        asked: list[str] = []

        async def answer(context: Any, params: Any) -> ElicitResult | ErrorData:
            asked.append(params.message)
            return ElicitResult(action="accept", content={"approve": approve})

        api = FakeAPI(*FLEET)
        api.finish_created = True
        one = service(api, allow_create=True)
        async with (
            one.running(),
            Client(build_server(one), mode=era, elicitation_callback=answer) as client,
        ):
            result = await client.call_tool("create_gpu_diagnostic", self.ARGUMENTS)
        assert len(asked) == 1
        assert "team-a/mcp-" in asked[0]
        assert [dry for _, dry, _ in api.created].count(False) == created
        if approve:
            assert data(result)["created"] is True
            assert data(result)["done"] is True
            assert data(result)["links"][0]["kind"] == "NVLink"
        else:
            assert result.is_error
            assert "Declined" in said(result)

    @ERAS
    async def test_a_client_that_cannot_ask_is_refused(self, era: str) -> None:
        api = FakeAPI(*FLEET)
        one = service(api, allow_create=True)
        async with one.running(), Client(build_server(one), mode=era) as client:
            result = await client.call_tool("create_gpu_diagnostic", self.ARGUMENTS)
        assert result.is_error
        assert "NeedsConsent" in said(result)
        assert all(dry for _, dry, _ in api.created)

    async def test_unless_configured_and_a_retry_does_not_run_twice(self) -> None:
        api = FakeAPI(*FLEET)
        one = service(api, allow_create=True, unattended=True)
        async with one.running(), Client(build_server(one)) as client:
            first = await client.call_tool("create_gpu_diagnostic", {**self.ARGUMENTS, "wait_s": 0})
            second = await client.call_tool("create_gpu_diagnostic", {**self.ARGUMENTS, "wait_s": 0})
        assert [data(each)["created"] for each in (first, second)] == [True, False]
        assert data(first)["name"] == data(second)["name"]
        assert [dry for _, dry, _ in api.created].count(False) == 1

    async def test_a_dry_run_creates_nothing_and_asks_nobody(self) -> None:
        api = FakeAPI(*FLEET)
        one = service(api, allow_create=True)
        async with one.running(), Client(build_server(one)) as client:
            result = await client.call_tool("create_gpu_diagnostic", {**self.ARGUMENTS, "dry_run": True})
        assert data(result)["dry_run"] is True
        assert all(dry for _, dry, _ in api.created)

    async def test_what_a_timeline_needs_is_what_create_takes(self) -> None:
        """Two calls in total: the question, and the creation that returns the data."""
        api = FakeAPI(*FLEET)
        api.finish_created = True
        one = service(api, allow_create=True, unattended=True)
        async with one.running(), Client(build_server(one)) as client:
            first = await client.call_tool("get_gpu_timeline", {"node": "gpu-b"})
            needs = data(first)["needs_diagnostic"]
            second = await client.call_tool(needs["tool"], needs["arguments"])
        assert needs["enabled"] is True
        assert data(second)["samples"]


class TestWaiting:
    async def test_a_change_between_look_and_wait_is_not_missed(self) -> None:
        api = FakeAPI(*FLEET, diagnostic("d", "team-a", spec={"mode": "Once"}, conditions=[]))
        one = service(api)
        async with one.running():
            ask = await begin(one, OwnIdentity(), "", Provenance(principal="", client="", correlation_id=""))

            async def look() -> GPUDiagnostic:
                found = await stored(ask, "team-a", "d")
                if not done(found):
                    api.put(diagnostic("d", "team-a", spec={"mode": "Once"}))
                    await settle()
                return found

            async with asyncio.timeout(2):
                assert done(await ask.until(look, done, 60))


class TestMetrics:
    async def test_calls_are_counted_by_tool_and_outcome(self) -> None:
        one = service(FakeAPI(*FLEET))
        async with one.running(), Client(build_server(one)) as client:
            await client.call_tool("get_gpu_health", {})
            await client.call_tool("get_gpu_health", {"x": 1})
            await client.call_tool("no_such_tool", {})
        get = one.metrics.registry.get_sample_value
        assert get("mcp_requests_total", {"tool": "get_gpu_health", "status": "ok"}) == 1
        assert get("mcp_requests_total", {"tool": "get_gpu_health", "status": "refused"}) == 1
        assert get("mcp_requests_total", {"tool": "unknown", "status": "refused"}) == 1
        assert get("mcp_active_requests") == 0
        assert (get("mcp_response_bytes_sum", {"tool": "get_gpu_health"}) or 0) > 1000
        assert get("mcp_cache_requests_total", {"result": "miss"}) == 1

    async def test_a_scrape_shows_health_and_breaker_of_the_nodes_that_are_known(self) -> None:
        found = nodes(*FLEET, node("gpu-d", breaker={"state": "HalfOpen"}))
        get = Metrics(lambda: found).registry.get_sample_value
        assert [get("mcp_node_health", {"node": f"gpu-{one}"}) for one in "abcd"] == [1, 0, None, 1]
        assert get("mcp_circuit_breaker_state", {"node": "gpu-d"}) == 2


class TestContextsAndTraces:
    async def test_the_context_is_an_argument_and_never_remembered(self) -> None:
        api = FakeAPI(*FLEET)
        one = service(api, contexts=("west", "east"))
        async with one.running(), Client(build_server(one)) as client:
            seen = [
                data(await client.call_tool("get_gpu_health", arguments))["source"]["context"]
                for arguments in ({"context": "east"}, {}, {"context": "west"})
            ]
            needs = data(await client.call_tool("get_gpu_timeline", {"node": "gpu-a", "context": "east"}))
        assert seen == ["east", "test", "west"], "an absent context is the current one of the kubeconfig"
        assert needs["needs_diagnostic"]["arguments"]["context"] == "east"

    @pytest.mark.parametrize(
        ("meta", "expected"),
        [
            ({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, "a" * 32),
            ({"traceparent": "00-\nforged-line"}, None),
            ({}, None),
        ],
    )
    async def test_the_correlation_id_is_the_clients_trace(self, meta: dict[str, str], expected: str | None) -> None:
        api = FakeAPI(*FLEET)
        one = service(api, allow_create=True, unattended=True)
        async with one.running(), Client(build_server(one)) as client:
            arguments = {"node": "gpu-a", "wait_s": 0}
            await client.call_tool("create_gpu_diagnostic", arguments, meta=cast("Any", meta))
        stamped = api.created[-1][0]["metadata"]["annotations"]["mcp.gpudiag.dev/correlation-id"]
        assert re.fullmatch("[0-9a-f]{32}", stamped)
        assert expected is None or stamped == expected
