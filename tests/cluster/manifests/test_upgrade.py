"""From a former release to this one, on an API server of its own: questions and answers survive."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.manifests.helm import Helm, program
from tests.cluster.manifests.rendering import CHART, ROOT
from tests.cluster.operator.conftest import Rig
from tests.unit.manifests.releases import CHARTS, crds, current, schema

from gpudiag_cli.controlplane import ControlPlane, Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
RECORDED: dict[str, Any] = json.loads((ROOT / "tests" / "unit" / "manifests" / "recorded.json").read_text())
WHERE = ("--namespace=gpudiag-system",)
KINDS = ("gpudiagnostics.gpudiag.dev", "gpunodes.gpudiag.dev")


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with ControlPlane.start(tmp_path / "plane") as started:
        yield started


def establish(kubectl: Kubectl, definitions: dict[str, dict[str, Any]]) -> None:
    text = yaml.safe_dump_all(definitions.values())
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
    kubectl("wait", "--for=condition=Established", "--timeout=30s", *(f"crd/{name}" for name in KINDS))


def put(kubectl: Kubectl, item: dict[str, Any], namespace: str) -> None:
    """An object with the status that a former operator wrote."""
    metadata = {"name": item["metadata"]["name"]}
    where = (f"--namespace={namespace}",) if item["kind"] == "GPUDiagnostic" else ()
    plain = {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata, "spec": item["spec"]}
    kubectl("create", "-f", "-", *where, stdin=json.dumps(plain))
    status = json.dumps({"status": item["status"]})
    kubectl("patch", item["kind"], metadata["name"], *where, "--subresource=status", "--type=merge", "-p", status)


def stored(kubectl: Kubectl) -> dict[str, Any]:
    """Spec and status of every object of ours."""
    items = kubectl.json("get", "gpudiagnostics,gpunodes", "--all-namespaces")["items"]
    return {f"{item['kind']}/{item['metadata']['name']}": (item["spec"], item.get("status")) for item in items}


@pytest.mark.parametrize("chart", CHARTS, ids=lambda path: path.parent.name)
def test_helm_upgrades_from_a_former_release_and_loses_nothing(
    plane: ControlPlane, chart: Path, tmp_path: Path
) -> None:
    kubectl, helm = plane.client(), Helm(program(), tmp_path, plane.kubeconfig)
    helm("install", "gpudiag", chart, *WHERE, "--create-namespace")
    for item in RECORDED.values():
        put(kubectl, item, "gpudiag-system")
    before = stored(kubectl)
    kinds = helm("show", "crds", CHART).stdout
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=kinds)
    said = helm("upgrade", "gpudiag", CHART, *WHERE).stdout
    assert "is not the one of this chart" not in said
    after = stored(kubectl)
    assert {name: after[name] for name in before} == before


def without_a_field() -> dict[str, dict[str, Any]]:
    """Kinds of a release that did not know `status.history` and `spec.suspend` yet."""
    older = copy.deepcopy(current())
    diagnostics = schema(older[KINDS[0]])["properties"]
    del diagnostics["spec"]["properties"]["suspend"]
    del diagnostics["status"]["properties"]["history"]
    return older


def test_an_operator_outlives_older_kinds_and_uses_the_new_field_once_they_are_there(
    plane: ControlPlane, tmp_path: Path
) -> None:
    kubectl = plane.client()
    establish(kubectl, without_a_field())
    plane.restart_controller_manager()
    rig = Rig(plane, kubectl, tmp_path)
    try:
        rig.add_node("up-1")
        rig.diagnostic("fleet", interval="5s")
        operator = rig.start()
        rig.eventually(lambda: rig.status("fleet").get("verdict") == "Healthy")
        assert "history" not in rig.status("fleet"), "the API server drops what it does not know"
        establish(kubectl, current())
        rig.nodes["up-1"].lose_gpu()
        rig.eventually(lambda: rig.status("fleet").get("verdict") == "Unhealthy")
        assert rig.status("fleet")["history"], "the new field is used, by the same process"
        rig.diagnostic("fleet", interval="5s", suspend=True)
        rig.eventually(lambda: rig.condition("fleet", "Ready").get("reason") == "Suspended")
        assert operator.process.poll() is None
    finally:
        rig.close()


def test_kinds_of_before_are_those_of_the_release_that_was_frozen() -> None:
    assert {name for chart in CHARTS for name in crds(chart)} == set(KINDS)
