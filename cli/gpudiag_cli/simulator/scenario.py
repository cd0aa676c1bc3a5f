"""Scenario files: which nodes there are, and what happens to them when.

    nodes:
      - {count: 4, machine: h100-8, labels: {pool: training}}
      - {count: 2, machine: t4-1, name: infer, labels: {pool: inference}}
    faults:
      - {at: 10s, node: gpu-03, fault: xid-79, gpu: 2}          # one node, from then on
      - {at: 20s, node: pool=inference, fault: latency, latency: 3s, for: 30s}
      - {node: "gpu-*", fault: hot, gpu: 5}                      # from the start

A fault is a stretch of time, not an event: which faults a node has follows from the file and the clock alone. So a
file can be changed while it runs, and the same file gives the same fleet.
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from gpudiag_api import durations
from gpudiag_cli.errors import CommandError
from gpudiag_cli.simulator.faults import Fault
from gpudiag_cli.simulator.machines import MACHINES
from gpudiag_cli.simulator.report import NodeSpec

DEFAULT_LATENCY = "2s"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?")
_WHERE = re.compile(r"(?P<what>.*) - at `\$\.?(?P<where>.*)`", re.DOTALL)


class NodeGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes of one kind: ``<name>-01``, ``<name>-02``, …; groups of the same name are numbered on."""

    machine: str = "h100-8"
    count: Annotated[int, msgspec.Meta(ge=1, le=60_000)] = 1
    name: str = "gpu"
    first: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Number of the first; None: after those before it, or 1."""
    labels: dict[str, str] = {}


class FaultEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"lasts": "for"}):
    """One fault of one or several nodes."""

    fault: str
    node: str
    """A name, a pattern such as ``gpu-*``, or labels such as ``pool=training``."""
    at: str = "0s"
    """When, counted from the start."""
    lasts: str | None = None
    """How long (``for`` in the file); None: for ever."""
    gpu: Annotated[int, msgspec.Meta(ge=0)] = 0
    latency: str = DEFAULT_LATENCY


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nodes: list[NodeGroup] | None = None
    faults: list[FaultEntry] | None = None


class Timed(msgspec.Struct, frozen=True):
    """A fault of one node, in seconds from the start; ``until`` is None where it does not end."""

    node: str
    fault: Fault
    gpu: int
    latency: float
    start: float
    until: float | None


class Scenario(msgspec.Struct, frozen=True):
    """A checked scenario."""

    nodes: tuple[NodeSpec, ...]
    timed: tuple[Timed, ...]

    def active(self, elapsed: float) -> dict[str, tuple[Timed, ...]]:
        """What is wrong so many seconds after the start, by node: only nodes with faults, oldest fault first."""
        now: dict[str, tuple[Timed, ...]] = {}
        for each in sorted(self.timed, key=lambda timed: timed.start):
            if each.start <= elapsed and (each.until is None or elapsed < each.until):
                now[each.node] = (*now.get(each.node, ()), each)
        return now


def load(path: Path, nodes: Iterable[NodeSpec] | None = None) -> Scenario:
    """Read and check a scenario file.

    Args:
        path: the file.
        nodes: the nodes there are, when the file does not say; its own ``nodes`` go before these.

    Raises:
        CommandError: the file cannot be read or is no scenario; the message names the field and what is allowed.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"The scenario {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CommandError(f"The scenario {path} is not YAML: {' '.join(str(error).split())}.") from None
    try:
        return parse(document, nodes)
    except ValueError as error:
        raise CommandError(f"The scenario {path} has a mistake: {error}") from None


