"""The fleet as the GPUNodes tell it: what an aggregator over shards judges, whoever reads the nodes.

A state is recalled from GPUNode.status and completed by what is not stored there because it is known here: the Node's
uid and labels, the agent's Pod, and whether its maintenance is over. The same nodes are in it as one process would
have in memory: those with a status that are still targets.
"""

from collections.abc import Callable, Collection

import msgspec

from gpudiag_api.kinds import GPUNodeSpec
from gpudiag_operator.assess.node import in_maintenance
from gpudiag_operator.discover.discovery import Discovery
from gpudiag_operator.domain import NodeInfo, NodeState
from gpudiag_operator.store import MemoryNodeStore


class RecalledNodes:
    """Fills a store. A listener of the reflector of Nodes, after discovery, and told of GPUNodes by the fleet.

    Args:
        store: to be filled.
        discovery: knows Nodes and targets.
        wall: Unix seconds.
    """

    def __init__(self, store: MemoryNodeStore, discovery: Discovery, *, wall: Callable[[], float]) -> None:
        self._store = store
        self._discovery = discovery
        self._wall = wall
        self._recalled: dict[str, tuple[NodeState, GPUNodeSpec]] = {}

    def told(self, name: str, state: NodeState | None, spec: GPUNodeSpec) -> None:
        """A GPUNode is new, changed or gone; without a status that can be read ``state`` is None."""
        if state is None:
            self._recalled.pop(name, None)
        else:
            self._recalled[name] = (state, spec)
        self.refresh(name)

    def start(self) -> None:
        """Discovery has started: GPUNodes of the first list find their targets."""
        for name in self._recalled:
            self.refresh(name)

    def refresh(self, name: str) -> None:
        """Compute a node anew: something about it changed, or its maintenance may be over."""
        found, target = self._recalled.get(name), self._discovery.targets.get(name)
        if found is None or target is None:
            self._store.remove(name)
            return
        state, spec = found
        if not (self._discovery.is_gpu_node(name) or state.gpus):
            self._store.remove(name)
            return
        node = self._discovery.node(name)
        self._store.put(
            msgspec.structs.replace(
                state,
                node_uid=node.uid if node else "",
                labels=node.labels if node else {},
                pod=target.pod,
                maintenance=in_maintenance(spec, self._wall()),
            )
        )

    def upsert(self, name: str, item: NodeInfo) -> None:
        """A Node is new or changed."""
        self.refresh(name)

    def delete(self, name: str) -> None:
        """A Node is gone."""
        self.refresh(name)

    def pending(self) -> int:
        """GPU nodes of which nothing is stored yet."""
        return len(self.unwritten())

    def unwritten(self) -> Collection[str]:
        """Their names."""
        return [
            name
            for name in self._discovery.targets
            if self._store.get(name) is None and self._discovery.is_gpu_node(name)
        ]
