"""What the API server itself says of specs: no operator is involved. Its answer is what a person reads."""

import json
from typing import Any

import pytest

from gpudiag_cli.controlplane import Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds")]

MINIMAL_SPEC: dict[str, Any] = {
    "mode": "Continuous",
    "interval": "30s",
    "deadline": "30s",
    "suspend": False,
    "detail": "Summary",
    "historyLimit": 10,
    "policy": {"tolerate": {"unhealthyGPUs": 0, "unknownNodes": 0}},
}


def diagnostic(spec: dict[str, Any] | None) -> str:
    body: dict[str, Any] = {
        "apiVersion": "gpudiag.dev/v1alpha1",
        "kind": "GPUDiagnostic",
        "metadata": {"name": "probe", "namespace": "default"},
    }
    return json.dumps(body if spec is None else {**body, "spec": spec})


@pytest.mark.parametrize(
    ("spec", "field", "allowed"),
    [
        ({"checks": {"include": ["Foo"]}}, "spec.checks.include[0]", '"ECCUncorrectable"'),
        ({"target": {"nodeNames": ["a"], "podRef": {"name": "b"}}}, "spec.target", "set at most one of"),
        ({"interval": "1s"}, "spec.interval", "from 5s to 24h"),
        ({"interval": "25h"}, "spec.interval", "from 5s to 24h"),
        ({"interval": "abc"}, "spec.interval", "for example 30s"),
        ({"deadline": "11m"}, "spec.deadline", "from 1s to 10m"),
        ({"target": {"nodeNames": [f"n{i}" for i in range(2000)]}}, "spec.target.nodeNames", "at most 1000"),
        ({"policy": {"tolerate": {"unhealthyGPUs": -1}}}, "unhealthyGPUs", "from 0"),
        ({"policy": {"tolerate": {"unknownNodes": "101%"}}}, "unknownNodes", "from 0% to 100%"),
        ({"ttlAfterFinished": "1h"}, "ttlAfterFinished", "needs mode: Once"),
        ({"mode": "Once", "ttlAfterFinished": "721h"}, "spec.ttlAfterFinished", "from 0s to 720h"),
        ({"detail": "Full"}, "detail: Full", "needs mode: Once"),
        ({"mode": "once"}, "spec.mode", '"Continuous", "Once"'),
        ({"historyLimit": 51}, "spec.historyLimit", "less than or equal to 50"),
        ({"intervall": "30s"}, 'unknown field "spec.intervall"', "strict decoding"),
        ({"target": {"nodeNames": ["a", "a"]}}, "spec.target.nodeNames[1]", "Duplicate value"),
        (
            {"target": {"nodeSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}},
            "matchExpressions[0]",
            "In and NotIn need values",
        ),
        ({"policy": {"xids": {"ignore": [79], "critical": [79]}}}, "spec.policy.xids", "remove it from one"),
    ],
)
def test_a_wrong_spec_is_refused_with_the_field_and_what_is_allowed(
    kubectl: Kubectl, spec: dict[str, Any], field: str, allowed: str
) -> None:
    answer = kubectl("apply", "--dry-run=server", "-f", "-", stdin=diagnostic(spec), check=False)
    assert answer.returncode != 0
    assert field in answer.stderr
    assert allowed in answer.stderr


@pytest.mark.parametrize(
    ("spec", "stored"),
    [
        (None, MINIMAL_SPEC),
        ({}, MINIMAL_SPEC),
        ({"mode": "Once"}, {**MINIMAL_SPEC, "mode": "Once"}),
        (
            {"policy": {"expectedGPUsPerNode": 8}},
            {**MINIMAL_SPEC, "policy": {**MINIMAL_SPEC["policy"], "expectedGPUsPerNode": 8}},
        ),
    ],
)
def test_defaults_really_apply(kubectl: Kubectl, spec: dict[str, Any] | None, stored: dict[str, Any]) -> None:
    answer = kubectl("apply", "--dry-run=server", "-o", "json", "-f", "-", stdin=diagnostic(spec))
    assert json.loads(answer.stdout)["spec"] == stored


def test_a_gpunode_without_spec_gets_an_automatic_breaker(kubectl: Kubectl) -> None:
    body = {"apiVersion": "gpudiag.dev/v1alpha1", "kind": "GPUNode", "metadata": {"name": "probe"}}
    answer = kubectl("apply", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(body))
    assert json.loads(answer.stdout)["spec"] == {"circuitBreaker": "Auto"}


@pytest.mark.parametrize("path", ["gpudiagnostic.spec", "gpudiagnostic.status", "gpunode.spec", "gpunode.status"])
def test_explain_describes_every_field(kubectl: Kubectl, path: str) -> None:
    text = kubectl("explain", path).stdout
    assert "<no description>" not in text


def test_short_names_and_the_category_answer(kubectl: Kubectl) -> None:
    resources = kubectl("api-resources", "--api-group=gpudiag.dev", "--categories=gpudiag", "-o", "name").stdout
    assert resources.split() == ["gpudiagnostics.gpudiag.dev", "gpunodes.gpudiag.dev"]
    assert kubectl("get", "gpud,gn", "-A").returncode == 0
    assert kubectl("get", "gn", "--field-selector", "status.health=Unhealthy").returncode == 0
