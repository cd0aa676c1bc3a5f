"""The API server's strict dry run accepts every object we ship, and `restricted` accepts the operator."""

from pathlib import Path

import pytest
import yaml

from gpudiag_cli.controlplane import Kubectl

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds")]


@pytest.fixture
def system_namespace(kubectl: Kubectl) -> None:
    kubectl("apply", "--server-side", "-f", ROOT / "manifests/base/namespace.yaml")


@pytest.mark.usefixtures("system_namespace")
@pytest.mark.parametrize("folder", ["base", "samples"])
def test_every_object_is_accepted(kubectl: Kubectl, folder: str) -> None:
    rendered = kubectl("kustomize", ROOT / "manifests" / folder).stdout
    applied = kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=rendered)
    assert len(applied.stdout.splitlines()) == len(list(yaml.safe_load_all(rendered)))


def test_the_operator_satisfies_the_restricted_standard(kubectl: Kubectl, namespace: str) -> None:
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    manifests = yaml.safe_load_all((ROOT / "manifests/base/operator.yaml").read_text())
    template = next(item for item in manifests if item["kind"] == "Deployment")["spec"]["template"]
    # A priority class of the system's may be used in kube-system only on the embedded server; it is not the point here.
    spec = {
        key: value for key, value in template["spec"].items() if key not in {"priorityClassName", "serviceAccountName"}
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator", "namespace": namespace}, "spec": spec}
    answer = kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod))
    assert "pod/operator created" in answer.stdout


def test_a_privileged_pod_is_refused_there(kubectl: Kubectl, namespace: str) -> None:
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    manifests = yaml.safe_load_all((ROOT / "manifests/base/agent.yaml").read_text())
    template = next(item for item in manifests if item["kind"] == "DaemonSet")["spec"]["template"]
    spec = {
        key: value for key, value in template["spec"].items() if key not in {"priorityClassName", "serviceAccountName"}
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent", "namespace": namespace}, "spec": spec}
    answer = kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod), check=False)
    assert "violates PodSecurity" in answer.stderr
