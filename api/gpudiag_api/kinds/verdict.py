"""GPUDiagnostic, the verdict: ``status``. At most 64 KiB serialised, whatever the size of the fleet."""

from typing import Annotated

from pydantic import Field

from gpudiag_api.kinds.base import ATOMIC, Conditions, Model, Timestamp
from gpudiag_api.kinds.parts import GPU, GPUCounts, Name, Text, Word, XIDEvent


class NodeCounts(Model):
    """Number of nodes by what became of reading them."""

    targeted: int = 0
    """Nodes that the target names or matches."""
    reporting: int = 0
    """Nodes whose agent answered."""
    skipped: int = 0
    """Nodes that were not called: not ready, no agent, or an open circuit breaker."""
    failed: int = 0
    """Nodes that were called and gave no usable answer."""
    maintenance: int = 0
    """Nodes under maintenance; they count above as well but do not move the verdict."""


class FindingCounts(Model):
    """Number of findings by severity."""

    critical: int = 0
    """Findings that make a GPU Unhealthy."""
    warning: int = 0
    """Findings that make a GPU Degraded."""
    info: int = 0
    """Findings without effect on health."""


class Summary(Model):
    """The verdict in numbers."""

    nodes: NodeCounts = NodeCounts()
    """Nodes."""
    gpus: GPUCounts = GPUCounts()
    """GPUs by health, after this diagnostic's policy."""
    findings: FindingCounts = FindingCounts()
    """Findings by severity."""


class InventoryGroup(Model):
    """GPUs that are alike."""

    model: Name = ""
    """Product name."""
    driver_version: Word | None = None
    """Driver version of their nodes."""
    memory_bytes: int | None = None
    """Memory of each GPU in bytes."""
    mig: Word = "Unsupported"
    """MIG mode: Enabled, Disabled or Unsupported."""
    gpus: int = 0
    """Number of GPUs in the group."""
    nodes: int = 0
    """Number of nodes that hold them."""


class NodeRow(Model):
    """One node, worst first in the list."""

    name: Name
    """Name of the node."""
    health: Word
    """Health after this diagnostic's policy."""
    changed_by_policy: bool = False
    """Whether the policy made it differ from the GPUNode's own health."""
    reason: Word = ""
    """Reason of the worst finding, or why the node was not read."""
    finding: Text | None = None
    """The worst finding in one sentence."""
    recommended_action: Word = "None"
    """The action that covers the node's findings."""
    gpus: GPUCounts = GPUCounts()
    """GPUs of the node by health."""
    breaker: Word = "Closed"
    """State of the node's circuit breaker."""
    maintenance: bool = False
    """Whether the node is under maintenance."""
    skipped: Text | None = None
    """Why the node was not called, in one sentence."""
    failed: Text | None = None
    """Why its agent gave no usable answer, in one sentence."""


class FindingGroup(Model):
    """Findings of the same check and reason across the fleet."""

    check: Word
    """The check that found them."""
    reason: Word
    """Their reason."""
    severity: Word
    """The worst severity among them."""
    count: int
    """Number of findings."""
    nodes: Annotated[tuple[Name, ...], Field(json_schema_extra=ATOMIC)] = ()
    """Example nodes, at most 5."""
    gpus: Annotated[tuple[Name, ...], Field(json_schema_extra=ATOMIC)] = ()
    """Example GPUs as node/index, at most 5."""
    blame: Word
    """Whose fault it is."""
    recommended_action: Word
    """What to do."""
    message: Text = ""
    """One of them in a sentence."""


class TimelinePoint(Model):
    """One sample of the flight recorder."""

    at: Timestamp
    """When it was taken (RFC 3339, UTC)."""
    temperature_celsius: float | None = None
    """GPU temperature in degrees Celsius."""
    power_watts: float | None = None
    """Power in watts."""
    utilization_percent: float | None = None
    """GPU utilisation in percent."""
    memory_used_bytes: int | None = None
    """Memory in use in bytes."""
    sm_clock_mhz: float | None = None
    """SM clock in MHz."""
    throttled: bool | None = None
    """True where hardware held the clocks down."""


class Timeline(Model):
    """The flight recorder of one GPU."""

    gpu: int
    """Index of the GPU."""
    points: Annotated[tuple[TimelinePoint, ...], Field(json_schema_extra=ATOMIC)] = ()
    """Samples, oldest first, at most 60."""


class Change(Model):
    """Something that happened on the node meanwhile."""

    at: Timestamp
    """When (RFC 3339, UTC)."""
    kind: Word
    """xid, raised, cleared, health or driver."""
    message: Text = ""
    """What, in one sentence."""
    gpu: int | None = None
    """Index of the GPU; absent: the node."""


class TopologyLink(Model):
    """A connection between two GPUs."""

    gpu: int
    """Index of one GPU."""
    peer: int
    """Index of the other."""
    kind: Word
    """NVLink (direct), NVSwitch, PCIe (same NUMA node) or System (across CPUs)."""
    links: int = 1
    """Number of active NVLinks."""


