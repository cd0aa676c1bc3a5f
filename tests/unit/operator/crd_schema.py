"""What the API server would say of a status: the parts of a structural schema that can refuse or prune one."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from gpudiag_api.times import from_rfc3339

CRDS = Path(__file__).resolve().parents[3] / "crds"


@cache
def status_schema(plural: str) -> Mapping[str, Any]:
    crd = yaml.safe_load((CRDS / f"{plural}.gpudiag.dev.yaml").read_text())
    found: Mapping[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return found


def problems(value: Any, schema: Mapping[str, Any], at: str = "status") -> Iterator[str]:
    """Everything the API server would refuse, or drop without a word."""
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    if not isinstance(value, kinds[schema["type"]]) or (schema["type"] == "integer" and isinstance(value, bool)):
        yield f"{at}: {value!r} is no {schema['type']}"
    elif isinstance(value, dict):
        yield from (f"{at}: lacks {name}" for name in schema.get("required", ()) if name not in value)
        for name, item in value.items():
            if name in schema["properties"]:
                yield from problems(item, schema["properties"][name], f"{at}.{name}")
            else:
                yield f"{at}: {name} would be pruned"
    elif isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys")
        if keys and len({tuple(item[key] for key in keys) for item in value}) < len(value):
            yield f"{at}: duplicate keys"
        for index, item in enumerate(value):
            yield from problems(item, schema["items"], f"{at}[{index}]")
    elif isinstance(value, str):
        yield from _text(value, schema, at)


def _text(value: str, schema: Mapping[str, Any], at: str) -> Iterator[str]:
    if len(value) > schema.get("maxLength", len(value)):
        yield f"{at}: {len(value)} characters"
    if schema.get("format") == "date-time":
        try:
            from_rfc3339(value)
        except ValueError as error:
            yield f"{at}: {error}"
