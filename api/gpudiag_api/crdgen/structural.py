"""From pydantic's JSON schema to a structural schema, the subset that a CRD may hold.

Kubernetes wants every reference inlined, no ``title``, ``const`` or ``$defs``, ``nullable`` instead of a union
with null, and no default that is null (apiextensions.k8s.io/v1, "Specifying a structural schema").
"""

from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_DROPPED = frozenset({"title", "$defs", "examples"})


def structural_schema(model: type[BaseModel]) -> Schema:
    """The structural schema of a model, with camelCase names.

    Raises:
        ValueError: the model uses something a structural schema cannot say; the message names the path.
    """
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(raw, raw.get("$defs", {}), "$")


def without_defaults(schema: Schema) -> Schema:
    """The schema without any default: what the operator did not write must stay absent in a status."""
    result = _without(schema, "default")
    if "properties" in result:
        result["properties"] = {name: without_defaults(child) for name, child in result["properties"].items()}
    if isinstance(result.get("items"), dict):
        result["items"] = without_defaults(result["items"])
    return result


def _convert(node: Schema, definitions: dict[str, Schema], path: str) -> Schema:
    node = _resolve(node, definitions)
    if "anyOf" in node:
        node = _without_null(node, definitions, path)
    result = {key: value for key, value in node.items() if key not in _DROPPED}
    if result.get("x-kubernetes-int-or-string"):
        return _without(result, "anyOf", "type")
    if "type" not in result:
        raise ValueError(f"{path}: a structural schema needs a type here")
    if isinstance(result.get("description"), str):
        result["description"] = " ".join(result["description"].split())
    if "properties" in result:
        result["properties"] = {
            name: _convert(child, definitions, f"{path}.{name}") for name, child in result["properties"].items()
        }
        result = _without(result, "additionalProperties")
    elif isinstance(result.get("additionalProperties"), dict):
        result["additionalProperties"] = _convert(result["additionalProperties"], definitions, f"{path}.*")
    if isinstance(result.get("items"), dict):
        result["items"] = _convert(result["items"], definitions, f"{path}[]")
    return {"description": result["description"], **result} if "description" in result else result


def _resolve(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """Inline a reference; what stands beside it (the field's own description) wins over the model's."""
    if "$ref" not in node:
        return node
    target = definitions[node["$ref"].rsplit("/", 1)[-1]]
    return {**_resolve(target, definitions), **_without(node, "$ref")}


def _without_null(node: Schema, definitions: dict[str, Schema], path: str) -> Schema:
    """An optional field is simply not required; the API server prunes absent ones, so no ``nullable`` either."""
    if node.get("x-kubernetes-int-or-string"):
        return node
    branches = [branch for branch in node["anyOf"] if branch.get("type") != "null"]
    if len(branches) != 1:
        raise ValueError(f"{path}: a structural schema has no unions; use one type or int-or-string")
    outer = _without(node, "anyOf")
    if outer.get("default", ...) is None:
        outer = _without(outer, "default")
    return {**_resolve(branches[0], definitions), **outer}


def _without(node: Schema, *keys: str) -> Schema:
    return {key: value for key, value in node.items() if key not in keys}
