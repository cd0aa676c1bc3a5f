"""Prompt injection, end to end: hostile nodes → the real operator → real resources → the facade's answers.

One node's agent has been taken over and says whatever the wire allows. On another a real agent runs, and the job makes
the kernel log and the process names hostile. A third floods. What arrives at the assistant is inert (no escapes, no
hidden characters), capped (300 characters a text, 32 KB an answer) and marked (fields named untrusted_…).
"""

import json
import os
import re
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import CallToolResult, TextResourceContents
from tests.evals import hostile
from tests.evals.stage import CREATING, SYSTEM, Stage, staged
from tests.unit.mcp.test_safety import leaves

from gpudiag_cli.controlplane import ControlPlaneError
from gpudiag_cli.nvmlfake import Machine, build
from gpudiag_cli.simulator.cluster import Member
from gpudiag_mcp.server.tools import READ_ONLY

pytestmark = pytest.mark.slow

AGENT, ADDRESS = "kernel-1", "127.98.7.1"
HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"})
LONGEST, LARGEST = 300, 32 << 10
FLEET_TOOLS = [spec.name for spec in READ_ONLY if "gpu_diagnostic" not in spec.name]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The hostile fleet, judged."""
    try:
        with staged(hostile.NODES) as one, _real_agent(one, tmp_path_factory.mktemp("agent")):
            fleet = {"apiVersion": "gpudiag.dev/v1alpha1", "kind": "GPUDiagnostic", "spec": {}}
            one.kubectl.apply({**fleet, "metadata": {"name": "fleet", "namespace": SYSTEM}})
            wanted = {"evil-1": "Unhealthy", "flood-1": "Unknown", AGENT: "Unhealthy"}
            wanted |= {"evil-2": "Healthy", "good-1": "Healthy"}
            one.until(lambda: one.health() == wanted, f"health {wanted}")
            yield one
    except ControlPlaneError as error:
        pytest.fail(str(error), pytrace=False)


class _real_agent:  # noqa: N801  (a context manager, used as one)
    """A real ``gpudiag-agent`` over a stand-in for NVML, with a hostile kernel log and process, and its Pod."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self._stage, self._log = stage, folder / "agent.log"
        (folder / "kmsg").write_bytes(hostile.kernel_log())
        (folder / "sysfs").mkdir()
        machine = Machine.create("t4-1", folder / "t4.nvml", node=AGENT)
        # The file of the stand-in holds one line per value.
        machine.set({"gpu.*.name": f"{hostile.ORDER} {hostile.BIDI}"[:95]})
        command = [sys.executable, "-m", "gpudiag_agent", "--source", "nvml", "--node-name", AGENT]
        command += ["--host", ADDRESS, "--port", "0", "--interval", "1s", "--sysfs-pci", str(folder / "sysfs")]
        command += ["--kmsg", str(folder / "kmsg"), "--proc", str(hostile.procfs(folder / "proc"))]
        command += ["--pod-resources", "none"]
        own = {name: value for name, value in os.environ.items() if not name.startswith("GPUDIAG_")}
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "gpudiag" / "nvmlfake"
        with self._log.open("wb") as output:
            environment = {**own, **machine.environment(build(cache))}
            self._process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)

    def __enter__(self) -> None:
        deadline = time.monotonic() + 20
        while not (found := re.search(rf"http://{ADDRESS}:(\d+)", self._log.read_text())):
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)
        self._stage.announce([Member(name=AGENT, address=ADDRESS, port=int(found[1]), gpus=1, model="Tesla T4")])

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)


def check(result: CallToolResult) -> int:
    """Fail unless an answer is inert, capped and marked; gives how often the node's text stands in it."""
    text = "\n".join(block.text for block in result.content if block.type == "text")
    assert not result.is_error, text
    data: dict[str, Any] = result.structured_content or {}
    assert len(result.model_dump_json(by_alias=True, exclude_none=True).encode()) <= LARGEST
    for line in text.splitlines():
        assert not hidden(line), line
        assert hostile.MARK not in line.partition("untrusted_")[0], line
    return check_data(data)


