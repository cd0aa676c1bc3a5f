"""gpudiag on real kubelets, in the order of its life: installed, used, disturbed, upgraded and taken away.

The tests of this file build on each other, like an operator's day; pytest runs them in this order.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpudiag_api.version import __version__

from .conftest import NAMESPACE, ROOT, Cluster

pytestmark = pytest.mark.e2e

POD_RESOURCES = "/var/lib/kubelet/pod-resources/kubelet.sock"
WORKER = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "worker", "namespace": "default"},
    "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "train",
                "image": f"gpudiag-agent:{__version__}",
                "command": ["sleep", "infinity"],
                "resources": {"limits": {"nvidia.com/gpu": 1}},
            }
        ],
    },
}


def kustomization(cluster: Cluster) -> str:
    """The objects of overlays/kind; the simulated agents read the real kubelet's allocations."""
    text: str = cluster.kubectl("kustomize", ROOT / "manifests" / "overlays" / "kind").stdout
    simulated = "        - name: GPUDIAG_SOURCE\n          value: simulated\n"
    assert simulated in text
    return text.replace(
        simulated, f"{simulated}        - name: GPUDIAG_POD_RESOURCES\n          value: {POD_RESOURCES}\n"
    )


def apply(cluster: Cluster) -> None:
    """As docs/install.md has it: the first time the kinds are not yet served when the first diagnostic is sent."""
    text = kustomization(cluster)
    arguments = ("apply", "--server-side", "--filename=-")
    cluster.until("apply", lambda: cluster.kubectl(*arguments, stdin=text, check=False).returncode == 0, 30)


def node(cluster: Cluster) -> dict[str, Any]:
    """The first GPUNode's status."""
    items = cluster.json("get", "gpunodes")["items"]
    return items[0].get("status", {}) if items else {}


def is_healthy(cluster: Cluster) -> bool:
    """Whether the agent's report got all the way to the GPUNode."""
    return node(cluster).get("health") == "Healthy"


def test_everything_becomes_ready_under_its_security_context(cluster: Cluster) -> None:
    apply(cluster)
    # The kubelet looks once a minute whether the Secret with the agents' certificate has come.
    cluster.until("Ready agent", lambda: cluster.ready("gpudiag-agent"), 200)
    operator = cluster.until("Ready operator", lambda: cluster.ready("gpudiag-operator"))[0]
    context = operator["spec"]["containers"][0]["securityContext"]
    assert context["readOnlyRootFilesystem"]
    assert operator["spec"]["securityContext"]["runAsNonRoot"]
    assert operator["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_diagnostic_becomes_ready(cluster: Cluster) -> None:
    cluster.until("Healthy GPUNode", lambda: is_healthy(cluster))
    wait = ("wait", "--for=condition=Ready", "gpudiagnostic/fleet", f"--namespace={NAMESPACE}", "--timeout=60s")
    cluster.kubectl(*wait)
    status = cluster.json("get", "gpudiagnostic", "fleet", f"--namespace={NAMESPACE}")["status"]
    assert status["verdict"] == "Healthy"


@pytest.fixture
def device_plugin(cluster: Cluster) -> Iterator[None]:
    """NVIDIA's device plugin, as far as the kubelet can tell."""
    if cluster.node is None:
        pytest.skip("a stand-in device plugin needs a node of this machine")
    uuids = [gpu["uuid"] for gpu in node(cluster)["gpus"]]
    program = Path(__file__).with_name("deviceplugin.py")
    inside = ["nsenter", f"--target={cluster.node.init}", "--net", "--mount", "--"]
    with subprocess.Popen([*inside, sys.executable, program, *uuids], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "registered\n"
        yield
        process.kill()


@pytest.mark.usefixtures("device_plugin")
def test_a_gpu_that_the_kubelet_gave_a_pod_is_seen_in_allocations(cluster: Cluster) -> None:
    see_the_worker(cluster)


@pytest.mark.usefixtures("device_plugin")
def test_the_agent_that_comes_after_a_deleted_one_is_read(cluster: Cluster) -> None:
    before = cluster.ready("gpudiag-agent")[0]["metadata"]["name"]
    cluster.kubectl("delete", "pod", before, f"--namespace={NAMESPACE}")
    after = cluster.until("Ready agent", lambda: cluster.ready("gpudiag-agent"))
    assert [pod["metadata"]["name"] for pod in after] != [before]
    # A new Pod alone changes nothing that means anything, so it is not written; what only the new agent can know is.
    see_the_worker(cluster)


def see_the_worker(cluster: Cluster) -> None:
    """A Pod gets a GPU from the kubelet, and its node's status says so for as long as the Pod is there."""
    cluster.kubectl("apply", "--filename=-", stdin=json.dumps(WORKER))
    allocations = cluster.until("allocation", lambda: node(cluster).get("allocations"))
    found = [(one["namespace"], one["pod"], one["container"]) for one in allocations]
    assert found == [("default", "worker", "train")]
    cluster.kubectl("delete", "pod", "worker", "--namespace=default")
    cluster.until("free GPU", lambda: not node(cluster).get("allocations"))


def test_another_operator_takes_over_from_one_that_was_killed(cluster: Cluster) -> None:
    before = cluster.ready("gpudiag-operator")[0]["metadata"]["name"]
    kill = ("delete", "pod", before, f"--namespace={NAMESPACE}", "--grace-period=0", "--force")
    cluster.kubectl(*kill)
    lease = ("get", "lease", "gpudiag-operator", f"--namespace={NAMESPACE}")

    def held_by_another() -> bool:
        holder = cluster.json(*lease)["spec"].get("holderIdentity") or ""
        return bool(holder) and not holder.startswith(before)

    cluster.until("other holder", held_by_another)
    cluster.until("Ready operator", lambda: cluster.ready("gpudiag-operator"))


def test_an_agent_stays_on_a_drained_node(cluster: Cluster) -> None:
    name = cluster.json("get", "nodes")["items"][0]["metadata"]["name"]
    if len(cluster.json("get", "nodes")["items"]) > 1 or cluster.node is None:
        pytest.skip("only nodes of this machine are drained")
    try:
        cluster.kubectl("drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s")
        assert cluster.ready("gpudiag-agent")
    finally:
        cluster.kubectl("uncordon", name)
    cluster.until("Ready operator", lambda: cluster.ready("gpudiag-operator"))


def test_nothing_but_the_kinds_is_left_after_uninstalling(cluster: Cluster) -> None:
    crds = "customresourcedefinitions.apiextensions.k8s.io"
    objects = kustomization(cluster).split("\n---\n")
    rest = "\n---\n".join(text for text in objects if "kind: CustomResourceDefinition" not in text)
    cluster.kubectl("delete", "--filename=-", "--ignore-not-found", "--timeout=120s", stdin=rest, timeout=180)
    for kind in ("pods", "secrets", "leases", "roles", "gpudiagnostics"):
        assert cluster.json("get", kind, f"--namespace={NAMESPACE}")["items"] == [], kind
    roles = cluster.json("get", "clusterroles,clusterrolebindings")["items"]
    assert [one["metadata"]["name"] for one in roles if one["metadata"]["name"].startswith("gpudiag")] == []
    assert len([one for one in cluster.json("get", crds)["items"] if one["spec"]["group"] == "gpudiag.dev"]) == 2
