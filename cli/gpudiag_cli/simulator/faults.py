"""What can go wrong with a simulated node, by the names that scenarios use.

Three families. Health faults change what the agent reports: a sick GPU, honestly told. Misbehaviours are faults of
the agent itself; what the operator has to make of each is a word of :class:`gpudiag_api.vocabulary.NotRead`, never a
verdict about the GPUs. Incidents of the cluster happen to the Node or the Pod, as kubelets and autoscalers cause them.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Fault(StrEnum):
    """Every fault: what scenarios call it, and what it is."""

    says: str
    """What it is, in a sentence."""

    def __new__(cls, name: str, says: str = "") -> Self:
        """A member is a string that knows its meaning."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.says = says
        return member

    # Health: one GPU.
    XID_79 = "xid-79", "The GPU has fallen off the bus: the kernel says so, and NVML no longer reaches it."
    XID_48 = "xid-48", "A double-bit ECC error in the kernel log."
    XID_31 = "xid-31", "An MMU fault: the job's doing. The GPU stays healthy."
    ECC = "ecc", "Uncorrectable memory errors since the driver was loaded."
    ROW_REMAP_PENDING = "row-remap-pending", "A bad memory row waits for a reset to be replaced."
    ROW_REMAP_FAILED = "row-remap-failed", "No spare row was left."
    HOT = "hot", "At the temperature where the GPU slows itself down."
    THROTTLED = "throttled", "Clocks held down by the power brake."
    GPU_LOST = "gpu-lost", "NVML says that the GPU is lost, without a line in the kernel log."
    # Health: the node.
    DRIVER_HUNG = (
        "driver-hung",
        "NVML calls no longer return. The agent stays up and says so; it takes no more samples.",
    )
    NO_DRIVER = "no-driver", "The kernel module is not loaded."
    NO_KERNEL_LOG = "no-kernel-log", "The agent cannot read the kernel log: it says so, and health stays as it is."

    # Misbehaviour: connection and body.
    REFUSE = "refuse", "Nobody listens: the agent was killed. Ends the connections it had."
    HANG = "hang", "Accepts, and never answers."
    HANG_BODY = "hang-body", "Sends half of the body, then nothing."
    SLOW_BODY = "slow-body", "Sends the body in 16 pieces, which takes ``latency`` seconds."
    CLOSE_EARLY = "close-early", "Sends half of the body, then closes."
    DISCONNECT = "disconnect", "Closes without a byte of an answer."
    ERROR_500 = "error-500", "Internal server error, as a problem document."
    ERROR_503 = "error-503", "Service unavailable, with Retry-After, as an agent that starts or a proxy without one."
    UNAUTHORIZED = "unauthorized", "401 to everyone."
    GARBAGE = "garbage", "Status 200 with bytes that are neither JSON nor text, called JSON."
    HTML = "html", "Status 200 with a page of HTML, as a proxy in between would send."
    HUGE = "huge", "A body of 100 MB, in chunks, without a Content-Length."
    GZIP_BOMB = "gzip-bomb", "100 MB that travel as 100 KB."
    LATENCY = "latency", "Answers late, by ``latency`` seconds; otherwise right."
    # Misbehaviour: what the report says.
    WRONG_VERSION = "wrong-version", "A report of wire version 2.0."
    WRONG_NODE = "wrong-node", "The report of another node."
    DUPLICATE_GPU = "duplicate-gpu", "One GPU named twice."
    NOT_A_REPORT = "not-a-report", "JSON of the right version, but no report."
    STALE = "stale", "Answers, but the last sample is ten minutes old."

    # Incidents of the cluster: they need Nodes and Pods.
    NODE_NOT_READY = "node-not-ready", "The Node is not Ready: its kubelet is silent."
    NODE_GONE = "node-gone", "Node and Pod are deleted and the agent is gone, as when an autoscaler removes a machine."
    AGENT_NOT_READY = "agent-not-ready", "The agent's Pod is not Ready."
    AGENT_GONE = "agent-gone", "The agent's Pod is deleted, and nobody listens."

    @property
    def health(self) -> bool:
        """Whether the fault is one of the GPUs or the driver, honestly reported."""
        return self in _HEALTH

    @property
    def on_gpu(self) -> bool:
        """Whether it strikes one GPU; such faults take ``gpu``."""
        return self in _ON_GPU

    @property
    def exclusive(self) -> bool:
        """Whether it decides the answer on its own: of several such faults the last one counts."""
        return self in _EXCLUSIVE

    @property
    def of_cluster(self) -> bool:
        """Whether it happens to Node or Pod."""
        return self in _OF_CLUSTER

    @property
    def takes_latency(self) -> bool:
        """Whether it takes ``latency``."""
        return self in (Fault.LATENCY, Fault.SLOW_BODY)

    @property
    def ends_agent(self) -> bool:
        """Whether nobody listens at the agent's address while it lasts."""
        return self in (Fault.REFUSE, Fault.NODE_GONE, Fault.AGENT_GONE)


_ON_GPU = frozenset(
    {
        Fault.XID_79,
        Fault.XID_48,
        Fault.XID_31,
        Fault.ECC,
        Fault.ROW_REMAP_PENDING,
        Fault.ROW_REMAP_FAILED,
        Fault.HOT,
        Fault.THROTTLED,
        Fault.GPU_LOST,
    }
)
_HEALTH = _ON_GPU | {Fault.DRIVER_HUNG, Fault.NO_DRIVER, Fault.NO_KERNEL_LOG}
_OF_CLUSTER = frozenset({Fault.NODE_NOT_READY, Fault.NODE_GONE, Fault.AGENT_NOT_READY, Fault.AGENT_GONE})
_EXCLUSIVE = frozenset(
    {
        Fault.REFUSE,
        Fault.HANG,
        Fault.HANG_BODY,
        Fault.SLOW_BODY,
        Fault.CLOSE_EARLY,
        Fault.DISCONNECT,
        Fault.ERROR_500,
        Fault.ERROR_503,
        Fault.UNAUTHORIZED,
        Fault.GARBAGE,
        Fault.HTML,
        Fault.HUGE,
        Fault.GZIP_BOMB,
        Fault.NOT_A_REPORT,
    }
)


@dataclass(frozen=True, kw_only=True)
class Injected:
    """A fault that is there, and since when."""

    fault: Fault
    since: float
    """Unix seconds: ``firstSeen`` of what it leads to."""
    gpu: int = 0
    """Index of the GPU that it strikes, for faults on one."""
    latency: float = 0.0
    """Seconds, for ``latency`` and ``slow-body``."""
    jitter: float = 0.0
    """Seconds by which ``latency`` differs from answer to answer, at most, up or down."""
