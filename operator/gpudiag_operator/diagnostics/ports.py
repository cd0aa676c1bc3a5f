"""What the scheduler needs of others, and nothing more."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_operator.diagnostics.registry import Diagnostic, Key


class Writer(Protocol):
    """``writer.StatusWriter``."""

    def submit(self, key: Key, uid: str, *, previous: GPUDiagnosticStatus | None, status: GPUDiagnosticStatus) -> None:
        """Have a status written."""
        ...

    def forget(self, key: Key) -> None:
        """Drop what waits."""
        ...


class Deleter(Protocol):
    """Deletes what has outlived its TTL."""

    def delete(self, diagnostic: Diagnostic) -> None:
        """Have that very object, in that very state, deleted; on failure it is asked again later."""
        ...


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the scheduler is told by the rest of the operator.

    Attributes:
        warm: whether every node was read once since the start, or had its time.
        stale: why what is known may be old, for people; empty when it is fresh.
        critical_xids: told the codes that any diagnostic calls critical, when they change.
        monotonic: seconds of a clock that never jumps.
        wall: Unix seconds.
        own_namespace: where diagnostics may show Pods of any namespace.
        no_way: what to say when no agent at all can be connected to.
        unwritten: labels of nodes without a GPUNode, by name, while many are to be written for the first time.
    """

    warm: Callable[[], bool]
    stale: Callable[[], str]
    critical_xids: Callable[[frozenset[int]], None]
    monotonic: Callable[[], float]
    wall: Callable[[], float]
    own_namespace: str
    no_way: str = ""
    unwritten: Callable[[], Mapping[str, Mapping[str, str]]] = dict
