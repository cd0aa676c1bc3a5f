"""The hard bound of a status: 64 KiB serialised, whatever the fleet and however long its strings.

etcd holds objects of 1.5 MiB and every watcher gets every version, so a status is a summary, not a dump. What is
dropped first is what can be asked for again: timeline points, then processes, then rows. Each drop sets its flag.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_api.kinds.base import Model
from gpudiag_api.kinds.verdict import NodeResult, Timeline

M = TypeVar("M", bound=Model)

LIMIT = 64 * 1024
"""Bytes of the status as JSON."""

_SLACK = 256
"""Truncation flags that turn from false to true, commas, and the like."""


def dump(status: Model) -> dict[str, Any]:
    """A status as it goes to the API server: camelCase, fields without a value left out."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def size(status: Model) -> int:
    """Bytes of a status as JSON."""
    return len(status.model_dump_json(by_alias=True, exclude_none=True).encode())


def fit(status: GPUDiagnosticStatus, limit: int = LIMIT) -> GPUDiagnosticStatus:
    """The status, or as much of it as fits into ``limit`` bytes.

    What never goes: conditions, verdict, message, action, summary. They are bounded by themselves (about 20 KiB).
    """
    for step in _LADDER:
        excess = size(status) - limit
        if excess <= 0:
            return status
        status = step(status, excess + _SLACK)
    return status


def _fewer_points(status: GPUDiagnosticStatus, excess: int) -> GPUDiagnosticStatus:
    """Thin out all timelines alike; the newest points stay."""
    points = [point for result in status.results for line in result.timeline for point in line.points]
    total = sum(size(point) + 1 for point in points)
    keep = max(total - excess, 0) / total if total else 0.0

    def thin(line: Timeline) -> Timeline:
        number = int(len(line.points) * keep)
        return line.model_copy(update={"points": line.points[len(line.points) - number :]})

    def thinned(result: NodeResult) -> NodeResult:
        if not any(line.points for line in result.timeline):
            return result
        return result.model_copy(
            update={"timeline": tuple(thin(line) for line in result.timeline), "timeline_truncated": True}
        )

    return status.model_copy(update={"results": tuple(map(thinned, status.results))})


def _fewer_processes(status: GPUDiagnosticStatus, excess: int) -> GPUDiagnosticStatus:
    results = []
    for result in status.results:
        kept, excess = _without_tail(result.processes, excess, 0)
        cut = result.processes_truncated or len(kept) < len(result.processes)
        results.append(result.model_copy(update={"processes": kept, "processes_truncated": cut}))
    return status.model_copy(update={"results": tuple(results)})


def _without_tail(items: Sequence[M], excess: int, floor: int) -> tuple[tuple[M, ...], int]:
    """Drop items from the end until ``excess`` bytes are saved or ``floor`` items are left."""
    kept = list(items)
    while excess > 0 and len(kept) > floor:
        excess -= size(kept.pop()) + 1
    return tuple(kept), excess


def _shorter(name: str, floor: int, flag: str | None = None) -> Callable[[GPUDiagnosticStatus, int], Any]:
    """A step that shortens one list of the status, worst first, down to ``floor`` entries."""

    def step(status: GPUDiagnosticStatus, excess: int) -> GPUDiagnosticStatus:
        items = getattr(status, name)
        kept, _ = _without_tail(items, excess, floor)
        update: dict[str, Any] = {name: kept}
        if flag is not None and len(kept) < len(items):
            update[flag] = True
        return status.model_copy(update=update)

    return step


_LADDER: tuple[Callable[[GPUDiagnosticStatus, int], GPUDiagnosticStatus], ...] = (
    _fewer_points,
    _fewer_processes,
    _shorter("results", 0, "results_truncated"),
    _shorter("nodes", 20, "nodes_truncated"),
    _shorter("history", 5),
    _shorter("findings", 10, "findings_truncated"),
    _shorter("inventory", 8, "inventory_truncated"),
    _shorter("nodes", 5, "nodes_truncated"),
    _shorter("findings", 3, "findings_truncated"),
    _shorter("history", 0),
    _shorter("inventory", 0, "inventory_truncated"),
    _shorter("nodes", 0, "nodes_truncated"),
    _shorter("findings", 0, "findings_truncated"),
)
