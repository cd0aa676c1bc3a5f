"""GPUDiagnostic specs from the CRD's own schema: right ones, wrong ones, and ones that only the server can judge."""

from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

CRD = Path(__file__).resolve().parents[3] / "crds" / "gpudiagnostics.gpudiag.dev.yaml"
_TEXTS = (
    "5s", "30s", "1h30m", "100ms", "0s", "-1s", "forever", "a", "A", "x" * 300, "kopf.dev/x", "2", "101%", "5%", "",
    "gen-1", "no-such-node", "In", "Exists", "DoesNotExist", "NotIn", "pool", "a b", "\u202e", "123e4",
)  # fmt: skip
"""Whatever a text field may hold: durations, percentages, names, operators, nonsense."""


def spec_schema() -> dict[str, Any]:
    """The schema of ``spec``."""
    crd = yaml.safe_load(CRD.read_text())
    schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def specs() -> st.SearchStrategy[dict[str, Any]]:
    """Specs of the CRD's shape; whether the server takes one is the server's business."""
    return _values(spec_schema())


def _values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.one_of(st.sampled_from(schema["enum"]), st.sampled_from(schema["enum"]), st.just("NoSuchWord"))
    if schema.get("x-kubernetes-int-or-string"):
        return st.one_of(st.integers(-1, 200), st.sampled_from(("5%", "100%", "101%", "x")))
    match schema.get("type"):
        case "object" if "properties" in schema:
            wanted = set(schema.get("required", ()))
            members = {name: _values(each) for name, each in schema["properties"].items()}
            return st.fixed_dictionaries(
                {name: each for name, each in members.items() if name in wanted},
                optional={name: each for name, each in members.items() if name not in wanted},
            )
        case "object":
            return st.dictionaries(
                st.sampled_from(("pool", "zone", "-bad-")), st.sampled_from(("a", "b", "")), max_size=2
            )
        case "array":
            # Server-side apply cannot merge a set with one entry twice.
            return st.lists(_values(schema["items"]), max_size=3, unique_by=repr)
        case "integer":
            low, high = schema.get("minimum", -1), schema.get("maximum", 1000)
            return st.one_of(st.integers(low, high), st.sampled_from((low - 1, high + 1)))
        case "boolean":
            return st.booleans()
        case _:
            return st.sampled_from(_TEXTS)
