"""The chart's values: the schema takes the defaults, names every one of them, and knows the flags that there are."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from gpudiag_agent.options import Options as AgentOptions
from gpudiag_api.version import __version__
from gpudiag_mcp.options import Options as FacadeOptions
from gpudiag_operator.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "manifests" / "chart" / "gpudiag"
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
TEMPLATES = "".join(path.read_text() for path in CHART.rglob("templates/**/*") if path.is_file())

OWN = {
    "agent": {
        *("node-name", "host", "port", "state-dir", "config", "health-port"),
        *("auth", "auth-audience", "allowed-service-accounts", "service-account-dir", "anonymous-paths"),
        "metrics-service-accounts",
        *("tls-cert-dir", "tls-client-auth"),
    },
    "operator": {
        *("kubeconfig", "namespace", "metrics-addr", "agent-port", "agent-selector", "routing", "shards"),
        *("agent-token-file", "agent-tls", "agent-tls-secret", "agent-ca-file", "agent-client-cert-dir"),
        "agent-server-name",
    },
    "mcp": {
        *("transport", "host", "port", "metrics-addr", "namespace", "kubeconfig", "service-name", "state-keys"),
        *("allow-create", "create-namespaces"),
    },
}
"""Flags that the templates set themselves, or that have a value of their own."""

FLAGS = {
    "agent": {field.name for field in msgspec.structs.fields(AgentOptions)},
    "operator": {field.name for field in dataclasses.fields(Settings)},
    "mcp": {field.name for field in dataclasses.fields(FacadeOptions)},
}


def check(values: dict[str, Any]) -> None:
    jsonschema.validate(values, SCHEMA)


def test_the_defaults_are_valid() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    check(VALUES)


def test_the_schema_knows_every_default_and_nothing_else() -> None:
    def same(values: dict[str, Any], schema: dict[str, Any], where: str) -> None:
        if "properties" not in schema:
            return
        assert schema["additionalProperties"] is False, where
        assert schema["properties"].keys() - {"global"} == values.keys(), where
        for name, value in values.items():
            if isinstance(value, dict):
                same(value, schema["properties"][name], f"{where}.{name}")

    same(VALUES, SCHEMA, "values")


@pytest.mark.parametrize("part", sorted(FLAGS))
def test_settings_are_the_flags_that_there_are(part: str) -> None:
    known = SCHEMA["properties"][part]["properties"]["settings"]["propertyNames"]["enum"]
    assert set(known) == {name.replace("_", "-") for name in FLAGS[part]} - OWN[part]


def test_every_value_is_used_by_a_template() -> None:
    def leaves(values: dict[str, Any], schema: dict[str, Any]) -> set[str]:
        return {
            name
            for key, value in values.items()
            for name in (
                leaves(value, schema["properties"][key])
                if isinstance(value, dict) and "properties" in schema["properties"].get(key, {})
                else {key}
            )
        }

    for name in leaves(VALUES, SCHEMA):
        assert re.search(rf"\.{name}\b", TEMPLATES), f"no template uses {name}"


@pytest.mark.parametrize(
    "wrong",
    [
        {"agents": {}},
        {"agent": {"privileged": "no"}},
        {"operator": {"routing": "tunnel"}},
        {"operator": {"shards": 65}},
        {"operator": {"settings": {"unreachable_after": "1s"}}},
        {"operator": {"settings": {"routing": "proxy"}}},
        {"networkPolicy": {"apiServerCIDR": "10.0.0.1"}},
        {"agent": {"image": {"digest": "latest"}}},
        {"imagePullSecrets": ["login"]},
        {"agentAPI": {"metricsServiceAccounts": ["prometheus"]}},
        {"monitoring": {"agentEndpoint": {"port": "other"}}},
        {"tracing": {"otlpEndpoint": "collector:4318"}},
        {"tracing": {"otlpEndpoint": "http://user:password@collector:4318"}},
        {"networkPolicy": {"tracingTo": "observability"}},
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(wrong)


def test_versions_are_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__
    for path in (ROOT / "manifests").glob("*/**/*.yaml"):
        for image, tag in re.findall(r"image: (gpudiag-\w+):(\S+)", path.read_text()):
            assert tag == __version__, f"{image} in {path}"


def test_kinds_are_small_enough_for_a_client_side_apply() -> None:
    """It keeps the object in an annotation, and those hold 262,144 bytes (apimachinery, TotalAnnotationSizeLimitB)."""
    for path in (CHART / "crds").glob("*.yaml"):
        assert len(json.dumps(yaml.safe_load(path.read_text()))) < 200_000
