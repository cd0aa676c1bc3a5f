"""What is kept of a GPUNode."""

import msgspec

from gpudiag_mcp.objects.parts import GPU, Condition, Finding, GPUCounts, Metadata, Part, XIDEvent


class Allocation(Part, frozen=True):
    """A container that holds a GPU."""

    gpu_uuid: str = ""
    namespace: str = ""
    pod: str = ""
    container: str = ""


class CapabilityGap(Part, frozen=True):
    """Something the agent could not read, and why."""

    reason: str = ""
    message: str = ""


class AgentStatus(Part, frozen=True):
    """The node's agent as the operator sees it."""

    pod_name: str = ""
    ready: bool = False
    reachable: bool = False
    version: str = ""
    capabilities: tuple[CapabilityGap, ...] = ()


class CircuitBreakerStatus(Part, frozen=True):
    """The node's circuit breaker."""

    state: str = "Closed"
    failures: int = 0
    opened_at: str | None = None
    open_for: str | None = None


class Maintenance(Part, frozen=True):
    """A node under maintenance."""

    reason: str | None = None
    until: str | None = None


class GPUNodeSpec(Part, frozen=True):
    """What people want for a node."""

    circuit_breaker: str = "Auto"
    maintenance: Maintenance | None = None


class GPUNodeStatus(Part, frozen=True):
    """What the operator knows of a node."""

    conditions: tuple[Condition, ...] = ()
    health: str = "Unknown"
    reason: str = ""
    message: str = ""
    recommended_action: str = "None"
    driver_version: str | None = None
    cuda_version: str | None = None
    model: str | None = None
    gpu_counts: GPUCounts = GPUCounts()
    gpus: tuple[GPU, ...] = ()
    findings: tuple[Finding, ...] = ()
    findings_truncated: bool = False
    xids: tuple[XIDEvent, ...] = msgspec.field(default=(), name="xids")
    allocations: tuple[Allocation, ...] = ()
    agent: AgentStatus = AgentStatus()
    breaker: CircuitBreakerStatus = CircuitBreakerStatus()
    sampled_at: str | None = None


class GPUNode(Part, frozen=True):
    """The latest truth about one node."""

    metadata: Metadata
    spec: GPUNodeSpec = GPUNodeSpec()
    status: GPUNodeStatus = GPUNodeStatus()

    @property
    def name(self) -> str:
        """Name of the node."""
        return self.metadata.name


node_from_json = msgspec.json.Decoder(GPUNode).decode
