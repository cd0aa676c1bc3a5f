"""The real operator and a real agent: tokens and a certificate that the operator makes, and what GPUNodes say."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cluster.access.conftest import AUDIENCE, AgentProcess, Start, account
from tests.cluster.operator.conftest import Rig
from tests.unit.agent.tls_world import put

from gpudiag_cli.controlplane import ControlPlane, Kubectl
from gpudiag_operator.agent_tls.pairs import Pair

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SECRET = "gpudiag-agent-tls"


@pytest.fixture
def rig(control_plane: ControlPlane, kubectl: Kubectl, crds: list[str], tmp_path: Path) -> Iterator[Rig]:
    made = Rig(control_plane, kubectl, tmp_path)
    try:
        yield made
    finally:
        made.close()


def kubelet(rig: Rig, folder: Path) -> bytes:
    """Bring the Secret to the node; gives its bundle."""
    stored = rig.kubectl.json("get", "secret", SECRET, "-n", rig.namespace).get("data", {})
    data = {key: base64.b64decode(value) for key, value in stored.items()}
    put(folder, Pair(certificate=data["tls.crt"], key=data["tls.key"], authority=data["ca.crt"]))
    return data["ca.crt"]


def filled(rig: Rig) -> bool:
    said = rig.kubectl("get", "secret", SECRET, "-n", rig.namespace, "-o", "jsonpath={.data.tls\\.crt}", check=False)
    return bool(said.stdout)


def put_agent(rig: Rig, agent: AgentProcess, node: str, *, ready: bool = True) -> None:
    rig.add_node(node, agent=False)
    rig.kubectl.apply(rig.pod(SimpleNamespace(node=node, port=agent.port), f"agent-{node}"))
    rig.set_pod(f"agent-{node}", ip=agent.address, ready=ready)


def reachable(rig: Rig, node: str) -> tuple[str, str]:
    """Reason and message of the condition AgentReachable."""
    conditions = rig.gpunode(node).get("status", {}).get("conditions", [])
    found: dict[str, Any] = next((one for one in conditions if one["type"] == "AgentReachable"), {})
    return found.get("reason", ""), found.get("message", "")


def breaker(rig: Rig, node: str) -> tuple[str, int]:
    found = rig.gpunode(node)["status"]["breaker"]
    return found["state"], found.get("failures", 0)


def test_from_an_empty_secret_to_a_healthy_node_and_every_refusal_in_its_own_words(
    rig: Rig, start: Start, tmp_path: Path
) -> None:
    folder, token = tmp_path / "tls", tmp_path / "token"
    flags = account(rig.plane, rig.kubectl, rig.namespace, tmp_path)
    agent = start(*flags, "--tls-cert-dir", str(folder), address="127.99.7.1", node="tls-1")
    put_agent(rig, agent, "tls-1", ready=False)

    def show(audience: str) -> None:
        fresh = tmp_path / "fresh"
        fresh.write_text(
            rig.plane.service_account_token("gpudiag-operator", namespace=rig.namespace, audience=audience)
        )
        fresh.rename(token)

    show(AUDIENCE)
    agent.until(lambda: agent.probe("/healthz")[0] == 200)
    agent.until(lambda: "no tls.crt" in str(agent.probe("/readyz")[1]))
    # As the manifests bring it: empty, and whoever applies them again finds no difference.
    metadata = {"name": SECRET, "namespace": rig.namespace}
    in_git = json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"})
    rig.kubectl("apply", "-f", "-", stdin=in_git)
    rig.start("--agent-tls", "managed", "--agent-token-file", str(token))
    rig.eventually(lambda: filled(rig))
    for how in ((), ("--server-side", "--force-conflicts")):
        rig.kubectl("apply", *how, "-f", "-", stdin=in_git)
        assert filled(rig)
        assert not rig.kubectl("diff", *how, "-f", "-", stdin=in_git).stdout
    kubelet(rig, folder)
    agent.until(lambda: agent.probe("/readyz")[0] == 200)
    rig.set_pod("agent-tls-1", ip=agent.address, ready=True)
    rig.eventually(lambda: rig.health("tls-1")[0] == "Healthy")

    # A token that is meant for another: its own word, what to do, and nothing for the breaker.
    show("gpudiag-mcp")
    rig.eventually(lambda: rig.health("tls-1") == ("Unknown", "Unauthorized"), 60)
    time.sleep(8)
    reason, said = reachable(rig, "tls-1")
    assert reason == "Unauthorized"
    assert "--agent-token-file" in said
    assert breaker(rig, "tls-1") == ("Closed", 0)
    show(AUDIENCE)
    rig.eventually(lambda: rig.health("tls-1")[0] == "Healthy", 60)

    # As after a leaked key: emptied, made anew, and the old certificate is believed no more.
    rig.kubectl("patch", "secret", SECRET, "-n", rig.namespace, "--type=merge", "-p", '{"data": null}')
    rig.eventually(lambda: filled(rig), 60)
    rig.kubectl("delete", "pod", "agent-tls-1", "-n", rig.namespace, "--grace-period=0", "--force")
    put_agent_again(rig, agent)
    rig.eventually(lambda: rig.health("tls-1")[1] == "IdentityMismatch", 90)
    assert "could not show that it is an agent" in reachable(rig, "tls-1")[1]
    assert breaker(rig, "tls-1") == ("Closed", 0)
    kubelet(rig, folder)
    rig.eventually(lambda: rig.health("tls-1")[0] == "Healthy", 60)


def put_agent_again(rig: Rig, agent: AgentProcess) -> None:
    rig.kubectl.apply(rig.pod(SimpleNamespace(node="tls-1", port=agent.port), "agent-tls-1"))
    rig.set_pod("agent-tls-1", ip=agent.address, ready=True)


def test_an_agent_that_cannot_ask_the_api_server_is_no_fault_of_the_node(
    rig: Rig, start: Start, tmp_path: Path
) -> None:
    flags = account(rig.plane, rig.kubectl, rig.namespace, tmp_path)
    rig.kubectl("delete", "clusterrolebinding", f"test-agent-{rig.namespace}")
    agent = start(*flags, address="127.99.7.2", node="tls-2")
    agent.until(lambda: agent.probe("/readyz")[0] == 200)
    put_agent(rig, agent, "tls-2")
    token = tmp_path / "token"
    token.write_text(rig.plane.service_account_token("gpudiag-operator", namespace=rig.namespace, audience=AUDIENCE))
    rig.start("--agent-token-file", str(token))
    rig.eventually(lambda: rig.health("tls-2") == ("Unknown", "AuthUnavailable"), 30)
    time.sleep(8)
    assert "grant it to create tokenreviews" in reachable(rig, "tls-2")[1]
    assert breaker(rig, "tls-2") == ("Closed", 0)
