"""The two CustomResourceDefinitions: names, columns, selectable fields, and the schema from the models."""

from typing import Any, NamedTuple

from pydantic import BaseModel

from gpudiag_api.crdgen.structural import Schema, structural_schema, without_defaults
from gpudiag_api.kinds import GROUP, VERSION, GPUDiagnostic, GPUNode

CATEGORY = "gpudiag"


class Column(NamedTuple):
    """A printer column of ``kubectl get``; wide ones show at ``-o wide``."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False


_CONDITION = '.status.conditions[?(@.type=="{}")].{}'
_AGE = Column("Age", ".metadata.creationTimestamp", "date")

_DIAGNOSTIC_COLUMNS = (
    Column("Verdict", ".status.verdict"),
    Column("Nodes", ".status.summary.nodes.targeted", "integer"),
    Column("Reporting", ".status.summary.nodes.reporting", "integer"),
    Column("GPUs", ".status.summary.gpus.total", "integer"),
    Column("Unhealthy", ".status.summary.gpus.unhealthy", "integer"),
    Column("Degraded", ".status.summary.gpus.degraded", "integer"),
    Column("Unknown", ".status.summary.gpus.unknown", "integer"),
    Column("Action", ".status.recommendedAction"),
    Column("Ready", _CONDITION.format("Ready", "status")),
    _AGE,
    Column("Mode", ".spec.mode", wide=True),
    Column("Status", _CONDITION.format("Ready", "reason"), wide=True),
    Column("Message", ".status.message", wide=True),
)
_NODE_COLUMNS = (
    Column("Health", ".status.health"),
    Column("Reason", ".status.reason"),
    Column("GPUs", ".status.gpuCounts.total", "integer"),
    Column("Action", ".status.recommendedAction"),
    Column("Agent", _CONDITION.format("AgentReachable", "reason")),
    Column("Breaker", ".status.breaker.state"),
    _AGE,
    Column("Model", ".status.model", wide=True),
    Column("Driver", ".status.driverVersion", wide=True),
    Column("Message", ".status.message", wide=True),
)


def gpudiagnostic_crd() -> Schema:
    """The CustomResourceDefinition of GPUDiagnostic."""
    return _crd(
        GPUDiagnostic,
        scope="Namespaced",
        plural="gpudiagnostics",
        short="gpud",
        columns=_DIAGNOSTIC_COLUMNS,
        selectable=(".spec.mode", ".status.verdict"),
    )


def gpunode_crd() -> Schema:
    """The CustomResourceDefinition of GPUNode."""
    return _crd(
        GPUNode,
        scope="Cluster",
        plural="gpunodes",
        short="gn",
        columns=_NODE_COLUMNS,
        selectable=(".status.health", ".status.reason"),
    )


def _crd(
    model: type[BaseModel],
    *,
    scope: str,
    plural: str,
    short: str,
    columns: tuple[Column, ...],
    selectable: tuple[str, ...],
) -> Schema:
    kind = model.__name__
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "gpudiag"}},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": _object_schema(model)},
                    "selectableFields": [{"jsonPath": path} for path in selectable],
                    "additionalPrinterColumns": [_column(column) for column in columns],
                }
            ],
        },
    }


def _object_schema(model: type[BaseModel]) -> Schema:
    schema = structural_schema(model)
    schema["properties"]["status"] = without_defaults(schema["properties"]["status"])
    envelope = {
        "apiVersion": {"type": "string", "description": "Version of this representation of the object."},
        "kind": {"type": "string", "description": "Kind of the object."},
        "metadata": {"type": "object"},
    }
    return {**schema, "properties": {**envelope, **schema["properties"]}}


def _column(column: Column) -> dict[str, Any]:
    result: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.wide:
        result["priority"] = 1
    return result
