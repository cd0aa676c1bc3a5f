"""Scenario files: which nodes there are, and what happens to them when.

    nodes:
      - {count: 4, machine: h100-8, labels: {pool: training}}
      - {count: 2, machine: t4-1, name: infer, labels: {pool: inference}}
    faults:
      - {at: 10s, node: gpu-03, fault: xid-79, gpu: 2}          # one node, from then on
      - {at: 20s, node: pool=inference, fault: latency, latency: 3s, for: 30s}
      - {node: "gpu-*", fault: hot, gpu: 5}                      # from the start
      - {node: "*", share: 2%, fault: hang, every: 1m, for: 20s} # flapping
    incidents:                                                   # faults that belong together, in their own time
      - name: cooling of row A fails
        at: 1m
        faults:
          - {node: row=a, share: 30%, spread: 20s, fault: hot, gpu: any}
          - {at: 30s, node: row=a, share: 5%, fault: node-gone}
    seed: 7

A fault is a stretch of time, not an event: which faults a node has follows from the file and the clock alone. So a
file can be changed while it runs, and the same file and seed give the same fleet and the same course of events: what
is drawn (which share of the nodes, when within a spread, which GPU) depends on the seed and the fault's own words.
"""

import fnmatch
import random
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from gpudiag_api import durations
from gpudiag_cli.errors import CommandError
from gpudiag_cli.simulator.faults import Fault
from gpudiag_cli.simulator.machines import MACHINES
from gpudiag_cli.simulator.report import NodeSpec

DEFAULT_LATENCY = "2s"
_SHARE = re.compile(r"(?P<number>\d{1,3}(\.\d{1,3})?)%")
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
    latency: str = "0s"
    """How long every answer takes."""
    jitter: str = "0s"
    """By how much that differs, up or down."""


class FaultEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"lasts": "for"}):
    """One fault of one or several nodes."""

    fault: str
    node: str
    """A name, a pattern such as ``gpu-*``, or labels such as ``pool=training``."""
    at: str = "0s"
    """When, counted from the start."""
    lasts: str | None = None
    """How long (``for`` in the file); None: for ever."""
    every: str | None = None
    """It comes back after so long, counted from one beginning to the next; needs ``for``."""
    share: str = "100%"
    """Part of the nodes that fit, drawn by the seed; at least one."""
    spread: str = "0s"
    """The nodes do not begin together but within so long."""
    gpu: Annotated[int, msgspec.Meta(ge=0)] | Literal["any"] = 0
    """Index; ``any``: drawn for each node."""
    latency: str = DEFAULT_LATENCY
    jitter: str = "0s"


