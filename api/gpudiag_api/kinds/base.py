"""What every kind is made of: the model settings, and field types whose rules the API server enforces.

A docstring under a field becomes its description in the CRD, so ``kubectl explain`` and the reader of this file
see the same sentence. Reading is tolerant (unknown fields are ignored: CRDs and operators are upgraded apart),
writing goes through the same types, so a status that the schema would refuse is caught here.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from gpudiag_api.naming import camel

GROUP = "gpudiag.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


class Model(BaseModel):
    """Settings of every part of a resource: immutable, camelCase outside, unknown fields ignored."""

    model_config = ConfigDict(
        alias_generator=camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        extra="ignore",
        frozen=True,
    )


def rule(expression: str, message: str) -> dict[str, str]:
    """A CEL rule and the sentence a person reads when it fails: it says what to write instead."""
    return {"rule": expression, "message": message}


def validations(*rules: dict[str, str]) -> dict[str, Any]:
    """CEL rules of a field or model, for ``json_schema_extra``."""
    return {"x-kubernetes-validations": list(rules)}


def list_map(*keys: str) -> dict[str, Any]:
    """A list whose entries are merged by key: lists that people or several writers edit."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
DEFAULTED_OBJECT: dict[str, Any] = {"default": {}}
"""Defaults inside an object apply only when the object itself has one (measured on 1.36)."""

_GO_DURATION = r"^([0-9]{1,8}(\\.[0-9]{1,8})?(ms|s|m|h)){1,4}$"


def duration_rules(field: str, low: str, high: str, example: str) -> dict[str, Any]:
    """Bounds of a Go-style duration. Malformed text gets the same sentence, not a CEL conversion error."""
    return validations(
        rule(
            f"self.matches('{_GO_DURATION}') && duration(self) >= duration('{low}')"
            f" && duration(self) <= duration('{high}')",
            f"{field} must be a duration from {low} to {high}, for example {example}",
        )
    )


DurationText = Annotated[str, Field(max_length=40)]
NodeName = Annotated[str, Field(min_length=1, max_length=253)]
Trigger = Annotated[str, Field(max_length=256)]

Timestamp = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]
"""RFC 3339 in UTC."""


class Condition(Model):
    """One aspect of the state, as the Kubernetes API conventions define it."""

    type: Annotated[str, Field(max_length=316)]
    """What the condition is about, in CamelCase. For example Ready."""
    status: Annotated[str, Field(max_length=7)]
    """True, False or Unknown."""
    reason: Annotated[str, Field(max_length=1024)]
    """Why, as one stable CamelCase word that programs may compare."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """Why, for people: what was seen and what to do."""
    last_transition_time: Timestamp
    """When status last changed between True, False and Unknown (RFC 3339, UTC)."""
    observed_generation: int | None = None
    """metadata.generation that the condition was computed from."""


Conditions = Annotated[tuple[Condition, ...], Field(json_schema_extra=list_map("type"))]
