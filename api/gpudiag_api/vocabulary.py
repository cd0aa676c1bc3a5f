"""The closed vocabulary: one list of words for resources, metrics, tools, pages and documentation.

Every word that a machine may compare is here and nowhere else. Members are plain strings (``StrEnum``), so they
go into JSON, labels and messages as they are. Order matters where a docstring says so.
"""

from collections.abc import Iterable
from enum import StrEnum


class Health(StrEnum):
    """Health of a GPU, a node or a fleet, best first."""

    HEALTHY = "Healthy"
    """Nothing to do."""
    DEGRADED = "Degraded"
    """Works; act soon."""
    UNKNOWN = "Unknown"
    """Could not tell. No data is not healthy."""
    UNHEALTHY = "Unhealthy"
    """Do not schedule on it."""

    @property
    def badness(self) -> int:
        """Rank by how much it matters: 0 (Healthy) to 3 (Unhealthy)."""
        return _HEALTH_ORDER[self]

    @classmethod
    def worst(cls, parts: Iterable["Health"]) -> "Health":
        """The worst of the parts; of no parts at all, ``Unknown``: no data is not healthy."""
        return max(parts, key=lambda part: part.badness, default=cls.UNKNOWN)


_HEALTH_ORDER = {health: rank for rank, health in enumerate(Health)}


class Severity(StrEnum):
    """How much a finding weighs, lightest first."""

    INFO = "Info"
    """No effect on health."""
    WARNING = "Warning"
    """Makes its GPU Degraded."""
    CRITICAL = "Critical"
    """Makes its GPU Unhealthy."""

    @property
    def badness(self) -> int:
        """Rank by weight: 0 (Info) to 2 (Critical)."""
        return _SEVERITY_ORDER[self]

    @property
    def health(self) -> Health:
        """What a finding of this severity makes of the GPU it is about."""
        return _SEVERITY_HEALTH[self]


_SEVERITY_ORDER = {severity: rank for rank, severity in enumerate(Severity)}
_SEVERITY_HEALTH = {
    Severity.INFO: Health.HEALTHY,
    Severity.WARNING: Health.DEGRADED,
    Severity.CRITICAL: Health.UNHEALTHY,
}


class Blame(StrEnum):
    """Whose fault a finding is: the hardware's or the job's is the question of the night."""

    APPLICATION = "Application"
    HARDWARE = "Hardware"
    DRIVER = "Driver"
    ENVIRONMENT = "Environment"
    """Power, cooling, cabling."""
    UNKNOWN = "Unknown"


class Action(StrEnum):
    """Recommended actions, by rising disruption. The action of a node is the one that covers all its findings."""

    NONE = "None"
    CHECK_APPLICATION = "CheckApplication"
    UPDATE_DRIVER = "UpdateDriver"
    RESTART_FABRIC_MANAGER = "RestartFabricManager"
    CHECK_COOLING = "CheckCooling"
    CHECK_POWER = "CheckPower"
    RESET_GPU_WHEN_IDLE = "ResetGPUWhenIdle"
    DRAIN_AND_RESET_GPU = "DrainAndResetGPU"
    REBOOT_NODE = "RebootNode"
    RESEAT_OR_CHECK_LINK = "ReseatOrCheckLink"
    RUN_DIAGNOSTICS = "RunDiagnostics"
    REPLACE_GPU = "ReplaceGPU"
    CONTACT_SUPPORT = "ContactSupport"

    @property
    def disruption(self) -> int:
        """Rank by disruption: 0 (None) to 12 (ContactSupport)."""
        return _ACTION_ORDER[self]

    @property
    def advice(self) -> str:
        """What to do next, as the second half of a sentence; empty where nothing needs doing."""
        return _ADVICE[self]

    @classmethod
    def covering(cls, actions: Iterable["Action"]) -> "Action":
        """The most disruptive of the actions, ``None`` for no actions."""
        return max(actions, key=lambda action: action.disruption, default=cls.NONE)


