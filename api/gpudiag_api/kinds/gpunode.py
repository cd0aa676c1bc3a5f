"""GPUNode (cluster-scoped): the latest truth about one node. ``spec`` belongs to people, ``status`` to the operator."""

from typing import Annotated, Literal

from pydantic import Field

from gpudiag_api.kinds.base import ATOMIC, DEFAULTED_OBJECT, Conditions, Model, Timestamp, Trigger
from gpudiag_api.kinds.parts import GPU, Allocation, Finding, GPUCounts, Name, Text, Word, XIDEvent


class Maintenance(Model):
    """A node under maintenance: its findings are kept but do not move any verdict."""

    reason: Annotated[str, Field(max_length=256)] | None = None
    """Why, for the next person who looks."""
    until: Timestamp | None = None
    """When it ends by itself (RFC 3339, UTC); absent: when this object is removed."""


class GPUNodeSpec(Model):
    """What people want for this node."""

    circuit_breaker: Literal["Auto", "ForceOpen", "ForceClosed"] = "Auto"
    """Auto lets the operator decide; ForceOpen stops calling the agent; ForceClosed calls it whatever happens."""
    reset_circuit_breaker: Trigger | None = None
    """Any new string closes the breaker once and clears its counters. A forced state wins over a reset."""
    maintenance: Maintenance | None = None
    """Set while people work on the node."""


class CapabilityGap(Model):
    """Something the agent could not read, and why."""

    reason: Word
    """NoLibrary, NoDriver, DriverMismatch, PermissionDenied, NoGPUs, DriverHung, NoKernelLog, NoPodResources, …"""
    message: Text = ""
    """What was tried, what came back, what to do."""


class AgentStatus(Model):
    """The node's agent as the operator sees it."""

    pod_name: Name = ""
    """Name of the agent's Pod in the operator's namespace."""
    pod_ip: Word = ""
    """Address the agent is called at."""
    ready: bool = False
    """Whether Kubernetes calls the Pod ready."""
    reachable: bool = False
    """Whether the agent answered."""
    version: Word = ""
    """Version of the agent."""
    capabilities: Annotated[tuple[CapabilityGap, ...], Field(json_schema_extra=ATOMIC)] = ()
    """What the agent could not read, and why. Empty: everything it tried worked."""


class CircuitBreakerStatus(Model):
    """The node's circuit breaker. A change of state is written at once, counters ride along."""

    state: Word = "Closed"
    """Closed, Open, HalfOpen, ForcedOpen or ForcedClosed."""
    failures: int = 0
    """Consecutive failed calls as of this write."""
    opened_at: Timestamp | None = None
    """When it opened (RFC 3339, UTC)."""
    open_for: Word | None = None
    """How long it stays open before the next probe, as a Go duration."""
    last_handled_reset: Annotated[str, Field(max_length=256)] | None = None
    """The value of spec.resetCircuitBreaker that was carried out last."""


class GPUNodeStatus(Model):
    """What the operator knows of the node. Written when its meaning changes, not as a heartbeat."""

    observed_generation: int | None = None
    """metadata.generation that this status was computed from."""
    conditions: Conditions = ()
    """Ready (the data is fresh), GPUsHealthy, AgentReachable, CircuitBreakerClosed."""
    health: Word = "Unknown"
    """Healthy, Degraded, Unhealthy, or Unknown when the node could not be read."""
    reason: Word = ""
    """Why: the reason of the worst finding, or why the node is not read."""
    message: Text = ""
    """One sentence: verdict, evidence, next action."""
    recommended_action: Word = "None"
    """The action that covers all findings, for example DrainAndResetGPU."""
    driver_version: Word | None = None
    """Version of the NVIDIA driver."""
    cuda_version: Word | None = None
    """Newest CUDA version the driver supports."""
    model: Name | None = None
    """Product name of the GPUs; several names are joined by commas."""
    gpu_counts: GPUCounts = GPUCounts()
    """Number of GPUs by health."""
    gpus: Annotated[tuple[GPU, ...], Field(json_schema_extra=ATOMIC)] = ()
    """The GPUs, by index. While the agent cannot be reached: the last known ones, with health Unknown."""
    findings: Annotated[tuple[Finding, ...], Field(json_schema_extra=ATOMIC)] = ()
    """What is wrong, worst first, at most 64."""
    findings_truncated: bool = False
    """Whether there were more findings than are listed."""
    xids: Annotated[tuple[XIDEvent, ...], Field(json_schema_extra=ATOMIC)] = ()
    """XID errors of this boot, newest first, at most 20."""
    allocations: Annotated[tuple[Allocation, ...], Field(json_schema_extra=ATOMIC)] = ()
    """Which container holds which GPU, at most 128."""
    agent: AgentStatus = AgentStatus()
    """The node's agent."""
    breaker: CircuitBreakerStatus = CircuitBreakerStatus()
    """The node's circuit breaker."""
    sampled_at: Timestamp | None = None
    """When NVML had last answered, as of this write (RFC 3339, UTC). Not a heartbeat."""


class GPUNode(Model):
    """The latest truth about the GPUs of one node, kept by the operator whether or not a GPUDiagnostic asks."""

    spec: Annotated[GPUNodeSpec, Field(json_schema_extra=DEFAULTED_OBJECT)] = GPUNodeSpec()
    """What people want for this node: breaker and maintenance."""
    status: GPUNodeStatus | None = None
    """What the operator knows of it."""
