"""The CRDs are structural, and every field says what it is."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from gpudiag_api.crdgen import gpudiagnostic_crd, gpunode_crd
from gpudiag_api.crdgen.structural import structural_schema
from gpudiag_api.naming import camel

CRDS = {"GPUDiagnostic": gpudiagnostic_crd(), "GPUNode": gpunode_crd()}
FORBIDDEN = {"$ref", "$defs", "title", "const", "anyOf", "allOf", "oneOf", "prefixItems", "uniqueItems", "nullable"}


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}.*")


def schema_of(crd: dict[str, Any]) -> dict[str, Any]:
    version = crd["spec"]["versions"][0]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


@pytest.mark.parametrize("kind", CRDS)
def test_the_schema_is_structural(kind: str) -> None:
    for path, schema in nodes(schema_of(CRDS[kind])):
        assert not FORBIDDEN & schema.keys(), path
        assert "type" in schema or schema.get("x-kubernetes-int-or-string"), path
        assert not ("properties" in schema and "additionalProperties" in schema), path


@pytest.mark.parametrize("kind", CRDS)
def test_every_field_is_described(kind: str) -> None:
    undescribed = [
        path
        for path, schema in nodes(schema_of(CRDS[kind]))
        if not schema.get("description") and not path.endswith(("[]", ".*", ".metadata"))
    ]
    assert undescribed == []


@pytest.mark.parametrize("kind", CRDS)
def test_a_status_has_neither_enums_nor_defaults(kind: str) -> None:
    for path, schema in nodes(schema_of(CRDS[kind])["properties"]["status"]):
        assert "enum" not in schema, path
        assert "default" not in schema, path


@pytest.mark.parametrize("kind", CRDS)
def test_every_object_that_holds_defaults_has_one_itself(kind: str) -> None:
    for path, schema in nodes(schema_of(CRDS[kind])["properties"]["spec"]):
        holds = any("default" in child for child in schema.get("properties", {}).values())
        assert not holds or schema.get("default") == {}, path


@pytest.mark.parametrize("kind", CRDS)
def test_lists_say_how_they_are_merged(kind: str) -> None:
    for path, schema in nodes(schema_of(CRDS[kind])):
        if schema.get("type") == "array":
            assert "x-kubernetes-list-type" in schema, path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpu_uuid", "gpuUUID"),
        ("expected_gpus_per_node", "expectedGPUsPerNode"),
        ("pod_ip", "podIP"),
        ("run_id", "runID"),
        ("ttl_after_finished", "ttlAfterFinished"),
        ("xids", "xids"),
    ],
)
def test_acronyms_stay_whole(name: str, expected: str) -> None:
    assert camel(name) == expected


def test_a_union_is_refused_with_its_path() -> None:
    class Wrong(BaseModel):
        value: int | str

    with pytest.raises(ValueError, match=r"\$\.value: a structural schema has no unions"):
        structural_schema(Wrong)