def check_data(data: dict[str, Any]) -> int:
    found = 0
    for path, text in leaves(data):
        assert not hidden(text), (path, text)
        if path.rpartition(".")[2].startswith("untrusted_"):
            assert len(text) <= LONGEST, (path, len(text))
            found += hostile.MARK in text
        else:
            assert hostile.MARK not in text, (path, text)
            assert "SYSTEM" not in text, (path, text)
    return found


def hidden(text: str) -> list[str]:
    return [char for char in text if unicodedata.category(char) in HIDDEN]


@pytest.mark.parametrize("tool", FLEET_TOOLS)
async def test_no_tool_passes_on_what_a_node_orders(stage: Stage, tool: str) -> None:
    async with stage.facade() as client:
        for node in ("", "evil-1", "flood-1", AGENT):
            check(await client.call_tool(tool, {"node": node} if node else {}))


@pytest.mark.parametrize("node", ["evil-1", AGENT])
async def test_the_hostile_text_arrives_and_is_marked(stage: Stage, node: str) -> None:
    """Otherwise this suite would prove nothing: the whole path is open."""
    async with stage.facade() as client:
        described = await client.call_tool("describe_gpu_node", {"node": node})
        errors = await client.call_tool("analyze_xid_errors", {"node": node})
    assert check(described)
    assert check(errors)
    assert "untrusted_message=" in "".join(block.text for block in errors.content if block.type == "text")


@pytest.mark.parametrize("node", ["evil-1", AGENT])
async def test_nor_do_full_results(stage: Stage, node: str) -> None:
    async with stage.facade(*CREATING) as client:
        created = await client.call_tool("create_gpu_diagnostic", {"node": node, "detail": "Full", "wait_s": 30})
        data = created.structured_content or {}
        assert data["done"], data
        which = {"namespace": data["namespace"], "name": data["name"]}
        assert check(created)
        for tool in ("get_gpu_diagnostic", "wait_for_gpu_diagnostic"):
            assert check(await client.call_tool(tool, which))
        check(await client.call_tool("get_gpu_diagnostic", {"namespace": SYSTEM, "name": "fleet"}))
        for tool in ("get_gpu_timeline", "get_nvlink_topology"):
            check(await client.call_tool(tool, {"node": node}))
    if node == AGENT:
        assert any(hostile.ORDER[:20] in row["untrusted_process"] for row in data["processes"])


async def test_a_time_that_is_none_does_not_hold_up_a_run(stage: Stage) -> None:
    async with stage.facade(*CREATING) as client:
        arguments = {"node": "evil-2", "detail": "Full", "deadline_s": 5, "wait_s": 10}
        created = await client.call_tool("create_gpu_diagnostic", arguments)
    check(created)
    assert (created.structured_content or {})["done"]


async def test_a_megabyte_ends_at_the_operator(stage: Stage) -> None:
    async with stage.facade() as client:
        answer = await client.call_tool("describe_gpu_node", {"node": "flood-1"})
    check(answer)
    data = answer.structured_content or {}
    assert data["health"]["agent"] in ("BadResponse", "ResponseTooLarge")
    assert len(json.dumps(stage.kubectl.json("get", "gpunode", "flood-1"))) < 16 << 10


async def test_resources_and_completions_are_inert_too(stage: Stage) -> None:
    async with stage.facade() as client:
        for uri in ("gpudiag://fleet", "gpudiag://nodes/evil-1", f"gpudiag://diagnostics/{SYSTEM}/fleet"):
            assert_inert_resource(await read(client, uri))


async def read(client: Client, uri: str) -> str:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return content.text


def assert_inert_resource(text: str) -> None:
    assert len(text.encode()) <= LARGEST
    check_data(json.loads(text))


async def test_the_well_node_is_not_drowned(stage: Stage) -> None:
    """Hostile neighbours change nothing about the others, and the verdict of the fleet is still told."""
    async with stage.facade() as client:
        good = await client.call_tool("get_gpu_health", {"node": "good-1"})
        fleet = await client.call_tool("get_gpu_health", {})
    assert (good.structured_content or {})["verdict"] == "Healthy"
    assert (fleet.structured_content or {})["verdict"] == "Unhealthy"
