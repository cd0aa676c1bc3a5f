"""What the facade keeps of the resources is part of their kinds, under the same names and of the same types."""

import typing

import msgspec
import pytest
from pydantic import BaseModel

from gpudiag_api import kinds
from gpudiag_api.naming import camel
from gpudiag_mcp.objects.diagnostic import GPUDiagnosticSpec, GPUDiagnosticStatus
from gpudiag_mcp.objects.node import GPUNodeSpec, GPUNodeStatus


def models_in(annotation: object) -> list[type]:
    found = [annotation] if isinstance(annotation, type) else []
    for argument in typing.get_args(annotation):
        found += models_in(argument)
    return [one for one in found if isinstance(one, type) and issubclass(one, (BaseModel, msgspec.Struct))]


def compare(kept: type[msgspec.Struct], kind: type[BaseModel], path: str) -> list[str]:
    wrong = []
    hints = typing.get_type_hints(kept)
    for field in msgspec.structs.fields(kept):
        if field.name not in kind.model_fields:
            wrong.append(f"{path}.{field.name} is not in {kind.__name__}")
            continue
        assert field.encode_name == camel(field.name)
        ours = models_in(hints[field.name])
        theirs = models_in(kind.model_fields[field.name].annotation)
        if ours and theirs:
            wrong += compare(ours[0], theirs[0], f"{path}.{field.name}")
    return wrong


@pytest.mark.parametrize(
    ("kept", "kind"),
    [
        (GPUNodeStatus, kinds.GPUNodeStatus),
        (GPUNodeSpec, kinds.GPUNode.model_fields["spec"].annotation),
        (GPUDiagnosticStatus, kinds.GPUDiagnosticStatus),
        (GPUDiagnosticSpec, kinds.GPUDiagnosticSpec),
    ],
)
def test_every_field_is_one_of_the_kind(kept: type[msgspec.Struct], kind: type[BaseModel]) -> None:
    assert compare(kept, kind, kept.__name__) == []