class Incident(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Faults that belong together; their ``at`` counts from the incident's."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    faults: Annotated[list[FaultEntry], msgspec.Meta(min_length=1)]
    at: str = "0s"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nodes: list[NodeGroup] | None = None
    faults: list[FaultEntry] | None = None
    incidents: list[Incident] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0


class Timed(msgspec.Struct, frozen=True):
    """A fault of one node, in seconds from the start; ``until`` is None where it does not end."""

    node: str
    fault: Fault
    gpu: int
    latency: float
    start: float
    until: float | None
    jitter: float = 0.0
    every: float | None = None

    def active(self, elapsed: float) -> bool:
        """Whether it is there so many seconds after the start."""
        if elapsed < self.start:
            return False
        if self.until is None:
            return True
        since = elapsed - self.start
        return (since if self.every is None else since % self.every) < self.until - self.start


class Scenario(msgspec.Struct, frozen=True):
    """A checked scenario."""

    nodes: tuple[NodeSpec, ...]
    timed: tuple[Timed, ...]
    """By start."""
    seed: int = 0
    incidents: tuple[tuple[float, str], ...] = ()
    """Seconds from the start, and name."""

    def active(self, elapsed: float) -> dict[str, tuple[Timed, ...]]:
        """What is wrong so many seconds after the start, by node: only nodes with faults, oldest fault first."""
        now: dict[str, tuple[Timed, ...]] = {}
        for each in self.timed:
            if each.active(elapsed):
                now[each.node] = (*now.get(each.node, ()), each)
        return now


def load(path: Path, nodes: Iterable[NodeSpec] | None = None, *, seed: int | None = None) -> Scenario:
    """Read and check a scenario file.

    Args:
        path: the file.
        nodes: the nodes there are, when the file does not say; its own ``nodes`` go before these.
        seed: goes before the file's own.

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
        return parse(document, nodes, seed=seed)
    except ValueError as error:
        raise CommandError(f"The scenario {path} has a mistake: {error}") from None


def parse(document: Any, nodes: Iterable[NodeSpec] | None = None, *, seed: int | None = None) -> Scenario:
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
    seed = file.seed if seed is None else seed
    timed, begins = [], []
    for number, entry in enumerate(file.faults or []):
        timed += _timed(entry, f"faults[{number}]", by_name, seed=seed)
    for number, incident in enumerate(file.incidents or []):
        where = f"incidents[{number}]"
        at = _seconds(f"{where}.at", incident.at)
        begins.append((at, incident.name))
        for inner, entry in enumerate(incident.faults):
            timed += _timed(entry, f"{where}.faults[{inner}]", by_name, seed=seed, after=at)
    timed.sort(key=lambda each: each.start)
    return Scenario(specs, tuple(timed), seed, tuple(sorted(begins)))


def _nodes(groups: Iterable[NodeGroup]) -> list[NodeSpec]:
    numbered: list[tuple[NodeGroup, range]] = []
    following: dict[str, int] = {}
    for number, group in enumerate(groups):
        if group.machine not in MACHINES:
            raise ValueError(f"nodes[{number}].machine: {group.machine!r} is none of {', '.join(MACHINES)}.")
        for field in ("latency", "jitter"):
            _seconds(f"nodes[{number}].{field}", getattr(group, field))
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
            name=f"{group.name}-{index:0{width[group.name]}d}",
            machine=MACHINES[group.machine],
            labels=group.labels,
            latency=durations.parse(group.latency),
            jitter=durations.parse(group.jitter),
        )
        for group, indices in numbered
        for index in indices
    ]


def _timed(
    entry: FaultEntry, where: str, nodes: Mapping[str, NodeSpec], *, seed: int, after: float = 0.0
) -> list[Timed]:
    """The fault of every node that it strikes; ``where`` names the entry, ``after`` is added to its ``at``."""
    if entry.fault not in list(Fault):
        raise ValueError(f"{where}.fault: {entry.fault!r} is none of {', '.join(Fault)}.")
    fault = Fault(entry.fault)
    start = after + _seconds(f"{where}.at", entry.at)
    lasts = None if entry.lasts is None else _seconds(f"{where}.for", entry.lasts)
    every = _every(entry, where, lasts)
    spread = _seconds(f"{where}.spread", entry.spread)
    latency = _seconds(f"{where}.latency", entry.latency) if fault.takes_latency else 0.0
    jitter = _seconds(f"{where}.jitter", entry.jitter) if fault.takes_latency else 0.0
    share = _share(f"{where}.share", entry.share)
    targets = _targets(entry.node, nodes)
    if not targets:
        raise ValueError(
            f"{where}.node: {entry.node!r} fits no node; write a name, a pattern such as gpu-*, "
            f"or labels such as pool=training. The first node is {next(iter(nodes))}."
        )
    # By the fault's own words, not by its place: a line added above it changes nothing.
    drawn = random.Random(f"{seed}/{after}/{entry}")  # noqa: S311 (a simulation)
    if share < 1:
        targets = drawn.sample(targets, max(1, round(share * len(targets))))
    timed = []
    for target in targets:
        count = target.machine.gpu_count
        gpu = drawn.randrange(count) if entry.gpu == "any" else entry.gpu
        if fault.on_gpu and gpu >= count:
            raise ValueError(f"{where}.gpu: {target.name} has GPUs 0 to {count - 1}, no {gpu}.")
        begins = start + (drawn.uniform(0, spread) if spread else 0.0)
        until = None if lasts is None else begins + lasts
        timed.append(Timed(target.name, fault, gpu, latency, begins, until, jitter, every))
    return timed


def _every(entry: FaultEntry, where: str, lasts: float | None) -> float | None:
    if entry.every is None:
        return None
    every = _seconds(f"{where}.every", entry.every)
    if lasts is None or not 0 < lasts < every:
        raise ValueError(f"{where}.every: needs a for that is shorter, such as every: 1m, for: 20s.")
    return every


def _share(where: str, text: str) -> float:
    match = _SHARE.fullmatch(text)
    share = float(match["number"]) / 100 if match else 0.0
    if not 0 < share <= 1:
        raise ValueError(f"{where}: {text!r} is no share above 0% and up to 100%, such as 10%.")
    return share


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
