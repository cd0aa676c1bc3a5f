"""Questions over stdio, answered from a real API server by the real command."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.cluster.mcp.conftest import Connect
from tests.unit.mcp.test_server import data, said
from tests.unit.mcp.world import diagnostic, finding, full, node, xid

from gpudiag_cli.controlplane import ControlPlane, Kubectl

pytestmark = pytest.mark.cluster

Store = Callable[..., Any]
BAD: dict[str, Any] = {"health": "Unhealthy", "recommendedAction": "DrainAndResetGPU"}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_which_gpu_is_bad_is_answered_in_one_call(store: Store, connect: Connect, mode: str) -> None:
    await store(node("gpu-a"), node("gpu-b", **BAD, findings=[finding()]))
    async with connect(mode=mode) as client:
        result = await client.call_tool("get_gpu_health", {})
    answer = data(result)
    assert answer["verdict"] == "Unhealthy"
    assert [row["node"] for row in answer["worst"]] == ["gpu-b"]
    assert answer["next"]["action"] == "DrainAndResetGPU"
    assert "gpu-b" in said(result)


async def test_the_answer_says_which_cluster_who_asked_and_how_fresh(store: Store, connect: Connect) -> None:
    await store(node("gpu-a"))
    async with connect() as client:
        source = data(await client.call_tool("get_gpu_health", {}))["source"]
    assert source["identity"], "the API server's name for us (SelfSubjectReview)"
    assert source["freshness"] == "Unknown"
    assert "no Lease gpudiag-operator" in source["freshness_reason"]
    assert source["age_s"] < 60


async def test_a_change_arrives_by_watch(store: Store, connect: Connect) -> None:
    await store(node("gpu-a"))
    async with connect() as client:
        assert data(await client.call_tool("get_gpu_health", {"node": "gpu-a"}))["verdict"] == "Healthy"
        await store(node("gpu-a", **BAD, xids=[xid()]))
        async with asyncio.timeout(10):
            while data(await client.call_tool("get_gpu_health", {"node": "gpu-a"}))["verdict"] != "Unhealthy":
                pass
        assert data(await client.call_tool("analyze_xid_errors", {"node": "gpu-a"}))["codes"][0]["code"] == 79


async def test_results_of_a_full_diagnostic_are_used(store: Store, connect: Connect, namespace: str) -> None:
    done = full("full-1", "gpu-a")
    done["metadata"]["namespace"] = namespace
    done["status"]["finishedAt"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    await store(node("gpu-a"), done)
    async with connect() as client:
        answer = data(await client.call_tool("get_gpu_timeline", {"node": "gpu-a"}))
        one = data(await client.call_tool("get_gpu_diagnostic", {"namespace": namespace, "name": "full-1"}))
    assert len(answer["samples"]) == 12
    assert one["processes"][0]["untrusted_process"] == "python train.py"


async def test_tools_are_listed_without_a_cluster(connect: Connect, tmp_path: Path) -> None:
    async with connect(kubeconfig=tmp_path / "none") as client:
        assert len((await client.list_tools()).tools) == 13
        result = await client.call_tool("get_gpu_health", {})
    assert result.is_error
    assert "There is no kubeconfig" in said(result)


@pytest.mark.slow
async def test_a_large_fleet_stays_below_32_kb_on_the_wire(store: Store, connect: Connect) -> None:
    await store(*(node(f"gpu-{at:03}.{'x' * 45}", **BAD, findings=[finding()], xids=[xid()]) for at in range(60)))
    async with connect() as client:
        for tool, arguments in (("list_gpu_nodes", {"limit": 100}), ("get_incident_report", {})):
            result = await client.call_tool(tool, arguments)
            data(result)
            assert len(result.model_dump_json(by_alias=True, exclude_none=True).encode()) <= 32 << 10


class TestRights:
    @pytest.fixture
    def stranger(self, control_plane: ControlPlane, kubectl: Kubectl, namespace: str, tmp_path: Path) -> Path:
        """A kubeconfig of a service account without any right."""
        kubectl("create", "serviceaccount", "stranger", "-n", namespace)
        return control_plane.service_account_kubeconfig(tmp_path / "stranger", "stranger", namespace=namespace)

    async def test_forbidden_names_the_rule_that_helps(
        self, store: Store, connect: Connect, stranger: Path, kubectl: Kubectl, namespace: str
    ) -> None:
        await store(node("gpu-a"))
        role = f"gpudiag-access-{uuid4().hex[:6]}"
        async with connect(kubeconfig=stranger) as client:
            text = said(await client.call_tool("get_gpu_health", {}))
            who = f"system:serviceaccount:{namespace}:stranger"
            assert text.startswith(f"Forbidden: {who} may not list gpunodes")
            rule = text.partition("kubectl create clusterrole gpudiag-access ")[2].partition(", bound")[0]
            kubectl("create", "clusterrole", role, *rule.split())
            kubectl("create", "clusterrolebinding", role, f"--clusterrole={role}", f"--user={who}")
            try:
                async with asyncio.timeout(10):
                    while (result := await client.call_tool("get_gpu_health", {})).is_error:
                        await asyncio.sleep(0.2)
                assert data(result)["verdict"] == "Healthy"
                assert data(result)["source"]["identity"] == who
                assert "may not list gpudiagnostics" in said(await client.call_tool("list_gpu_diagnostics", {}))
            finally:
                kubectl("delete", "clusterrolebinding", role)
                kubectl("delete", "clusterrole", role)


class TestCreating:
    def flags(self, namespace: str) -> tuple[str, ...]:
        return ("--allow-create", "--allow-unattended-create", f"--create-namespaces={namespace}")

    async def test_create_waits_and_returns_the_result(
        self, store: Store, connect: Connect, kubectl: Kubectl, namespace: str
    ) -> None:
        """The test plays the operator: it writes the status of what was created."""
        await store(node("gpu-a"))

        async def operate() -> None:
            while not (items := kubectl.json("get", "gpudiagnostics", "-n", namespace)["items"]):
                await asyncio.sleep(0.1)
            one = full(items[0]["metadata"]["name"], "gpu-a")
            patch = json.dumps({"status": one["status"]})
            name = items[0]["metadata"]["name"]
            kubectl(
                "patch", "gpudiagnostic", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch
            )

        async with connect(*self.flags(namespace)) as client:
            needs = data(await client.call_tool("get_gpu_timeline", {"node": "gpu-a"}))["needs_diagnostic"]
            playing = asyncio.create_task(operate())
            answer = data(await client.call_tool(needs["tool"], needs["arguments"]))
            await playing
            again = data(await client.call_tool(needs["tool"], needs["arguments"]))
        assert (answer["created"], answer["done"]) == (True, True)
        assert answer["samples"]
        assert answer["links"]
        assert (again["created"], again["name"]) == (False, answer["name"])
        stored = kubectl.json("get", "gpudiagnostic", answer["name"], "-n", namespace)
        assert stored["spec"]["ttlAfterFinished"] == "15m"
        assert stored["metadata"]["annotations"]["mcp.gpudiag.dev/client"]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"node": "gpu-x"}, "there is no GPU node 'gpu-x'; nearest names: gpu-a"),
            ({"node": "gpu-a", "namespace": "kube-system"}, "not in 'kube-system'"),
            ({"node": "gpu-a", "name": "Not-A-Name"}, "name 'Not-A-Name' is not a name"),
        ],
    )
    async def test_what_is_not_allowed_is_not_created(
        self, store: Store, connect: Connect, kubectl: Kubectl, namespace: str, arguments: dict[str, Any], says: str
    ) -> None:
        await store(node("gpu-a"))
        async with connect(*self.flags(namespace)) as client:
            result = await client.call_tool("create_gpu_diagnostic", {**arguments, "wait_s": 0})
        assert result.is_error
        assert says in said(result)
        assert not kubectl.json("get", "gpudiagnostics", "-n", namespace)["items"]

    @pytest.mark.slow
    async def test_a_namespace_that_is_not_there_is_found_out_by_the_dry_run(
        self, store: Store, connect: Connect
    ) -> None:
        await store(node("gpu-a"))
        async with connect(*self.flags("no-such-namespace")) as client:
            result = await client.call_tool("create_gpu_diagnostic", {"node": "gpu-a", "wait_s": 0})
        assert result.is_error
        assert "no-such-namespace" in said(result)

    @pytest.mark.slow
    async def test_waiting_tells_how_far_it_is_and_ends_in_time(
        self, store: Store, connect: Connect, namespace: str
    ) -> None:
        told: list[tuple[float, float | None, str | None]] = []

        async def tell(progress: float, total: float | None, message: str | None) -> None:
            told.append((progress, total, message))

        one = diagnostic("d1", namespace, spec={"mode": "Once"})
        del one["status"]
        await store(one)
        async with connect() as client:
            arguments = {"namespace": namespace, "name": "d1", "timeout_s": 1}
            answer = data(await client.call_tool("wait_for_gpu_diagnostic", arguments, progress_callback=tell))
        assert answer["done"] is False
        assert told
        assert all(0 <= done <= 1 == total and message == f"{namespace}/d1: waiting" for done, total, message in told)
        assert answer["phase"] == "NotProcessed"
