"""A Kubernetes LabelSelector with bounds, since CEL and the operator both walk it."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from gpudiag_api.kinds.base import ATOMIC, Model, rule, validations

LabelValue = Annotated[str, Field(max_length=63)]


class LabelSelectorRequirement(Model):
    """One requirement on a label."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "self.operator in ['In', 'NotIn'] ? (has(self.values) && size(self.values) > 0)"
                " : (!has(self.values) || size(self.values) == 0)",
                "operator In and NotIn need values, Exists and DoesNotExist take none",
            )
        )
    )

    key: Annotated[str, Field(max_length=317)]
    """Label key, for example nvidia.com/gpu.product."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label's value relates to values."""
    values: Annotated[tuple[LabelValue, ...] | None, Field(max_length=64, json_schema_extra=ATOMIC)] = None
    """Values for In and NotIn."""


class LabelSelector(Model):
    """Selects nodes by their labels. All requirements must hold; an empty selector selects every GPU node."""

    match_labels: Annotated[dict[str, LabelValue] | None, Field(max_length=32)] = None
    """Labels that a node must carry, with exactly these values."""
    match_expressions: Annotated[
        tuple[LabelSelectorRequirement, ...] | None, Field(max_length=32, json_schema_extra=ATOMIC)
    ] = None
    """Requirements that a node's labels must meet."""
