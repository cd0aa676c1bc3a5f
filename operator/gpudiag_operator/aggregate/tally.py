"""The single pass over all rows of a diagnostic: numbers, groups, and the few rows that will be shown.

Nothing but plain numbers, tuples and dicts per node: 5,000 nodes with 8 GPUs take tens of milliseconds. Models are
made for what is shown only.
"""

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from gpudiag_api.vocabulary import Action, BreakerState, Health, NotRead, Severity
from gpudiag_api.wire import Finding
from gpudiag_operator.assess.policy import SKIPPED, Row
from gpudiag_operator.domain import NodeState

CLOSED = frozenset({BreakerState.CLOSED, BreakerState.FORCED_CLOSED})

InventoryKey = tuple[str, str | None, int | None, bool | None]
"""Model, driver version, memory in bytes, MIG mode."""


@dataclass(slots=True)
class Group:
    """Findings of one check and reason."""

    worst: Finding
    node: str
    """Where ``worst`` is."""
    count: int = 0
    action: Action = Action.NONE
    nodes: set[str] = field(default_factory=set)
    gpus: set[tuple[str, int]] = field(default_factory=set)

    def add(self, node: str, finding: Finding) -> None:
        """Count one more; which of them is shown does not depend on the order of nodes."""
        self.count += 1
        self.nodes.add(node)
        index = finding.subject.gpu_index
        if index is not None:
            self.gpus.add((node, index))
        if finding.action is not self.action and finding.action.disruption > self.action.disruption:
            self.action = finding.action
        worst = self.worst
        heavier = 0
        if finding.severity is not worst.severity:
            heavier = finding.severity.badness - worst.severity.badness
        if heavier > 0 or (heavier == 0 and node < self.node):
            self.worst, self.node = finding, node


@dataclass(slots=True)
class Tally:
    """All numbers of one aggregation. ``counted`` leaves out nodes in maintenance: they move no verdict."""

    targeted: int = 0
    reporting: int = 0
    skipped: int = 0
    failed: int = 0
    maintenance: int = 0
    total: int = 0
    healthy: int = 0
    degraded: int = 0
    unhealthy: int = 0
    unknown: int = 0
    counted_nodes: int = 0
    counted_gpus: int = 0
    unhealthy_nodes: int = 0
    degraded_nodes: int = 0
    blind_nodes: int = 0
    burden: int = 0
    action: Action = Action.NONE
    not_read: Counter[NotRead] = field(default_factory=Counter)
    not_read_nodes: dict[NotRead, str] = field(default_factory=dict)
    """An example for each reason."""
    breakers_open: list[str] = field(default_factory=list)
    severities: dict[Severity, int] = field(default_factory=lambda: dict.fromkeys(Severity, 0))
    groups: dict[tuple[str, str], Group] = field(default_factory=dict)
    inventory: dict[InventoryKey, list[int]] = field(default_factory=dict)
    """Number of GPUs, number of nodes."""
    rows: list[Row] = field(default_factory=list)

    def worst(self, limit: int) -> list[Row]:
        """The worst rows, worst first; the same whatever order the nodes came in."""
        return heapq.nsmallest(limit, self.rows, key=_rank)


def tally(rows: Iterable[Row]) -> Tally:
    """Add up all rows."""
    sums = Tally()
    for row in rows:
        sums.rows.append(row)
        _add_node(sums, row)
        _add_gpus(sums, row)
        if row.findings:
            _add_findings(sums, row)
        if not row.maintenance:
            _add_counted(sums, row)
    sums.targeted = len(sums.rows)
    return sums


def _rank(row: Row) -> tuple[int, bool, int, int, str]:
    return (-row.health.badness, row.maintenance, -row.burden, -row.action.disruption, row.state.name)


def _add_node(sums: Tally, row: Row) -> None:
    state = row.state
    sums.maintenance += row.maintenance
    if state.breaker.state not in CLOSED:
        sums.breakers_open.append(state.name)
    failure = state.failure
    if failure is None:
        sums.reporting += 1
        return
    if failure.reason in SKIPPED:
        sums.skipped += 1
    else:
        sums.failed += 1
    sums.not_read[failure.reason] += 1
    known = sums.not_read_nodes.get(failure.reason)
    if known is None or state.name < known:
        sums.not_read_nodes[failure.reason] = state.name


def _add_gpus(sums: Tally, row: Row) -> None:
    gpus = row.gpus
    sums.total += gpus.total
    sums.healthy += gpus.healthy
    sums.degraded += gpus.degraded
    sums.unhealthy += gpus.unhealthy
    sums.unknown += gpus.unknown
    for key, number in _inventory(row.state).items():
        group = sums.inventory.get(key)
        if group is None:
            sums.inventory[key] = [number, 1]
        else:
            group[0] += number
            group[1] += 1


def _inventory(state: NodeState) -> dict[InventoryKey, int]:
    """GPUs of one node by kind. Mostly all of one: compared field by field, which is cheaper than hashing each."""
    found: dict[InventoryKey, int] = {}
    driver, last, run = state.driver.version, None, 0
    for gpu in state.gpus:
        if (
            last is not None
            and gpu.model == last.model
            and gpu.memory_bytes == last.memory_bytes
            and gpu.mig_enabled is last.mig_enabled
        ):
            run += 1
            continue
        if last is not None:
            key = (last.model, driver, last.memory_bytes, last.mig_enabled)
            found[key] = found.get(key, 0) + run
        last, run = gpu, 1
    if last is not None:
        key = (last.model, driver, last.memory_bytes, last.mig_enabled)
        found[key] = found.get(key, 0) + run
    return found


def _add_findings(sums: Tally, row: Row) -> None:
    name = row.state.name
    severities = sums.severities
    for finding in row.findings:
        severities[finding.severity] += 1
        key = (finding.check, finding.reason)
        group = sums.groups.get(key)
        if group is None:
            group = sums.groups[key] = Group(worst=finding, node=name)
        group.add(name, finding)


def _add_counted(sums: Tally, row: Row) -> None:
    sums.counted_nodes += 1
    sums.counted_gpus += row.gpus.total
    sums.burden += row.burden
    sums.blind_nodes += row.blind
    sums.unhealthy_nodes += row.health is Health.UNHEALTHY
    sums.degraded_nodes += row.health is Health.DEGRADED
    if row.action.disruption > sums.action.disruption:
        sums.action = row.action