_ACTION_ORDER = {action: rank for rank, action in enumerate(Action)}
_ADVICE = {
    Action.NONE: "",
    Action.CHECK_APPLICATION: "check the application that used the GPU",
    Action.UPDATE_DRIVER: "update the NVIDIA driver",
    Action.RESTART_FABRIC_MANAGER: "restart the fabric manager",
    Action.CHECK_COOLING: "check cooling and airflow",
    Action.CHECK_POWER: "check the power supply",
    Action.RESET_GPU_WHEN_IDLE: "reset the GPU when it is idle",
    Action.DRAIN_AND_RESET_GPU: "drain the node and reset the GPU",
    Action.REBOOT_NODE: "drain the node and reboot it",
    Action.RESEAT_OR_CHECK_LINK: "reseat the GPU or check its link",
    Action.RUN_DIAGNOSTICS: "take the node out of service and run the vendor's diagnostics",
    Action.REPLACE_GPU: "take the node out of service and replace the GPU",
    Action.CONTACT_SUPPORT: "contact the vendor's support",
}


class Check(StrEnum):
    """Every check an agent runs. A new check adds one line here and one folder in the agent."""

    GPU_COUNT = "GPUCount"
    """Fewer GPUs answer than the PCI bus shows."""
    GPU_LOST = "GPULost"
    """A GPU has fallen off the bus or stopped answering."""
    DRIVER = "Driver"
    """The driver hangs, is missing, or does not match its library."""
    ECC_UNCORRECTABLE = "ECCUncorrectable"
    """Uncorrectable memory errors since the driver was loaded."""
    ROW_REMAP = "RowRemap"
    """Memory rows wait for a remap, or could not be remapped."""
    TEMPERATURE = "Temperature"
    """Temperature against the GPU's own limits."""
    THROTTLING = "Throttling"
    """Clocks held down by hardware: thermal slowdown, power brake."""
    XID = "XID"
    """XID errors in the kernel log."""
    SXID = "SXID"
    """NVSwitch errors in the kernel log."""
    ADAPTER_INIT = "AdapterInit"
    """The driver could not initialise a GPU."""
    GSP = "GSP"
    """The GPU's system processor: firmware, timeouts, whether it is in use."""
    ECC_MODE = "ECCMode"
    """ECC switched off, or a change that waits for a reset."""
    ECC_CORRECTED = "ECCCorrected"
    """Rate of corrected memory errors."""
    SRAM_ECC = "SRAMECC"
    """Uncorrectable SRAM errors over the vendor's threshold."""
    RETIRED_PAGES = "RetiredPages"
    """Retired memory pages of GPUs before A100."""
    MEMORY_REPAIR = "MemoryRepair"
    """Channel or TPC repairs that wait for a reset, and memory beyond repair."""
    POWER = "Power"
    """Power limit against its default, and power supply."""
    CLOCKS = "Clocks"
    """Clocks that somebody held below their default."""
    PCIE_LINK = "PCIeLink"
    """Width, and generation under load, of the PCIe link."""
    PCIE_ERRORS = "PCIeErrors"
    """Rates of PCIe replays and errors."""
    NVLINK = "NVLink"
    """NVLinks that were up and are down."""
    NVLINK_ERRORS = "NVLinkErrors"
    """Rates of NVLink errors."""
    C2C = "C2C"
    """Chip-to-chip links of Grace superchips."""
    FABRIC = "Fabric"
    """Registration and health of the GPU in its NVSwitch fabric."""
    FABRIC_MANAGER = "FabricManager"
    """The Fabric Manager service, where the node needs it."""
    IMEX = "IMEX"
    """The IMEX service, where the node is part of a domain."""
    INFOROM = "InfoROM"
    """Checksum of the board's configuration memory."""
    PERSISTENCE_MODE = "PersistenceMode"
    """Whether the driver stays loaded while nobody uses the GPU."""
    MIG = "MIG"
    """A change of MIG mode that waits for a reset, and faults of single instances."""
    CONFIDENTIAL_COMPUTE = "ConfidentialCompute"
    """Whether GPUs in confidential mode accept work."""
    PROCESSES = "Processes"
    """Memory and processes that belong to nobody."""
    PEER_MEMORY = "PeerMemory"
    """The nvidia-peermem module on nodes with InfiniBand."""
    INFINIBAND = "InfiniBand"
    """InfiniBand and RoCE ports: down, flapping, errors."""