def parse(document: Any, nodes: Iterable[NodeSpec] | None = None) -> Scenario:
    """Check a scenario that was read already; see :func:`load`.

    Raises:
        ValueError: it is none; the message begins with the field.
    """
    try:
        file = msgspec.convert(document or {}, _File)
    except msgspec.ValidationError as error:
        raise ValueError(_say(str(error))) from None
    specs = tuple(_nodes(file.nodes) if file.nodes else nodes or ())
    if not specs:
        raise ValueError("nodes: there are none; write for example [{count: 4, machine: h100-8}].")
    by_name = {spec.name: spec for spec in specs}
    entries = enumerate(file.faults or [])
    return Scenario(specs, tuple(timed for number, entry in entries for timed in _timed(entry, number, by_name)))


def _nodes(groups: Iterable[NodeGroup]) -> list[NodeSpec]:
    numbered: list[tuple[NodeGroup, range]] = []
    following: dict[str, int] = {}
    for number, group in enumerate(groups):
        if group.machine not in MACHINES:
            raise ValueError(f"nodes[{number}].machine: {group.machine!r} is none of {', '.join(MACHINES)}.")
        if not _NAME.fullmatch(group.name):
            raise ValueError(
                f"nodes[{number}].name: {group.name!r} cannot begin a node's name; "
                "use at most 52 lower-case letters, digits and hyphens."
            )
        first = following.get(group.name, 1) if group.first is None else group.first
        if first < following.get(group.name, 0):
            raise ValueError(
                f"nodes[{number}].first: {group.name} is numbered up to {following[group.name] - 1} before."
            )
        following[group.name] = first + group.count
        numbered.append((group, range(first, first + group.count)))
    # As many digits as the last of the name needs, so that lists sort by number.
    width = {name: max(2, len(str(end - 1))) for name, end in following.items()}
    return [
        NodeSpec(
            name=f"{group.name}-{index:0{width[group.name]}d}", machine=MACHINES[group.machine], labels=group.labels
        )
        for group, indices in numbered
        for index in indices
    ]


def _timed(entry: FaultEntry, number: int, nodes: Mapping[str, NodeSpec]) -> list[Timed]:
    where = f"faults[{number}]"
    if entry.fault not in list(Fault):
        raise ValueError(f"{where}.fault: {entry.fault!r} is none of {', '.join(Fault)}.")
    fault = Fault(entry.fault)
    start = _seconds(f"{where}.at", entry.at)
    lasts = None if entry.lasts is None else _seconds(f"{where}.for", entry.lasts)
    latency = _seconds(f"{where}.latency", entry.latency) if fault is Fault.LATENCY else 0.0
    targets = _targets(entry.node, nodes)
    if not targets:
        raise ValueError(
            f"{where}.node: {entry.node!r} fits no node; write a name, a pattern such as gpu-*, "
            f"or labels such as pool=training. The first node is {next(iter(nodes))}."
        )
    for target in targets:
        if fault.on_gpu and entry.gpu >= target.machine.gpu_count:
            raise ValueError(
                f"{where}.gpu: {target.name} has GPUs 0 to {target.machine.gpu_count - 1}, no {entry.gpu}."
            )
    until = None if lasts is None else start + lasts
    return [Timed(target.name, fault, entry.gpu, latency, start, until) for target in targets]


def _targets(wanted: str, nodes: Mapping[str, NodeSpec]) -> list[NodeSpec]:
    if "=" not in wanted:
        return [nodes[name] for name in fnmatch.filter(nodes, wanted)]
    labels = [part.partition("=") for part in wanted.split(",")]
    return [
        spec
        for spec in nodes.values()
        if all(spec.labels.get(key.strip()) == value.strip() for key, _, value in labels)
    ]


def _seconds(where: str, text: str) -> float:
    try:
        return durations.parse(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}.") from None


def _say(message: str) -> str:
    """Turn msgspec's wording, "Expected ... - at $.nodes[0].count", into "nodes[0].count: expected ..."."""
    if match := _WHERE.fullmatch(message):
        what, where = match["what"], match["where"]
        return f"{where.replace('[...]', '[]')}: {what[0].lower()}{what[1:].replace('`', '')}."
    return f"{message[0].lower()}{message[1:].replace('`', '')}."
