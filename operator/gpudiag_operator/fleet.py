"""The middle of the operator: every reading becomes an assessed node, and that goes to store and publisher.

Glue between the steps, without I/O of its own. It knows what belongs together (a node's reading, its Node, the wishes
in its GPUNode, what an earlier process knew) and when to assess anew; how is the business of ``assess``.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from pydantic import ValidationError

from gpudiag_api.kinds import GPUNodeSpec
from gpudiag_api.times import from_rfc3339
from gpudiag_api.vocabulary import BreakerState, NotRead
from gpudiag_operator.assess.node import assess
from gpudiag_operator.collect.collector import Collector
from gpudiag_operator.discover.discovery import Discovery
from gpudiag_operator.domain import BreakerSnapshot, Failure, NodeInfo, NodeState, Reading, Target
from gpudiag_operator.leadership.recalled import RecalledNodes
from gpudiag_operator.leadership.shards import Share
from gpudiag_operator.publish import limits
from gpudiag_operator.store import MemoryNodeStore

log = logging.getLogger(__name__)

_DEFAULT = GPUNodeSpec()


class NodePublisher(Protocol):
    """``publish.Publisher``, as far as nodes go."""

    def restore(self, name: str, gpunode: Mapping[str, Any]) -> NodeState | None:
        """Take what is stored; gives it as a state."""
        ...

    def deleted(self, name: str) -> None:
        """The object is gone."""
        ...

    def submit(self, state: NodeState) -> None:
        """Have it written if it means something new."""
        ...

    def remove(self, name: str) -> None:
        """The node is no target any more."""
        ...

    def unfilled(self) -> Collection[str]:
        """Nodes whose first write will take a while."""
        ...


class Fleet:
    """Assesses nodes when anything about them changes.

    Args:
        store: takes the states of the nodes that this process reads.
        publisher: takes them, too, and knows what is stored.
        rejected: counts Once reads that an open breaker refused.
        wall: Unix seconds.
    """

    collector: Collector
    discovery: Discovery
    share: Share

    def __init__(
        self,
        store: MemoryNodeStore,
        publisher: NodePublisher,
        *,
        rejected: Callable[[], None] = lambda: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._rejected = rejected
        self._wall = wall
        self._specs: dict[str, GPUNodeSpec] = {}
        self._last: dict[str, NodeState] = {}
        """What another process knows, or knew before this one; of a node that is ours until we know better."""
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def connect(
        self,
        *,
        collector: Collector,
        discovery: Discovery,
        share: Share | None = None,
        recalled: RecalledNodes | None = None,
    ) -> None:
        """Complete the circle: the collector needs this object's ``on_reading`` to be made.

        Args:
            collector: reads the nodes.
            discovery: finds them.
            share: between the two; default: one for the whole fleet.
            recalled: told what GPUNodes say.
        """
        self.collector = collector
        self.discovery = discovery
        self.share = share or Share(collector)
        self.recalled = recalled

    def start(self) -> None:
        """All first lists are told: from now on targets are, as far as they are owned."""
        self.discovery.start()
        if self.recalled is not None:
            self.recalled.start()

    def own(self, shard: int) -> None:
        """Read the nodes of one more shard, from what their owner before knew."""
        for name, last in self._last.items():
            if self.share.is_of(name, shard):
                self.collector.restore(name, last.breaker, last.failure)
        self.share.take(shard, self.discovery.targets)

    def pending(self) -> int:
        """Targets of ours that were not read yet, and whose time is not up either."""
        return sum(1 for name in self.discovery.targets if self.share.owns(name) and not self._heard(name))

    def unwritten(self) -> Mapping[str, Mapping[str, str]]:
        """Labels of the GPU nodes without a GPUNode, by name, while a first fill is under way that takes a while."""
        names = self._publisher.unfilled() if self.recalled is None else self.recalled.unwritten()
        return {name: node.labels for name in names if (node := self.discovery.node(name)) is not None}

    def _heard(self, name: str) -> bool:
        if self._store.get(name) is not None:
            return True
        reading = self.collector.reading(name)  # of a node that turned out to have no GPUs
        return reading is not None and (reading.report is not None or reading.failure is not None)

    # From the collector

    def on_reading(self, reading: Reading) -> None:
        """A reading that is news."""
        name = reading.target.node
        gone = reading.failure is not None and reading.failure.reason is NotRead.NODE_GONE
        if gone or not self._has_gpus(reading):
            self._drop(name)
            return
        if reading.report is not None:
            self._last.pop(name, None)
        state = self._assess(reading)
        if self._store.put(state):
            self._publisher.submit(state)

    async def read_fresh(
        self, names: Sequence[str], deadline: float, run_id: str, *, full: bool = False
    ) -> Mapping[str, NodeState]:
        """Fresh states for a Once run, in order of urgency; see ``once.FreshReads``."""
        readings = await self.collector.fetch_fresh(names, deadline=deadline, run_id=run_id, full=full)
        refused = (BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.FORCED_OPEN)
        for reading in readings.values():
            if reading.failure is not None and reading.breaker.state in refused:
                self._rejected()
        return {name: self._assess(readings[name]) for name in names if name in readings}

    # From reflectors

    def upsert(self, name: str, item: NodeInfo) -> None:
        """A Node is new or changed (listener of its reflector, after discovery): labels and uid are in the state."""
        self._reassess(name)

    def delete(self, name: str) -> None:
        """A Node is gone: discovery has said so, and the collector's last reading says it here."""

    def gpunode_changed(self, name: str, body: Mapping[str, Any]) -> None:
        """A GPUNode is new or changed, by people or by us."""
        stored = self._publisher.restore(name, body)
        if not self.share.owns(name):
            self._remember(name, stored)
        spec = _spec_of(name, body)
        self._wish(name, spec)
        if self.recalled is not None:
            self.recalled.told(name, stored, spec)
        state = self._store.get(name)
        if state is not None:
            # Nothing is written unless something is amiss: a generation not observed yet, an owner or a label gone.
            self._publisher.submit(state)

    def gpunode_deleted(self, name: str) -> None:
        """A GPUNode is gone: made again while its node is a target."""
        self._publisher.deleted(name)
        self._wish(name, _DEFAULT)
        if not self.share.owns(name):
            self._remember(name, None)
        if self.recalled is not None:
            self.recalled.told(name, None, _DEFAULT)
        state = self._store.get(name)
        if state is not None:
            self._publisher.submit(state)

    # Within

    def _remember(self, name: str, stored: NodeState | None) -> None:
        if stored is None:
            self._last.pop(name, None)
        else:
            self._last[name] = stored

    def _wish(self, name: str, spec: GPUNodeSpec) -> None:
        """Do what people want for a node."""
        before = self._specs.get(name, _DEFAULT)
        if spec == before:
            return
        if spec == _DEFAULT:
            del self._specs[name]
        else:
            self._specs[name] = spec
        self.collector.set_override(name, spec.circuit_breaker)
        if spec.reset_circuit_breaker is not None and spec.reset_circuit_breaker != before.reset_circuit_breaker:
            self.collector.reset(name, spec.reset_circuit_breaker)
        if spec.maintenance != before.maintenance:
            self._time_maintenance(name, spec)
            self._reassess(name)

    def _time_maintenance(self, name: str, spec: GPUNodeSpec) -> None:
        """Look again when the maintenance is over."""
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
        if spec.maintenance is None or spec.maintenance.until is None:
            return
        try:
            left = from_rfc3339(spec.maintenance.until) - self._wall()
        except ValueError:
            return
        if left > 0:
            # Half an hour at a time: a loop's timer keeps no pace with a wall clock that is set.
            again = min(left + 0.1, 1800.0)
            self._timers[name] = asyncio.get_running_loop().call_later(again, self._maintenance_due, name)

    def _maintenance_due(self, name: str) -> None:
        self._timers.pop(name, None)
        self._time_maintenance(name, self._specs.get(name, _DEFAULT))
        self._reassess(name)
        if self.recalled is not None:
            self.recalled.refresh(name)

    def _reassess(self, name: str) -> None:
        """Assess anew what is known already; a node that was not read yet waits for its first reading."""
        if self._store.get(name) is None:
            return
        reading = self.collector.reading(name)
        if reading is not None:
            self.on_reading(reading)

    def _assess(self, reading: Reading) -> NodeState:
        name = reading.target.node
        return limits.fitted(
            assess(
                reading,
                node=self.discovery.node(name),
                spec=self._specs.get(name, _DEFAULT),
                now=self._wall(),
                last=self._last.get(name),
            )
        )

    def stranger(self, name: str) -> tuple[Target, BreakerSnapshot, Failure | None] | None:
        """A node that another process reads: how to read it afresh, and what its GPUNode says of its breaker."""
        target, known = self.discovery.targets.get(name), self._last.get(name)
        if target is None or self.share.owns(name):
            return None
        return (target, BreakerSnapshot(), None) if known is None else (target, known.breaker, known.failure)

    def _has_gpus(self, reading: Reading) -> bool:
        """Whether the node counts: something shows GPUs, and be it only the agent's report."""
        if self.discovery.is_gpu_node(reading.target.node):
            return True
        return reading.report is not None and bool(reading.report.gpus)

    def _drop(self, name: str) -> None:
        self._last.pop(name, None)
        self._store.remove(name)
        self._publisher.remove(name)


def _spec_of(name: str, body: Mapping[str, Any]) -> GPUNodeSpec:
    try:
        return GPUNodeSpec.model_validate(body.get("spec") or {})
    except ValidationError as error:
        log.warning("GPUNode %s: spec is ignored, this version does not know it: %s", name, error.errors()[0]["msg"])
        return _DEFAULT
