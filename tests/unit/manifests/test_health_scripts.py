"""Argo CD's health scripts in a real Lua, and kstatus, over objects that a real operator wrote.

The objects are in recorded.json; tests/cluster/manifests/test_gitops.py compares them with those of today's operator.
"""

import json
from pathlib import Path
from typing import Any

import lupa
import pytest
import yaml
from tests.unit.manifests.kstatus import kstatus

FOLDER = Path(__file__).resolve().parents[3] / "manifests" / "gitops" / "argocd"
RECORDED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "recorded.json").read_text())

EXPECTED = {
    "GPUDiagnostic/complete": ("Healthy", "Current"),
    "GPUDiagnostic/healthy": ("Healthy", "Current"),
    "GPUDiagnostic/no-targets": ("Healthy", "Current"),
    "GPUDiagnostic/one-too-many": ("Degraded", "Failed"),
    "GPUDiagnostic/running": ("Progressing", "InProgress"),
    "GPUDiagnostic/sick": ("Healthy", "Current"),
    "GPUDiagnostic/suspended": ("Suspended", "Current"),
    "GPUNode/forced-open": ("Suspended", "InProgress"),
    "GPUNode/healthy": ("Healthy", "Current"),
    "GPUNode/not-read": ("Progressing", "InProgress"),
    "GPUNode/sick": ("Healthy", "Current"),
}


def argo(item: dict[str, Any]) -> tuple[str, str]:
    """(status, message), as Argo CD asks for them: the object is the global `obj`."""
    runtime = lupa.LuaRuntime(unpack_returned_tuples=True)
    runtime.globals().obj = runtime.table_from(item, recursive=True)
    answer = runtime.execute((FOLDER / f"{item['kind'].lower()}.lua").read_text())
    return answer.status, answer.message


def changed(name: str, **status: Any) -> dict[str, Any]:
    item: dict[str, Any] = json.loads(json.dumps(RECORDED[name]))
    item["status"] |= status
    return item


def test_every_recorded_object_is_judged() -> None:
    assert RECORDED.keys() == EXPECTED.keys()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_argo_and_kstatus_read_it_right(name: str) -> None:
    assert (argo(RECORDED[name])[0], kstatus(RECORDED[name])) == EXPECTED[name]


def test_a_sick_gpu_holds_up_no_sync_and_its_verdict_is_told() -> None:
    assert argo(RECORDED["GPUDiagnostic/sick"]) == ("Healthy", "Verdict: Unhealthy")


@pytest.mark.parametrize("name", ["GPUDiagnostic/healthy", "GPUNode/healthy"])
def test_a_new_generation_and_a_new_object_are_in_progress(name: str) -> None:
    newer = changed(name)
    newer["metadata"]["generation"] += 1
    assert (argo(newer)[0], kstatus(newer)) == ("Progressing", "InProgress")
    new = json.loads(json.dumps(newer))
    del new["status"]
    # kstatus takes an object without conditions for current; Flux therefore waits for a status by itself.
    assert argo(new)[0] == "Progressing"


def test_reconciling_is_in_progress_even_when_stalled() -> None:
    both = [
        {"type": kind, "status": "True", "reason": "R", "message": "m"} for kind in ("Reconciling", "Stalled", "Ready")
    ]
    item = changed("GPUDiagnostic/healthy", conditions=both)
    assert (argo(item), kstatus(item)) == (("Progressing", "R: m"), "InProgress")


@pytest.mark.parametrize("kind", ["GPUDiagnostic", "GPUNode"])
def test_the_kustomization_puts_the_scripts_where_argo_looks(kind: str) -> None:
    generator = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["configMapGenerator"][0]
    assert generator["name"] == "argocd-cm"
    key = f"resource.customizations.health.gpudiag.dev_{kind}"
    assert f"{key}={kind.lower()}.lua" in generator["files"]
