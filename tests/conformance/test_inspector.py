"""The official inspector, strict, on both transports and in both protocol eras."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.served import DIAGNOSTIC, NAMESPACE, NODE, POD, command, parsed
from tests.conformance.toolbox import Toolbox

from gpudiag_cli.controlplane import ControlPlane

pytestmark = pytest.mark.slow

TOOL_ERROR, PORTABLE, CALL_SECONDS = 5, 0, 60
"""Exit codes of the inspector: a result that is an error; no schema that a client could not read."""
WHICH = {"namespace": NAMESPACE, "name": DIAGNOSTIC}
CALLS: dict[str, dict[str, Any]] = {
    "list_gpu_nodes": {"limit": 5},
    "get_gpu_inventory": {"node": NODE},
    "get_gpu_health": {},
    "analyze_xid_errors": {"code": 79},
    "describe_gpu_node": {"node": NODE},
    "get_pod_gpu_allocation": {"namespace": NAMESPACE},
    "get_nvlink_topology": {},
    "get_gpu_timeline": {},
    "explain_failure": {"pod": f"{NAMESPACE}/{POD}"},
    "get_incident_report": {},
    "list_gpu_diagnostics": {"namespace": NAMESPACE},
    "get_gpu_diagnostic": WHICH,
    "wait_for_gpu_diagnostic": {**WHICH, "timeout_s": 1},
}
"""One call per tool."""

Inspect = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def inspect(toolbox: Toolbox, home: Path) -> Inspect:
    """``inspect(target, *arguments)`` runs the inspector; gives its result."""

    def go(target: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            # Its own flags first, then --, then the server's: both know --kubeconfig-like words.
            toolbox.inspector(*target, *arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=CALL_SECONDS,
            env=toolbox.environment(home),
        )

    return go


@pytest.fixture
def stdio(plane: ControlPlane, home: Path) -> list[str]:
    """The facade as a command, in a configuration file such as clients have."""
    python, *arguments = command(plane.kubeconfig)
    file = home / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"gpus": {"command": python, "args": arguments}}}))
    return ["--config", str(file), "--server", "gpus"]


@pytest.fixture(params=["stdio", "http"])
def target(request: pytest.FixtureRequest) -> list[str]:
    """The facade on either transport."""
    found = request.getfixturevalue("stdio" if request.param == "stdio" else "url")
    return found if isinstance(found, list) else [found]


def test_the_schemas_are_portable(inspect: Inspect, target: list[str]) -> None:
    ended = inspect(target, "--method", "tools/list", "--strict", "--format", "json")
    assert ended.returncode == PORTABLE, ended.stderr
    assert "error" not in ended.stderr.lower(), ended.stderr
    tools = parsed(ended.stdout)
    assert [tool["name"] for tool in tools.get("tools", tools.get("result", {}).get("tools"))] == list(CALLS)


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("tool", CALLS)
def test_every_tool_answers_over_http_in_both_eras(inspect: Inspect, url: str, era: str, tool: str) -> None:
    answers(inspect([url], *calling(tool), "--protocol-era", era), tool)


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("tool", ["get_gpu_health", "explain_failure"])
def test_and_over_stdio(inspect: Inspect, stdio: list[str], era: str, tool: str) -> None:
    answers(inspect(stdio, *calling(tool), "--protocol-era", era), tool)


def test_an_error_of_a_tool_is_told_apart(inspect: Inspect, url: str) -> None:
    ended = inspect([url], "--method", "tools/call", "--tool-name", "get_gpu_health", "--tool-arg", "node=gpu-x")
    assert ended.returncode == TOOL_ERROR
    assert "Nearest names: gpu-b" in ended.stdout


def test_a_resource_and_a_prompt_are_read(inspect: Inspect, target: list[str]) -> None:
    uri = f"gpudiag://diagnostics/{NAMESPACE}/{DIAGNOSTIC}"
    read = inspect(target, "--method", "resources/read", "--uri", uri, "--format", "json")
    assert read.returncode == 0, read.stderr
    assert DIAGNOSTIC in read.stdout
    got = inspect(target, "--method", "prompts/get", "--prompt-name", "gpu-triage", "--prompt-args", f"node={NODE}")
    assert got.returncode == 0, got.stderr
    assert NODE in got.stdout


def test_three_hundred_calls_eight_at_a_time_all_succeed(inspect: Inspect, url: str) -> None:
    load = ("--load", "--load-requests", "300", "--load-concurrency", "8", "--format", "json")
    ended = inspect([url], *calling("get_gpu_health"), *load)
    assert ended.returncode == 0, ended.stderr
    print(ended.stdout)
    said = parsed(ended.stdout)
    summary = said.get("result", said)
    assert "300" in json.dumps(summary)


def calling(tool: str) -> tuple[str, ...]:
    return ("--method", "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(CALLS[tool]))


def answers(ended: subprocess.CompletedProcess[str], tool: str) -> None:
    assert ended.returncode == 0, ended.stderr or ended.stdout
    assert '"isError": true' not in ended.stdout, tool
    assert "summary" in ended.stdout, ended.stdout
