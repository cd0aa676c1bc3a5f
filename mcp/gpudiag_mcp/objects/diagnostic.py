"""What is kept of a GPUDiagnostic."""

import msgspec

from gpudiag_mcp.objects.parts import Condition, GPUCounts, Metadata, Part, XIDEvent


class NodeCounts(Part, frozen=True):
    """Number of nodes by what became of reading them."""

    targeted: int = 0
    reporting: int = 0
    skipped: int = 0
    failed: int = 0
    maintenance: int = 0


class FindingCounts(Part, frozen=True):
    """Number of findings by severity."""

    critical: int = 0
    warning: int = 0
    info: int = 0


class Summary(Part, frozen=True):
    """A verdict in numbers."""

    nodes: NodeCounts = NodeCounts()
    gpus: GPUCounts = GPUCounts()
    findings: FindingCounts = FindingCounts()


class NodeRow(Part, frozen=True):
    """One node of a verdict."""

    name: str = ""
    health: str = "Unknown"
    changed_by_policy: bool = False
    reason: str = ""
    finding: str | None = None
    recommended_action: str = "None"
    gpus: GPUCounts = GPUCounts()
    breaker: str = "Closed"
    maintenance: bool = False
    skipped: str | None = None
    failed: str | None = None


class FindingGroup(Part, frozen=True):
    """Findings of the same check and reason."""

    check: str = ""
    reason: str = ""
    severity: str = ""
    count: int = 0
    nodes: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    blame: str = ""
    recommended_action: str = "None"
    message: str = ""


class TimelinePoint(Part, frozen=True):
    """One sample of the flight recorder."""

    at: str = ""
    temperature_celsius: float | None = None
    power_watts: float | None = None
    utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    sm_clock_mhz: float | None = None


class Timeline(Part, frozen=True):
    """The flight recorder of one GPU."""

    gpu: int = 0
    points: tuple[TimelinePoint, ...] = ()


class TopologyLink(Part, frozen=True):
    """A connection between two GPUs."""

    gpu: int = 0
    peer: int = 0
    kind: str = ""
    links: int = 1


class GPUPlacement(Part, frozen=True):
    """Where a GPU sits."""

    gpu: int = 0
    numa_node: int | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None


class Topology(Part, frozen=True):
    """How the GPUs of a node are connected."""

    links: tuple[TopologyLink, ...] = ()
    placement: tuple[GPUPlacement, ...] = ()


class Process(Part, frozen=True):
    """A process that uses a GPU."""

    gpu: int = 0
    pid: int = 0
    name: str = ""
    memory_bytes: int | None = None
    namespace: str | None = None
    pod: str | None = None


class NodeResult(Part, frozen=True):
    """Everything about one node (detail: Full)."""

    node: str = ""
    events: tuple[XIDEvent, ...] = ()
    timeline: tuple[Timeline, ...] = ()
    timeline_truncated: bool = False
    topology: Topology | None = None
    processes: tuple[Process, ...] = ()
    processes_truncated: bool = False


class HistoryEntry(Part, frozen=True):
    """One change of verdict."""

    at: str = ""
    verdict: str = ""
    message: str = ""
    run_id: str = ""


class GPUDiagnosticStatus(Part, frozen=True):
    """A verdict."""

    observed_generation: int | None = None
    conditions: tuple[Condition, ...] = ()
    verdict: str = "Unknown"
    message: str = ""
    recommended_action: str = "None"
    run_id: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    last_confirmed_at: str | None = None
    summary: Summary = Summary()
    nodes: tuple[NodeRow, ...] = ()
    nodes_truncated: bool = False
    findings: tuple[FindingGroup, ...] = ()
    findings_truncated: bool = False
    results: tuple[NodeResult, ...] = ()
    results_truncated: bool = False
    history: tuple[HistoryEntry, ...] = ()


class PodRef(Part, frozen=True):
    """A Pod of the diagnostic's namespace."""

    name: str = ""


class Target(Part, frozen=True):
    """Which nodes are asked about."""

    node_selector: dict[str, object] | None = None
    node_names: tuple[str, ...] | None = None
    pod_ref: PodRef | None = None


class GPUDiagnosticSpec(Part, frozen=True):
    """A question."""

    target: Target | None = None
    mode: str = "Continuous"
    interval: str = "30s"
    ttl_after_finished: str | None = None
    suspend: bool = False
    detail: str = "Summary"


class GPUDiagnostic(Part, frozen=True):
    """A question about GPUs, and its verdict."""

    metadata: Metadata
    spec: GPUDiagnosticSpec = GPUDiagnosticSpec()
    status: GPUDiagnosticStatus = GPUDiagnosticStatus()

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type."""
        return next((one for one in self.status.conditions if one.type == kind), None)


diagnostic_from_json = msgspec.json.Decoder(GPUDiagnostic).decode