class XIDClass(StrEnum):
    """What an XID is about."""

    APPLICATION = "Application"
    CHANNEL = "Channel"
    """A channel or an engine: the application first, the hardware if it repeats."""
    HARDWARE = "Hardware"
    MEMORY = "Memory"
    LINK = "Link"
    """NVLink, or the link to the CPU."""
    FIRMWARE = "Firmware"
    """Firmware or driver."""
    BUS = "Bus"
    """PCIe or power."""
    SYSTEM = "System"
    """System software around the GPU."""
    INFORMATION = "Information"
    UNUSED = "Unused"
    """NVIDIA does not use the code, or no longer."""
    UNCLASSIFIED = "Unclassified"
    """Not in the catalogue."""


class NotRead(StrEnum):
    """Why a node could not be read. Never a verdict about its GPUs."""

    NODE_NOT_READY = "NodeNotReady"
    NODE_GONE = "NodeGone"
    AGENT_MISSING = "AgentMissing"
    AGENT_NOT_READY = "AgentNotReady"
    AGENT_DUPLICATE = "AgentDuplicate"
    CONNECTION_REFUSED = "ConnectionRefused"
    TIMEOUT = "Timeout"
    BODY_TIMEOUT = "BodyTimeout"
    CONNECTION_CLOSED = "ConnectionClosed"
    SERVER_ERROR = "ServerError"
    NOT_JSON = "NotJSON"
    BAD_RESPONSE = "BadResponse"
    RESPONSE_TOO_LARGE = "ResponseTooLarge"
    IDENTITY_MISMATCH = "IdentityMismatch"
    AGENT_VERSION_SKEW = "AgentVersionSkew"
    UNAUTHORIZED = "Unauthorized"
    AUTH_UNAVAILABLE = "AuthUnavailable"
    STALE_SAMPLE = "StaleSample"
    CIRCUIT_OPEN = "CircuitOpen"
    FORCED_OPEN = "ForcedOpen"


class Capability(StrEnum):
    """What an agent could not do. Six make what they cover Unknown; three never change health."""

    NO_LIBRARY = "NoLibrary"
    NO_DRIVER = "NoDriver"
    DRIVER_MISMATCH = "DriverMismatch"
    PERMISSION_DENIED = "PermissionDenied"
    NO_GPUS = "NoGPUs"
    DRIVER_HUNG = "DriverHung"
    NO_KERNEL_LOG = "NoKernelLog"
    NO_POD_RESOURCES = "NoPodResources"
    NO_HOST_PIDS = "NoHostPIDs"

    @property
    def blinds(self) -> bool:
        """Whether the GPUs it covers become Unknown."""
        return self not in _HARMLESS


_HARMLESS = frozenset({Capability.NO_KERNEL_LOG, Capability.NO_POD_RESOURCES, Capability.NO_HOST_PIDS})


class BreakerState(StrEnum):
    """State of a node's circuit breaker. ``metric`` is the value of ``gpudiag_circuit_breaker_state``."""

    CLOSED = "Closed"
    OPEN = "Open"
    HALF_OPEN = "HalfOpen"
    FORCED_OPEN = "ForcedOpen"
    FORCED_CLOSED = "ForcedClosed"

    @property
    def metric(self) -> int:
        """0 closed, 1 open, 2 half-open."""
        return _BREAKER_METRIC[self]


_BREAKER_METRIC = {
    BreakerState.CLOSED: 0,
    BreakerState.FORCED_CLOSED: 0,
    BreakerState.OPEN: 1,
    BreakerState.FORCED_OPEN: 1,
    BreakerState.HALF_OPEN: 2,
}
