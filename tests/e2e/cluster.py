"""What the end-to-end suite needs of a cluster, whoever provides it."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.cluster.manifests.helm import program as helm_program
from tests.e2e.onenode.node import Node

ROOT = Path(__file__).resolve().parents[2]
ASKING = Path(__file__).with_name("asking.py").read_text(encoding="utf-8")
OWN_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
API_SERVER = {
    "ca_file": "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
    "token_files": {"Authorization": OWN_TOKEN},
}
"""How a Pod speaks to the API server, with its own rights."""
CRDS = ("gpudiagnostics.gpudiag.dev", "gpunodes.gpudiag.dev")


class Run(Protocol):
    """Runs a command where the cluster can be reached, with its kubeconfig."""

    def __call__(
        self, command: list[str | Path], *, stdin: str = "", check: bool = True, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]: ...


@dataclass(frozen=True)
class Answer:
    """What an address said; status 0: nothing, and the body says why."""

    status: int
    body: str
    certificate: str
    """SHA-256 of the server's certificate, hexadecimal; empty without TLS."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Cluster:
    """A cluster with the images of this checkout, and nothing of gpudiag in it at first."""

    provider: str
    program: Path
    """kubectl."""
    run: Run
    scratch: Path
    node: Node | None = None
    """None where its nodes are not this machine's."""
    layers: dict[str, Path] = field(default_factory=dict)
    """Archives of the images that were built here, by name."""

    def kubectl(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run([self.program, *arguments], **options)

    def helm(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        homes = [f"HELM_{name}_HOME={self.scratch / name}" for name in ("CACHE", "CONFIG", "DATA")]
        return self.run(["env", *homes, helm_program(), *arguments], **options)

    def json(self, *arguments: str | Path) -> Any:
        """What kubectl says with `--output=json`."""
        return json.loads(self.kubectl(*arguments, "--output=json").stdout)

    def ask(self, pod: str, namespace: str, *requests: dict[str, Any]) -> list[Answer]:
        """Send requests (asking.py) from inside a Pod."""
        inside = ("exec", "--stdin", pod, f"--namespace={namespace}", "--", "python3", "-c", ASKING)
        done = self.kubectl(*inside, stdin=json.dumps(requests))
        return [Answer(**one) for one in json.loads(done.stdout)]

    def until(self, what: str, done: Callable[[], Any], seconds: float = 120.0) -> Any:
        """Wait for something true, and give it.

        Raises:
            AssertionError: it did not come in time.
        """
        deadline = time.monotonic() + seconds
        while not (value := done()):
            assert time.monotonic() < deadline, f"no {what} within {seconds:.0f} s:\n{self.describe()}"
            time.sleep(0.5)
        return value

    def describe(self) -> str:
        """Pods, resources and warnings, for whoever reads a failure."""
        asked = (("pods,gn,gpud", "--all-namespaces"), ("events", "--all-namespaces", "--field-selector=type=Warning"))
        return "\n".join(self.kubectl("get", *words, check=False).stdout for words in asked)

    def existing(self, kind: str, *names: str) -> list[str]:
        """Which of these cluster-scoped objects are there."""
        said = self.kubectl("get", kind, *names, "--ignore-not-found", "--output=name").stdout
        return [line.split("/")[1] for line in said.split()]


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether a Pod is Ready and is not being deleted."""
    conditions = pod["status"].get("conditions", [])
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


@dataclass(frozen=True)
class Installation:
    """gpudiag in a namespace of a cluster."""

    cluster: Cluster
    namespace: str

    @property
    def where(self) -> str:
        return f"--namespace={self.namespace}"

    def ready(self, label: str) -> list[dict[str, Any]]:
        """The Pods of a part that are Ready and not being deleted."""
        found = self.cluster.json("get", "pods", self.where, f"--selector=app.kubernetes.io/name=gpudiag-{label}")
        return [pod for pod in found["items"] if is_ready(pod)]

    def pod(self, label: str) -> dict[str, Any]:
        """The first Ready Pod of a part, once there is one."""
        found: dict[str, Any] = self.cluster.until(f"Ready {label}", lambda: self.ready(label))[0]
        return found

    def name(self, label: str) -> str:
        """Its name."""
        return str(self.pod(label)["metadata"]["name"])

    def hurry(self) -> None:
        """Have kubelets look now whether Secrets have changed, as a changed Pod makes them; else it takes a minute."""
        stamp = f"e2e/looked={time.time():.0f}"
        self.cluster.kubectl("annotate", "pods", "--all", "--overwrite", stamp, self.where)

    def diagnostic(self, name: str) -> dict[str, Any]:
        """Status of a GPUDiagnostic; empty: none yet."""
        found: dict[str, Any] = self.cluster.json("get", "gpudiagnostic", name, self.where).get("status", {})
        return found

    def gpunode(self) -> dict[str, Any]:
        """Status of the first GPUNode; empty: none yet."""
        items = self.cluster.json("get", "gpunodes")["items"]
        return items[0].get("status", {}) if items else {}

    def is_healthy(self) -> bool:
        """Whether an agent's report got all the way to the GPUNode."""
        return self.gpunode().get("health") == "Healthy"

    def token(self, account: str, *, audience: str = "gpudiag-agent") -> str:
        """A new token of a service account, from the TokenRequest API."""
        create = ("create", "token", account, self.where, f"--audience={audience}", "--duration=10m")
        return self.cluster.kubectl(*create).stdout.strip()

    def leftovers(self) -> dict[str, list[str]]:
        """What an uninstall should have taken away, by kind; the kinds themselves may stay."""
        kinds = (
            "pods,services,secrets,configmaps,leases,roles,rolebindings,serviceaccounts,networkpolicies,gpudiagnostics"
        )
        found = self.cluster.json("get", kinds, self.where)["items"]
        found += self.cluster.json("get", "clusterroles,clusterrolebindings,priorityclasses")["items"]
        left: dict[str, list[str]] = {}
        for item in found:
            name = item["metadata"]["name"]
            # What the control plane puts into every namespace and every cluster.
            if name not in {"default", "kube-root-ca.crt"} and ("namespace" in item["metadata"] or "gpudiag" in name):
                left.setdefault(item["kind"], []).append(name)
        return left


def clean(cluster: Cluster, *namespaces: str) -> None:
    """Take away whatever a suite that failed has left: namespaces, releases, cluster roles, kinds."""
    for kind in ("clusterroles", "clusterrolebindings"):
        if found := [name for name in cluster.existing(kind) if name.startswith(("gpudiag", "e2e-"))]:
            cluster.kubectl("delete", kind, *found)
    for kind, names in (("crd", CRDS), ("namespace", namespaces)):
        cluster.kubectl("delete", kind, *names, "--ignore-not-found", "--timeout=120s", timeout=150)
