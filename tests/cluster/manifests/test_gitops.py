"""Nothing that Git owns is ever changed: after apply and a busy time `kubectl diff` is empty.

The objects of this run are also those that tests/unit/manifests/recorded.json should hold.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.manifests.rendering import ROOT, kustomize
from tests.cluster.operator.conftest import Rig, rig

__all__ = ["rig"]
pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("foreign_kinds")]

GIT = ("--server-side", "--field-manager=git")
RECORDED = ROOT / "tests" / "unit" / "manifests" / "recorded.json"


@pytest.fixture
def in_git(rig: Rig, tmp_path: Path) -> Iterator[str]:
    """The installation and its questions, as they stand in Git. What it makes of the cluster's own goes again."""
    items = kustomize(rig.kubectl, tmp_path / "git", components=["mcp", "monitoring"], namespace=rig.namespace)
    ours = [item for item in items if item["kind"] != "CustomResourceDefinition"]
    yield yaml.safe_dump_all([*ours, *asked(rig)])
    roles = yaml.safe_dump_all([item for item in ours if item["kind"].startswith("ClusterRole")])
    rig.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=roles)


def test_no_diff_after_sync_and_the_recorded_objects_are_still_true(
    rig: Rig,
    in_git: str,
    tmp_path: Path,
) -> None:
    rig.add_node("go-fine")
    sick, hanging = rig.add_node("go-sick"), rig.add_node("go-hanging")
    for name in ("forced", "dark"):
        rig.add_node(f"go-{name}", agent=name == "forced")
    hanging.hang(fresh_only=True)
    sick.lose_gpu()
    rig.kubectl("apply", *GIT, "-f", "-", stdin=in_git)
    rig.start("--max-diagnostics-per-namespace", "7")
    rig.diagnostic("one-too-many")

    names = {"healthy": "go-fine", "sick": "go-sick", "forced-open": "go-forced", "not-read": "go-dark"}
    rig.eventually(lambda: rig.condition("complete", "Complete").get("status") == "True")
    rig.eventually(lambda: rig.condition("running", "Complete").get("reason") == "Running")
    rig.eventually(lambda: rig.status("sick").get("verdict") == "Unhealthy")
    rig.eventually(lambda: rig.condition("one-too-many", "Stalled").get("status") == "True")
    rig.eventually(lambda: all(rig.gpunode(node).get("status") for node in names.values()))
    rig.eventually(lambda: rig.health("go-forced")[1] == "ForcedOpen")

    said = rig.kubectl("diff", *GIT, "-f", "-", stdin=in_git, check=False)
    assert said.stdout == ""
    assert said.returncode == 0, said.stderr

    found = {f"GPUNode/{name}": rig.gpunode(node) for name, node in names.items()}
    for item in rig.kubectl.json("get", "gpud", "-n", rig.namespace)["items"]:
        if item["metadata"]["name"] != "fleet":
            found[f"GPUDiagnostic/{item['metadata']['name']}"] = item
    now = {name: shape(item) for name, item in found.items()}
    (tmp_path / "recorded.json").write_text(json.dumps({name: plain(found[name]) for name in sorted(found)}, indent=2))
    before = {name: shape(item) for name, item in json.loads(RECORDED.read_text()).items()}
    assert now == before, f"copy {tmp_path / 'recorded.json'} to {RECORDED} and judge it anew"


def asked(rig: Rig) -> list[dict[str, Any]]:
    """What stands in Git besides the installation: seven questions with fleet, and a breaker."""

    def diagnostic(name: str, node: str = "", **spec: Any) -> dict[str, Any]:
        metadata = {"name": name, "namespace": rig.namespace}
        target = {"target": {"nodeNames": [node]}} if node else {}
        return {
            "apiVersion": "gpudiag.dev/v1alpha1",
            "kind": "GPUDiagnostic",
            "metadata": metadata,
            "spec": {**target, **spec},
        }

    return [
        diagnostic("healthy", "go-fine"),
        diagnostic("sick", "go-sick", interval="5s"),
        diagnostic("suspended", "go-fine", suspend=True),
        diagnostic("no-targets", target={"nodeSelector": {"matchLabels": {"no": "such"}}}),
        diagnostic("complete", "go-fine", mode="Once"),
        diagnostic("running", "go-hanging", mode="Once", deadline="5m"),
        {
            "apiVersion": "gpudiag.dev/v1alpha1",
            "kind": "GPUNode",
            "metadata": {"name": "go-forced"},
            "spec": {"circuitBreaker": "ForceOpen"},
        },
    ]


def shape(item: dict[str, Any]) -> dict[str, Any]:
    """What a reader of health goes by."""
    status = item["status"]
    return {
        "conditions": sorted((one["type"], one["status"], one["reason"]) for one in status["conditions"]),
        "observed": status["observedGeneration"] == item["metadata"]["generation"],
        "verdict": status.get("verdict"),
        "health": status.get("health"),
    }


def plain(item: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from run to run and nobody judges."""
    metadata = {key: item["metadata"][key] for key in ("name", "generation")}
    keep = ("observedGeneration", "conditions", "verdict", "health", "reason")
    status = {key: value for key, value in item["status"].items() if key in keep}
    status["conditions"] = [{**one, "lastTransitionTime": "2026-01-01T00:00:00Z"} for one in status["conditions"]]
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "metadata": metadata,
        "spec": item["spec"],
        "status": status,
    }
