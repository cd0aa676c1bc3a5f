"""Scenario files: which GPUs there are, what they measure, what is wrong with them.

YAML, or JSON by the suffix ``.json``. Field names are those of :class:`gpudiag_agent.sample.GPUSample` in camelCase.
``defaults`` holds for every GPU, an entry of ``gpus`` changes single ones; ``null`` means "not supported". Of a value
with parts, such as ``pcie``, an entry names only those that differ; of ``nvlinks`` and ``c2c`` the links by number.

    model: NVIDIA H100 80GB HBM3
    count: 8
    defaults: {temperatureCelsius: 41, eccUncorrectedVolatile: 0}
    gpus:
      - {index: 3, lost: true}
      - {index: 5, temperatureCelsius: 91, clockEventReasons: 0x40}
      - {index: 6, pcie: {width: 8}, nvlinks: [{link: 3, active: false}]}
    kernelLog:
      - "NVRM: Xid (PCI:0000:0d:00): 79, GPU has fallen off the bus."
"""

import re
import types
import typing
from pathlib import Path
from typing import Annotated

import msgspec

from gpudiag_agent.sample import CallError
from gpudiag_agent.simulated.values import GPUChange, Part, Values, inherit
from gpudiag_api.vocabulary import Capability

BUILT_IN = Path(__file__).with_name("scenarios")
DEFAULT = "h100-8"

Blinding = Capability


class Fault(Part, frozen=True, kw_only=True):
    """Nothing can be read at all."""

    reason: Blinding
    message: str = "The scenario says so."


class Scenario(Part, frozen=True, kw_only=True):
    """A whole node."""

    model: str
    count: Annotated[int, msgspec.Meta(ge=0, le=64)]
    driver_version: str = "570.133.20"
    cuda_version: str = "12.8"
    nvml_version: str = "12.570.133.20"
    excluded_gpus: int | None = None
    unread: tuple[CallError, ...] = ()
    """Details of the node that are not told."""
    confidential_compute: bool | None = None
    confidential_compute_ready: bool | None = None
    defaults: Values = Values()
    gpus: tuple[GPUChange, ...] = ()
    fault: Fault | None = None
    hang_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Every look takes that long first; beyond the source's deadline the driver counts as hung."""
    kernel_log: tuple[str, ...] = ()
    """Kernel lines, with or without the head of a ``/dev/kmsg`` record. A line added later is emitted then."""


class ScenarioError(Exception):
    """A scenario that cannot be used; the message names the field and what is allowed."""


def find(name: str) -> Path:
    """The file behind ``--scenario``: a path, or the name of a scenario that comes with the agent.

    Raises:
        ScenarioError: neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    built_in = BUILT_IN / f"{name}.yaml"
    if Path(name).name == name and built_in.is_file():
        return built_in
    names = ", ".join(sorted(file.stem for file in BUILT_IN.glob("*.yaml")))
    raise ScenarioError(f"{name} is neither a file nor a built-in scenario ({names})")


def load(path: Path) -> Scenario:
    """Read a scenario file.

    Raises:
        ScenarioError: it cannot be read, or says something a scenario cannot.
    """
    try:
        scenario = _convert(path)
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}") from error
    except msgspec.ValidationError as error:
        raise ScenarioError(f"{path}: {_explain(str(error))}") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise ScenarioError(f"{path}: neither YAML nor JSON: {' '.join(str(error).split())}") from error
    beyond = [change.index for change in scenario.gpus if change.index >= scenario.count]
    if beyond:
        allowed = f"0 to {scenario.count - 1}" if scenario.count else "none, as count is 0"
        raise ScenarioError(f"{path}: gpus: index {beyond[0]} is not there; allowed: {allowed}")
    if scenario.fault is not None and not scenario.fault.reason.blinds:
        raise ScenarioError(f"{path}: $.fault.reason: allowed are {_words(Capability)}")
    return scenario


def _convert(path: Path) -> Scenario:
    raw = path.read_bytes()
    if path.suffix == ".json":
        return msgspec.convert(inherit(msgspec.json.decode(raw)), Scenario)
    import yaml  # noqa: PLC0415 - only who simulates pays for it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(raw, loader)  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    return msgspec.convert(inherit(document), Scenario)


def _explain(problem: str) -> str:
    """Msgspec's sentence, with what is allowed at the place it names."""
    place = problem.rpartition(" - at ")[2].strip("`") if " - at " in problem else "$"
    kind = _type_at(place)
    if "unknown field" in problem and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = sorted(field.encode_name for field in msgspec.structs.fields(kind))
        return f"{problem}; allowed fields: {', '.join(fields)}"
    if "enum value" in problem:
        return f"{problem}; allowed: {_words(Capability)}"
    return problem


def _words(kind: type[Capability]) -> str:
    return ", ".join(str(word) for word in kind if word.blinds)


def _type_at(place: str) -> object:
    """The struct at a place such as ``$.gpus[3].mig[0]``."""
    kind: object = Scenario
    for step in re.sub(r"\[[^\]]*\]", "", place).split(".")[1:]:
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}  # type: ignore[arg-type]
        kind = _struct_in(fields.get(step))
        if kind is None:
            return None
    return kind


def _struct_in(kind: object) -> object:
    """The struct that a field holds, looking through unions and tuples."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is not None:
        return next((found for part in typing.get_args(kind) if (found := _struct_in(part))), None)
    return None
