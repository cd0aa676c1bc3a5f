"""The facade over real HTTP against a real API server: who is let in, and who sees what."""

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from mcp.types import ElicitResult
from tests.cluster.mcp.facade import ACCEPT, AUDIENCE, IMPERSONATION, RULES, Facade, calling, facade, message
from tests.unit.mcp.test_server import data, said
from tests.unit.mcp.world import finding, node

from gpudiag_cli.controlplane import ControlPlane, Kubectl

pytestmark = pytest.mark.cluster

Store = Callable[..., Any]
Account = Callable[..., str]
ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"])
VIEWER: list[dict[str, Any]] = [
    {"apiGroups": ["gpudiag.dev"], "resources": ["gpunodes", "gpudiagnostics"], "verbs": ["get", "list"]}
]


@pytest.fixture
def account(control_plane: ControlPlane, kubectl: Kubectl, namespace: str) -> Iterator[Account]:
    """``account("alice", rules)`` makes a service account with these cluster-wide rights; gives a token of it."""
    roles: list[str] = []

    def make(name: str, rules: list[dict[str, Any]] | None = None, *, audience: str | None = AUDIENCE) -> str:
        if not kubectl("get", "serviceaccount", name, "-n", namespace, "--ignore-not-found").stdout:
            kubectl("create", "serviceaccount", name, "-n", namespace)
        if rules:
            role = f"test-{uuid4().hex[:8]}"
            roles.append(role)
            rbac = "rbac.authorization.k8s.io"
            kubectl.apply(
                {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": role}, "rules": rules},
                {
                    "apiVersion": f"{rbac}/v1",
                    "kind": "ClusterRoleBinding",
                    "metadata": {"name": role},
                    "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
                    "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
                },
            )
        return control_plane.service_account_token(name, namespace=namespace, audience=audience)

    yield make
    for role in roles:
        kubectl("delete", "clusterrolebinding,clusterrole", role, "--ignore-not-found")


@pytest.fixture
def own(control_plane: ControlPlane, account: Account, namespace: str, tmp_path: Path) -> Path:
    """The kubeconfig of the facade's own service account."""
    token = account("gpudiag-mcp", [*RULES, *IMPERSONATION], audience=None)
    return control_plane.write_kubeconfig(tmp_path / "own", namespace=namespace, user="own", token=token)


@pytest.fixture
async def running(own: Path, store: Store) -> AsyncIterator[Facade]:
    await store(node("gpu-a"), node("gpu-b", health="Unhealthy", findings=[finding()]))
    async with facade(own) as one:
        yield one


async def post(url: str, token: str = "", body: Any = None, **headers: str) -> httpx2.Response:
    own = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx2.AsyncClient(trust_env=False) as http:
        return await http.post(url, json=body or message(), headers={**ACCEPT, **own, **headers})


class TestWhoSeesWhat:
    @ERAS
    async def test_a_caller_sees_what_their_own_rights_allow(
        self, running: Facade, account: Account, namespace: str, mode: str
    ) -> None:
        async with calling(running.url, token=account("alice", VIEWER), mode=mode) as client:
            answer = data(await client.call_tool("get_gpu_health", {}))
        assert answer["verdict"] == "Unhealthy"
        assert answer["source"]["identity"] == f"system:serviceaccount:{namespace}:alice"
        assert answer["source"]["freshness"] == "Unknown"
        assert "may not be read (get leases)" in answer["source"]["freshness_reason"]

    async def test_a_cached_object_is_forbidden_without_the_callers_own_right(
        self, running: Facade, account: Account, namespace: str
    ) -> None:
        async with calling(running.url, token=account("alice", VIEWER)) as client:
            assert not (await client.call_tool("describe_gpu_node", {"node": "gpu-b"})).is_error
        async with calling(running.url, token=account("mallory")) as client:
            for tool, arguments in (("describe_gpu_node", {"node": "gpu-b"}), ("get_gpu_health", {})):
                result = await client.call_tool(tool, arguments)
                assert result.is_error
                assert said(result).startswith(f"Forbidden: system:serviceaccount:{namespace}:mallory may not")
                assert "gpu-b" not in said(result).replace("get gpunodes", "")
            with pytest.raises(Exception, match="Forbidden"):
                await client.read_resource("gpudiag://fleet")

    @pytest.mark.slow
    async def test_a_right_for_one_name_shows_that_one(self, running: Facade, account: Account) -> None:
        one = [{"apiGroups": ["gpudiag.dev"], "resources": ["gpunodes"], "verbs": ["get"], "resourceNames": ["gpu-a"]}]
        async with calling(running.url, token=account("bob", one)) as client:
            assert data(await client.call_tool("describe_gpu_node", {"node": "gpu-a"}))
            assert (await client.call_tool("describe_gpu_node", {"node": "gpu-b"})).is_error

    @pytest.mark.slow
    async def test_unknown_arguments_are_refused_here_too(self, running: Facade, account: Account) -> None:
        async with calling(running.url, token=account("alice", VIEWER)) as client:
            result = await client.call_tool("get_gpu_health", {"context": "prod"})
        assert said(result).startswith("UnknownArgument: get_gpu_health has no argument 'context'")

    async def test_logs_and_metrics_tell_who_asked_what_where(
        self, running: Facade, account: Account, namespace: str
    ) -> None:
        parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        call = message("tools/call", name="get_gpu_health", arguments={})
        answer = await post(running.url, account("alice", VIEWER), call, traceparent=parent)
        assert answer.status_code == 200
        assert answer.headers["x-request-id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
        asked = running.said(correlationID="4bf92f3577b34da6a3ce929d0e0e4736", message="asked")
        assert [line["identity"] for line in asked] == [f"system:serviceaccount:{namespace}:alice"]
        assert asked[0]["cluster"]
        assert asked[0]["tool"] == "get_gpu_health"
        assert await running.metric("mcp_requests_total", tool="get_gpu_health", status="ok") == 1
        assert await running.metric("mcp_request_duration_seconds_count", tool="get_gpu_health") == 1
        assert await running.metric("mcp_node_health", node="gpu-a") == 1
        assert await running.metric("mcp_node_health", node="gpu-b") == 0
        assert await running.metric("mcp_auth_attempts_total") == 1


@pytest.mark.slow
class TestTheDoor:
    async def test_without_a_token_there_is_nothing(self, running: Facade) -> None:
        answer = await post(running.url)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="gpudiag-mcp"'
        assert "send a token" in answer.json()["error"]["message"]
        assert await running.metric("mcp_auth_failures_total", reason="Missing") == 1

    async def test_a_token_for_somebody_else_is_refused(
        self, running: Facade, account: Account, control_plane: ControlPlane
    ) -> None:
        account("alice", VIEWER)
        for audience in ("vault", None):  # None: the API server's own audience, as every Pod has by default
            answer = await post(running.url, account("alice", audience=audience))
            assert answer.status_code == 401
            assert 'error="invalid_token"' in answer.headers["www-authenticate"]
            assert "--audience=gpudiag-mcp" in answer.json()["error"]["message"]
        assert await running.metric("mcp_auth_failures_total", reason="Audience") == 2

    @pytest.mark.parametrize("token", ["nonsense", "a.b.c", "x" * 8000])
    async def test_what_is_no_token_is_refused(self, running: Facade, token: str) -> None:
        answer = await post(running.url, token)
        assert answer.status_code == 401
        assert await running.metric("mcp_auth_failures_total", reason="Invalid") == 1

    async def test_a_deleted_account_is_refused(
        self, running: Facade, account: Account, kubectl: Kubectl, namespace: str
    ) -> None:
        token = account("eve", VIEWER)
        kubectl("delete", "serviceaccount", "eve", "-n", namespace)
        assert (await post(running.url, token)).status_code == 401

    async def test_a_foreign_host_is_misdirected(self, running: Facade, account: Account) -> None:
        token = account("alice", VIEWER)
        assert (await post(running.url, token, Host="evil.example.com")).status_code == 421
        assert (await post(running.url, token, Host="gpudiag-mcp.gpudiag-system.svc:9812")).status_code == 200
        assert (await post(running.url, token, Origin="http://evil.example.com")).status_code == 403

    async def test_what_is_too_large_is_not_read(self, running: Facade, account: Account) -> None:
        body = message("tools/call", name="get_gpu_health", arguments={"node": "x" * (300 << 10)})
        assert (await post(running.url, account("alice", VIEWER), body)).status_code == 413

    async def test_there_are_no_streams_to_open(self, running: Facade, account: Account) -> None:
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.get(running.url, headers={**ACCEPT, "Authorization": f"Bearer {account('a')}"})
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")

    async def test_too_many_calls_are_told_to_wait(self, own: Path, store: Store, account: Account) -> None:
        await store(node("gpu-a"))
        token = account("alice", VIEWER)
        async with facade(own, "--calls-per-minute=1") as one, calling(one.url, token=token, mode="legacy") as client:
            results = [await client.call_tool("get_gpu_health", {}) for _ in range(1)]
            assert not results[0].is_error
            answers = [await post(one.url, token) for _ in range(5)]
        assert answers[-1].status_code == 429
        assert int(answers[-1].headers["retry-after"]) >= 1


@pytest.mark.slow
class TestCreating:
    async def test_an_approval_asked_by_one_replica_is_taken_by_another(
        self, own: Path, store: Store, account: Account, kubectl: Kubectl, namespace: str, tmp_path: Path
    ) -> None:
        await store(node("gpu-a"))
        editor = [*VIEWER, {"apiGroups": ["gpudiag.dev"], "resources": ["gpudiagnostics"], "verbs": ["create"]}]
        keys = tmp_path / "keys"
        keys.write_text(secrets.token_hex(32))
        flags = ("--allow-create", f"--create-namespaces={namespace}", f"--state-keys={keys}")
        asked: list[str] = []

        async def approve(_: Any, params: Any) -> ElicitResult:
            asked.append(params.message)
            return ElicitResult(action="accept", content={"approve": True})

        arguments = {"node": "gpu-a", "wait_s": 0}
        async with facade(own, *flags) as one, facade(own, *flags) as two:
            token = account("alice", editor)
            async with calling(one.url, two.url, token=token, elicitation_callback=approve) as client:
                answer = data(await client.call_tool("create_gpu_diagnostic", arguments))
            assert one.said(method="tools/call")
            assert two.said(method="tools/call")
            async with calling(one.url, token=account("bob", VIEWER), elicitation_callback=approve) as client:
                refused = said(await client.call_tool("create_gpu_diagnostic", arguments))
        assert len(asked) == 1
        assert f"as system:serviceaccount:{namespace}:alice" in asked[0]
        assert "may not create gpudiagnostics" in refused
        stored = kubectl.json("get", "gpudiagnostic", answer["name"], "-n", namespace, "--show-managed-fields")
        annotations = stored["metadata"]["annotations"]
        assert f"system:serviceaccount:{namespace}:alice" in json.dumps(annotations)

    async def test_without_impersonation_nothing_is_created(
        self, control_plane: ControlPlane, store: Store, account: Account, namespace: str, tmp_path: Path
    ) -> None:
        await store(node("gpu-a"))
        token = account("weak", RULES, audience=None)
        kubeconfig = control_plane.write_kubeconfig(tmp_path / "weak", namespace=namespace, user="weak", token=token)
        editor = [*VIEWER, {"apiGroups": ["gpudiag.dev"], "resources": ["gpudiagnostics"], "verbs": ["create"]}]
        flags = ("--allow-create", "--allow-unattended-create", f"--create-namespaces={namespace}")
        async with facade(kubeconfig, *flags) as one, calling(one.url, token=account("alice", editor)) as client:
            result = await client.call_tool("create_gpu_diagnostic", {"node": "gpu-a", "wait_s": 0})
        assert "NotPermitted: this server may not act for you" in said(result)


@pytest.mark.slow
class TestItsOwnLife:
    async def test_it_runs_with_the_service_account_of_its_pod(
        self, control_plane: ControlPlane, store: Store, account: Account, tmp_path: Path, namespace: str
    ) -> None:
        """The files of a Pod in a folder; the server's path to them is the production one."""
        await store(node("gpu-a"))
        mounted = tmp_path / "serviceaccount"
        mounted.mkdir()
        (mounted / "token").write_text(account("gpudiag-mcp", RULES, audience=None))
        (mounted / "ca.crt").write_bytes(control_plane.apiserver_ca.read_bytes())
        (mounted / "namespace").write_text(namespace)
        program = (
            "import sys; from pathlib import Path; from gpudiag_mcp.kube import kubeconfig; "
            f"kubeconfig.SERVICE_ACCOUNT = Path({str(mounted)!r}); "
            "from gpudiag_mcp.__main__ import main; sys.exit(main())"
        )
        host, _, port = control_plane.server.removeprefix("https://").partition(":")
        environ = {
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "KUBECONFIG": "",
        }
        async with (
            facade(None, environ=environ, program=("-c", program)) as one,
            calling(one.url, token=account("alice", VIEWER)) as client,
        ):
            source = data(await client.call_tool("get_gpu_health", {}))["source"]
        assert source["context"] == "in-cluster"

    async def test_a_request_in_flight_is_finished_at_the_end(
        self, own: Path, store: Store, account: Account, namespace: str
    ) -> None:
        waiting = {"kind": "GPUDiagnostic", "metadata": {"name": "d1", "namespace": namespace}}
        await store({"apiVersion": "gpudiag.dev/v1alpha1", **waiting, "spec": {"mode": "Once"}})
        token = account("alice", VIEWER)
        async with facade(own) as one, calling(one.url, token=token) as client:
            arguments = {"namespace": namespace, "name": "d1", "timeout_s": 2}
            call = asyncio.create_task(client.call_tool("wait_for_gpu_diagnostic", arguments))
            while not one.said(message="asked"):
                await asyncio.sleep(0.02)
            status = await one.stop()
            assert data(await call)["done"] is False
        assert status == 0
        assert one.said(message="stopped")

    @pytest.mark.parametrize(
        ("flags", "status", "says"),
        [
            (("--host=0.0.0.0", "--auth=none"), 2, "--insecure-no-auth"),
            (("--metrics-addr=203.0.113.1:1",), 1, "cannot listen on 203.0.113.1:1"),
            (("--state-keys=/no/such/file",), 1, "--state-keys /no/such/file cannot be read"),
        ],
    )
    async def test_what_is_unsafe_or_impossible_does_not_start(
        self, own: Path, flags: tuple[str, ...], status: int, says: str
    ) -> None:
        command = [sys.executable, "-m", "gpudiag_mcp", "--transport=http", "--port=0", f"--kubeconfig={own}", *flags]
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        _, err = await process.communicate()
        assert process.returncode == status
        assert says in err.decode().splitlines()[-1]
        assert "Traceback" not in err.decode()
