"""The operator's own words, shared by its five steps: discover, collect, assess, aggregate, publish.

Immutable values without I/O. Each step takes the values of the step before it:

    discover → Target     a node that should be read, or why it cannot be
    collect  → Reading    what its agent last said, or why it did not
    assess   → NodeState  health of the node, everything that GPUNode.status holds
    aggregate, publish    status of GPUDiagnostics and GPUNodes

Kept as msgspec structs: 5,000 nodes with 8 GPUs each are in memory at once.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import msgspec

from gpudiag_api.vocabulary import Action, BreakerState, Health, NotRead
from gpudiag_api.wire import (
    GPU,
    Allocation,
    CapabilityGap,
    Driver,
    Finding,
    ProcessesAnswer,
    Report,
    TimelineAnswer,
    TopologyAnswer,
    XIDEvent,
)


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The little the operator keeps of a Node."""

    name: str
    uid: str
    ready: bool
    """Condition Ready is True. A node without the condition counts as ready (no kubelet has spoken yet)."""
    labels: Mapping[str, str]
    gpu: bool
    """Labels or capacity say that it has NVIDIA GPUs (design, section 4.2)."""


class AgentPod(msgspec.Struct, frozen=True, kw_only=True):
    """The little the operator keeps of an agent's Pod."""

    name: str
    uid: str
    node: str
    ip: str
    """Empty until the Pod has one."""
    ready: bool
    terminating: bool = False
    port: int | None = None
    """The container port named ``http``; None: the operator's ``--agent-port``."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A node to read, or the reason why it cannot be read without asking its agent."""

    node: str
    pod: AgentPod | None = None
    blocked: NotRead | None = None
    """NodeNotReady, AgentMissing, AgentNotReady or AgentDuplicate; None: call ``pod``."""
    message: str = ""
    """For people: what is missing and what to do. Empty when not blocked."""


class BreakerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A node's circuit breaker as others may see it."""

    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    """Consecutive failures."""
    opened_at: float | None = None
    """Unix seconds of the change to open."""
    open_for_seconds: float | None = None
    """How long it stays open from ``opened_at``."""
    last_handled_reset: str | None = None
    """The value of ``spec.resetCircuitBreaker`` that was carried out last."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a node is not read."""

    reason: NotRead
    message: str
    since: float
    """Unix seconds of the first failure in a row."""


class NodeDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What only a full run asks for."""

    timeline: TimelineAnswer | None = None
    topology: TopologyAnswer | None = None
    processes: ProcessesAnswer | None = None
    missing: tuple[str, ...] = ()
    """Parts that did not come, each with the reason."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What collect knows of one node: the last report, and whether it still counts."""

    target: Target
    report: Report | None = None
    """The last good report; kept while the node is unreachable, for its inventory."""
    etag: str | None = None
    failure: Failure | None = None
    """Set once the node counts as not read (after ``--unreachable-after``, at once for some reasons)."""
    breaker: BreakerSnapshot = BreakerSnapshot()
    read_at: float | None = None
    """Unix seconds of the last good answer, 304 included."""
    details: NodeDetails | None = None
    """Only of a full run."""


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """One node, assessed: what GPUNode.status holds, in the operator's memory."""

    name: str
    node_uid: str = ""
    labels: Mapping[str, str] = {}
    health: Health = Health.UNKNOWN
    reason: str = ""
    """Of the worst finding, capability or failure; ``AllHealthy`` when healthy."""
    message: str = ""
    action: Action = Action.NONE
    driver: Driver = Driver()
    gpus: tuple[GPU, ...] = ()
    findings: tuple[Finding, ...] = ()
    """Worst first."""
    findings_truncated: bool = False
    """Whether there were more than are kept (``publish.limits``)."""
    xids: tuple[XIDEvent, ...] = ()
    capabilities: tuple[CapabilityGap, ...] = ()
    allocations: tuple[Allocation, ...] = ()
    failure: Failure | None = None
    breaker: BreakerSnapshot = BreakerSnapshot()
    agent_version: str = ""
    pod: AgentPod | None = None
    sampled_at: str | None = None
    maintenance: bool = False
    details: NodeDetails | None = None
    """Only in the outcome of a full run, never in a store."""


class NodeStore(Protocol):
    """Assessed nodes by name. In memory here; a shard's aggregator will fill it from GPUNodes by watch."""

    def get(self, name: str) -> NodeState | None:
        """The state of one node, None when it is not known."""
        ...

    def all(self) -> Iterable[NodeState]:
        """Every node, in no order."""
        ...

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with a node's name after each change, removals included."""
        ...
