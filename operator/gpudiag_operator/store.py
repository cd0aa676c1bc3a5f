"""Assessed nodes in memory: what the scheduler reads and the metrics show.

The one place where the operator's knowledge of the fleet lives. An aggregator over shards will fill the same Protocol
(``domain.NodeStore``) from GPUNodes by watch.
"""

from collections.abc import Callable, Iterable

from gpudiag_operator.domain import NodeState


class MemoryNodeStore:
    """``domain.NodeStore`` in this process. Single-threaded: one event loop writes and reads."""

    def __init__(self) -> None:
        self._states: dict[str, NodeState] = {}
        self._listeners: list[Callable[[str], None]] = []

    def get(self, name: str) -> NodeState | None:
        """The state of one node, None when it is not known."""
        return self._states.get(name)

    def all(self) -> Iterable[NodeState]:
        """Every node, in no order."""
        return self._states.values()

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with a node's name after each change, removals included."""
        self._listeners.append(listener)

    def put(self, state: NodeState) -> bool:
        """Keep a node's new state; tells the listeners, and the caller, only if it differs."""
        if self._states.get(state.name) == state:
            return False
        self._states[state.name] = state
        self._tell(state.name)
        return True

    def remove(self, name: str) -> None:
        """Forget a node that is gone."""
        if self._states.pop(name, None) is not None:
            self._tell(name)

    def __len__(self) -> int:
        return len(self._states)

    def _tell(self, name: str) -> None:
        for listener in self._listeners:
            listener(name)
