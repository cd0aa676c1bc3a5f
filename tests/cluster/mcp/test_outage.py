"""The facade while the API server is away: it says so, and answers what it still may. With a server of its own."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.conftest import CRDS
from tests.cluster.mcp.facade import RULES, calling, facade
from tests.cluster.mcp.test_http import VIEWER, post
from tests.unit.mcp.test_server import data, said
from tests.unit.mcp.world import node

from gpudiag_cli.controlplane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane.start(controller_manager=False) as one:
        kubectl = one.client()
        applied = kubectl("apply", "--server-side", "--output=name", "--filename", CRDS).stdout.split()
        names = [name for name in applied if name.startswith("customresourcedefinition")]
        kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gpudiag-system"}})
        rbac = "rbac.authorization.k8s.io"
        for name, rules in (("gpudiag-mcp", RULES), ("alice", VIEWER), ("bob", VIEWER)):
            kubectl("create", "serviceaccount", name, "-n", "gpudiag-system")
            subject = {"kind": "ServiceAccount", "name": name, "namespace": "gpudiag-system"}
            kubectl.apply(
                {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
                {
                    "apiVersion": f"{rbac}/v1",
                    "kind": "ClusterRoleBinding",
                    "metadata": {"name": name},
                    "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
                    "subjects": [subject],
                },
            )
        one_node = node("gpu-a")
        one_node.pop("status")
        one_node["metadata"] = {"name": "gpu-a"}
        kubectl.apply(one_node)
        yield one


async def test_a_killed_api_server(plane: ControlPlane, tmp_path: Path) -> None:
    own = plane.service_account_kubeconfig(tmp_path / "own", "gpudiag-mcp")
    alice, bob = (plane.service_account_token(name, audience="gpudiag-mcp") for name in ("alice", "bob"))
    async with facade(own) as one, calling(one.url, token=alice) as client:
        assert data(await client.call_tool("list_gpu_nodes", {}))["nodes"]["total"] == 1
        plane.stop_apiserver()
        try:
            known = data(await client.call_tool("list_gpu_nodes", {}))
            assert known["nodes"]["total"] == 1, "a token and a right that were just seen stay good for seconds"
            asks_more = await client.call_tool("list_gpu_diagnostics", {"namespace": "kube-system"})
            assert said(asks_more).startswith("Unavailable:"), "a right that was not asked for before cannot be told"
            unknown = await post(one.url, bob)
            assert unknown.status_code == 503
            assert int(unknown.headers["retry-after"]) >= 1
            assert await one.metric("mcp_auth_failures_total", reason="Unavailable") == 1
        finally:
            plane.start_apiserver()
        async with calling(one.url, token=bob) as again:
            assert data(await again.call_tool("list_gpu_nodes", {}))["nodes"]["total"] == 1


async def test_it_starts_without_an_api_server_but_is_not_ready(plane: ControlPlane, tmp_path: Path) -> None:
    own = plane.service_account_kubeconfig(tmp_path / "own", "gpudiag-mcp")
    plane.stop_apiserver()
    try:
        async with facade(own, ready=False) as one:
            await one.listening()
            answer = await one.get("/readyz")
            assert (answer.status_code, answer.json()["status"]) == (503, "NotReady")
            assert (await one.get("/healthz")).status_code == 200
            plane.start_apiserver()
            await one.ready()
            # An API server that has just started may end the first watches once more: what was listed stays.
            async with asyncio.timeout(20):
                while (kept := (await one.get("/readyz")).json()["backends"][0]["gpunodes"])["state"] != "Synced":
                    assert (kept["state"], kept["objects"]) == ("Unreachable", 1)
                    await asyncio.sleep(0.05)
            assert kept["objects"] == 1
    finally:
        if not _answers(plane):
            plane.start_apiserver()


def _answers(plane: ControlPlane) -> bool:
    return "kube-apiserver" in plane.pids
