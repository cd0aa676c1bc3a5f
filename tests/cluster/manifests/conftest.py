"""Renderers, and the kinds of the Prometheus operator."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from tests.cluster.manifests.rendering import Object, kustomize

from gpudiag_cli.controlplane import Kubectl

Render = Callable[..., list[Object]]

FOREIGN = {"PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules", "ServiceMonitor": "servicemonitors"}
"""Of the Prometheus operator: stand-ins that take any spec, so that these objects can be applied at all."""


@pytest.fixture(scope="session")
def render(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """``render(overlay="minimal", components=["mcp"])`` gives the objects; each combination is made once."""
    known: dict[str, list[Object]] = {}

    def made(**how: Any) -> list[Object]:
        name = repr(sorted(how.items()))
        if name not in known:
            known[name] = kustomize(kubectl, tmp_path_factory.mktemp("kustomization"), **how)
        return copy.deepcopy(known[name])

    return made


@pytest.fixture(scope="session")
def foreign_kinds(kubectl: Kubectl) -> None:
    kubectl.apply(*(_definition(kind, plural) for kind, plural in FOREIGN.items()))
    names = [f"crd/{plural}.monitoring.coreos.com" for plural in FOREIGN.values()]
    kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)


@pytest.fixture(scope="session")
def system_namespace(kubectl: Kubectl) -> str:
    """gpudiag-system exists; its labels are what a test applies."""
    kubectl("create", "namespace", "gpudiag-system", check=False)
    return "gpudiag-system"


def _definition(kind: str, plural: str) -> Object:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything}}},
                }
            ],
        },
    }
