"""Rendering what we ship, as a user's own overlay would put it together."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from gpudiag_cli.controlplane import Kubectl

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = ROOT / "manifests"
CHART = MANIFESTS / "chart" / "gpudiag"
OVERLAYS = ("default", "kind", "minimal", "openshift")
COMPONENTS = tuple(
    sorted(
        {path.parent.name for path in MANIFESTS.glob("components/*/kustomization.yaml")}
        - {"network-policy", "plain-http"}
    )
)
"""Those that the overlays leave to choose; `plain-http` undoes what another changes."""

Object = dict[str, Any]
Key = tuple[str, str, str]
"""Kind, namespace (empty: cluster-scoped), name."""


def key(item: Object) -> Key:
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def by_key(items: Iterable[Object]) -> dict[Key, Object]:
    found = list(items)
    keyed = {key(item): item for item in found}
    assert len(keyed) == len(found), "two objects of one name"
    return keyed


def one(items: Iterable[Object], kind: str, name: str) -> Object:
    return next(item for item in items if item["kind"] == kind and item["metadata"]["name"] == name)


def pod_of(items: Iterable[Object], name: str) -> Object:
    """The Pod that a workload would make, as its controller would send it."""
    workload = next(item for item in items if item["kind"] in {"Deployment", "DaemonSet"} and key(item)[2] == name)
    template = workload["spec"]["template"]
    metadata = {"name": name, "labels": template["metadata"]["labels"], "namespace": key(workload)[1]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def environment(pod: Object) -> dict[str, str]:
    """The plain variables of its first container."""
    return {entry["name"]: entry["value"] for entry in pod["spec"]["containers"][0]["env"] if "value" in entry}


def kustomize(
    kubectl: Kubectl,
    folder: Path,
    *,
    overlay: str = "default",
    components: Iterable[str] = (),
    namespace: str | None = None,
) -> list[Object]:
    """Render an overlay with components: a kustomization of ours is written to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    here = os.path.relpath(MANIFESTS, folder.resolve())
    kustomization: Object = {
        "resources": [f"{here}/overlays/{overlay}"],
        "components": [f"{here}/components/{name}" for name in components],
    }
    if namespace:
        kustomization["namespace"] = namespace
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return parse(kubectl("kustomize", folder).stdout)


def parse(text: str) -> list[Object]:
    """Objects of a text; by libyaml, which takes a ninth of the time."""
    return [item for item in yaml.load_all(text, Loader=yaml.CSafeLoader) if item]