class GPUPlacement(Model):
    """Where a GPU sits."""

    gpu: int
    """Index of the GPU."""
    numa_node: int | None = None
    """NUMA node of its slot."""
    pcie_generation: int | None = None
    """Current PCIe generation."""
    pcie_generation_max: int | None = None
    """PCIe generation that GPU and slot can do; the current one drops at idle."""
    pcie_width: int | None = None
    """Current PCIe width in lanes."""
    pcie_width_max: int | None = None
    """PCIe width that GPU and slot can do."""
    nvlinks_active: int | None = None
    """NVLinks that are up."""
    nvlinks_total: int | None = None
    """NVLinks that the GPU has."""
    fabric: Word | None = None
    """Registration in the NVSwitch fabric: NotStarted, InProgress or Completed."""


class Topology(Model):
    """How the GPUs of a node are connected."""

    links: Annotated[tuple[TopologyLink, ...], Field(json_schema_extra=ATOMIC)] = ()
    """Connections between GPUs."""
    placement: Annotated[tuple[GPUPlacement, ...], Field(json_schema_extra=ATOMIC)] = ()
    """Where each GPU sits."""


class Process(Model):
    """A process that uses a GPU. Its Pod is shown only to those who may see it."""

    gpu: int
    """Index of the GPU."""
    pid: int
    """Host process id."""
    name: Name = ""
    """Name of the process."""
    memory_bytes: int | None = None
    """GPU memory in use in bytes."""
    namespace: Name | None = None
    """Namespace of its Pod."""
    pod: Name | None = None
    """Name of its Pod."""


class NodeResult(Model):
    """Everything about one node (detail: Full)."""

    node: Name
    """Name of the node."""
    gpus: Annotated[tuple[GPU, ...], Field(json_schema_extra=ATOMIC)] = ()
    """Its GPUs."""
    events: Annotated[tuple[XIDEvent, ...], Field(json_schema_extra=ATOMIC)] = ()
    """XID errors, newest first, at most 20."""
    timeline: Annotated[tuple[Timeline, ...], Field(json_schema_extra=ATOMIC)] = ()
    """The flight recorder, per GPU."""
    timeline_truncated: bool = False
    """Whether points were left out to stay within 64 KiB."""
    changes: Annotated[tuple[Change, ...], Field(json_schema_extra=ATOMIC)] = ()
    """What happened in the last half hour, oldest first, at most 32."""
    topology: Topology | None = None
    """How its GPUs are connected."""
    processes: Annotated[tuple[Process, ...], Field(json_schema_extra=ATOMIC)] = ()
    """Processes on its GPUs, at most 64."""
    processes_truncated: bool = False
    """Whether processes were left out."""
    missing: Text | None = None
    """Which parts the agent did not give, and why."""


class HistoryEntry(Model):
    """One change of verdict."""

    at: Timestamp
    """When (RFC 3339, UTC)."""
    verdict: Word
    """The verdict from then on."""
    message: Text = ""
    """Why, in one sentence."""
    run_id: Word = ""
    """The run that found it."""


class GPUDiagnosticStatus(Model):
    """The verdict: first whether it is fine, then the evidence, then what to do."""

    observed_generation: int | None = None
    """metadata.generation that this status answers."""
    conditions: Conditions = ()
    """Ready (processed and fresh; says nothing about GPU health), Complete, GPUsHealthy, AgentsReachable,
    CircuitBreakersClosed; Reconciling and Stalled only while true."""
    verdict: Word = "Unknown"
    """Healthy, Degraded, Unhealthy or Unknown: the worst of the targets, subject to policy.tolerate."""
    message: Text = ""
    """The verdict in one sentence: what is wrong, where, and what to do."""
    recommended_action: Word = "None"
    """The action that covers all findings."""
    run_id: Word = ""
    """The run that last changed this status: the same id is in logs, traces and agent requests."""
    started_at: Timestamp | None = None
    """When that run started (RFC 3339, UTC)."""
    finished_at: Timestamp | None = None
    """When that run finished (RFC 3339, UTC)."""
    last_confirmed_at: Timestamp | None = None
    """When the status was last found to be still true; moves at most every 5 minutes (RFC 3339, UTC)."""
    last_handled_trigger: Annotated[str, Field(max_length=256)] | None = None
    """The value of spec.trigger that was carried out last."""
    summary: Summary = Summary()
    """The verdict in numbers."""
    inventory: Annotated[tuple[InventoryGroup, ...], Field(json_schema_extra=ATOMIC)] = ()
    """GPUs by model, driver, memory and MIG mode, largest group first, at most 32 groups."""
    inventory_truncated: bool = False
    """Whether there were more groups than are listed."""
    nodes: Annotated[tuple[NodeRow, ...], Field(json_schema_extra=ATOMIC)] = ()
    """Nodes, worst first, at most 50."""
    nodes_truncated: bool = False
    """Whether there were more nodes than are listed; summary counts them all."""
    findings: Annotated[tuple[FindingGroup, ...], Field(json_schema_extra=ATOMIC)] = ()
    """Findings grouped by check and reason, worst first, at most 32 groups."""
    findings_truncated: bool = False
    """Whether there were more groups than are listed."""
    results: Annotated[tuple[NodeResult, ...], Field(json_schema_extra=ATOMIC)] = ()
    """Everything about each node (detail: Full)."""
    results_truncated: bool = False
    """Whether results were left out to stay within 64 KiB."""
    history: Annotated[tuple[HistoryEntry, ...], Field(json_schema_extra=ATOMIC)] = ()
    """Changes of verdict, newest first, at most spec.historyLimit."""
