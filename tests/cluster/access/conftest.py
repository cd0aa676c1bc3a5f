"""A real agent that asks a real API server about tokens, over TLS where a test wants it."""

import base64
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpudiag_cli.controlplane import ControlPlane, Kubectl

AUDIENCE = "gpudiag-agent"
REVIEWER = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "test-agent-reviews"},
    "rules": [{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}],
}


class AgentProcess:
    """A running ``gpudiag-agent`` with simulated GPUs."""

    def __init__(self, folder: Path, *flags: str, address: str = "127.0.0.1", node: str = "n") -> None:
        self.address, self.port, self.health = address, free_port(address), free_port(address)
        command = [sys.executable, "-m", "gpudiag_agent", "--source", "simulated", "--node-name", node]
        command += ["--host", address, "--port", str(self.port), "--health-port", str(self.health), *flags]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GPUDIAG_")}
        self.log = folder / f"agent-{self.port}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)

    def get(self, path: str, token: str | None = None, context: ssl.SSLContext | None = None) -> tuple[int, Any]:
        """Status and document; 0: nobody answers."""
        url = f"http{'s' if context else ''}://{self.address}:{self.port}{path}"
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return get(url, headers, context)

    def probe(self, path: str) -> tuple[int, Any]:
        """As the kubelet does."""
        return get(f"http://{self.address}:{self.health}{path}", {})

    def until(self, true: Callable[[], object], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def get(url: str, headers: dict[str, str], context: ssl.SSLContext | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
    except OSError as error:
        return 0, str(error)


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as free:
        port: int = free.getsockname()[1]
        return port


def account(plane: ControlPlane, kubectl: Kubectl, namespace: str, folder: Path) -> tuple[str, ...]:
    """Flags of an agent with a service account of its own, which may review tokens and nothing else."""
    subject = {"kind": "ServiceAccount", "name": "gpudiag-agent", "namespace": namespace}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"test-agent-{namespace}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "test-agent-reviews"},
        "subjects": [subject],
    }
    for name in ("gpudiag-agent", "gpudiag-operator", "stranger"):
        kubectl("create", "serviceaccount", name, "-n", namespace)
    kubectl.apply(REVIEWER, binding)
    own = folder / "account"
    own.mkdir()
    (own / "token").write_text(plane.service_account_token("gpudiag-agent", namespace=namespace))
    (own / "ca.crt").write_bytes(plane.apiserver_ca.read_bytes())
    return (
        *("--auth", "tokenreview", "--allowed-service-accounts", f"{namespace}/gpudiag-operator"),
        *("--api-server", plane.server, "--service-account-dir", str(own)),
    )


def signed(plane: ControlPlane, kubectl: Kubectl, namespace: str, *, ends_in: float, audience: str = AUDIENCE) -> str:
    """A token of gpudiag-operator by the cluster's own key; TokenRequest gives none that ends within ten minutes."""
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import padding, rsa  # noqa: PLC0415

    key = serialization.load_pem_private_key(plane.apiserver_ca.with_suffix(".key").read_bytes(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    found = kubectl.json("get", "serviceaccount", "gpudiag-operator", "-n", namespace)["metadata"]
    now = time.time()
    claims = {
        "iss": "https://kubernetes.default.svc",
        "aud": [audience],
        "sub": f"system:serviceaccount:{namespace}:gpudiag-operator",
        "iat": int(now - 1000),
        "nbf": int(now - 1000),
        "exp": int(now + ends_in),
        "kubernetes.io": {
            "namespace": namespace,
            "serviceaccount": {"name": "gpudiag-operator", "uid": found["uid"]},
        },
    }
    parts = [_part(json.dumps(one).encode()) for one in ({"alg": "RS256", "typ": "JWT"}, claims)]
    signature = key.sign(".".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
    return ".".join((*parts, _part(signature)))


def _part(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


Start = Callable[..., AgentProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """``start("--auth", …)`` gives a running agent, ended after the test."""
    running: list[AgentProcess] = []

    def one(*flags: str, **how: Any) -> AgentProcess:
        running.append(AgentProcess(tmp_path, *flags, **how))
        return running[-1]

    yield one
    for agent in running:
        agent.stop()
