"""What was seen of the host at one moment: the seam between its readers and the checks. None is "could not tell"."""

from collections.abc import Mapping

import msgspec

FABRIC_MANAGER = "nv-fabricmanager"
IMEX = "nvidia-imex"
FAST_GBPS = 200.0
"""Ethernet of that rate is there for jobs over several nodes; a slower port may be any server's network card."""


class PCIDevice(msgspec.Struct, frozen=True):
    """An NVIDIA display or 3D controller on the PCI bus."""

    pci: str
    driver: str | None
    """The kernel driver bound to it: ``nvidia``, ``vfio-pci``; None: none at all."""
    numa_node: int | None = None
    """Of the slot; None: the firmware does not say."""
    errors: Mapping[str, int] = {}
    """What the kernel counted of the device's own error reports (``aer_dev_*``), in the words of
    :attr:`PCIeSample.errors`: ``correctable``, ``non_fatal``, ``unsupported_request``. Empty: it counts none."""


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A port of an InfiniBand or RoCE adapter (``/sys/class/infiniband``)."""

    device: str
    """As the kernel calls it, ``mlx5_2``: may be another one after a reboot."""
    port: int
    pci: str
    """Of the adapter."""
    board: str = ""
    """Kind of adapter (``board_id``)."""
    link_layer: str = ""
    """``InfiniBand`` or ``Ethernet``."""
    state: str = ""
    """``ACTIVE``, ``DOWN``, ``INIT`` (no subnet manager yet), ``ARMED``; empty: not read."""
    physical_state: str = ""
    """``LinkUp``, ``Polling`` (nobody at the other end), ``Disabled`` (somebody switched it off), …"""
    rate_gbps: float | None = None
    """Means something while the port is active."""
    counters: Mapping[str, int] = {}
    """Some of ``counters`` and ``hw_counters``, by the kernel's names; of active ports only."""

    @property
    def name(self) -> str:
        """``mlx5_2/1``: as subjects and messages name it."""
        return f"{self.device}/{self.port}"

    @property
    def key(self) -> str:
        """What stays the same over reboots."""
        return f"{self.pci}/{self.port}"

    @property
    def active(self) -> bool:
        """Whether data can flow."""
        return self.state == "ACTIVE"

    def carries_jobs(self, rate_gbps: float) -> bool:
        """Whether at that rate it carries jobs over several nodes."""
        return self.link_layer == "InfiniBand" or (self.link_layer == "Ethernet" and rate_gbps >= FAST_GBPS)


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """A process that serves the GPUs."""

    pid: int
    started: int
    """Clock ticks after boot: with the pid, who it is."""
    in_pod: bool = False
    """Whether it runs in a pod, where it comes and goes with it."""


class KernelDriver(msgspec.Struct, frozen=True):
    """The NVIDIA kernel module that is loaded (``/proc/driver/nvidia/version``)."""

    version: str
    open: bool
    """The open kernel module, which shares GPU memory with adapters without nvidia-peermem (DMA-BUF)."""


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The host beside its GPUs. Grows with the readers in this folder."""

    taken_at: float | None = None
    """Unix time in seconds; None: nothing was looked at yet."""
    pci: tuple[PCIDevice, ...] | None = None
    """NVIDIA GPUs on the PCI bus, by address; None: there is none to be seen."""
    nvswitches: int | None = None
    """NVSwitches on the PCI bus (NVIDIA bridges, class 0x0680); None: could not tell."""
    ports: tuple[Port, ...] | None = None
    """Ports of adapters, without virtual functions; None: could not tell."""
    modules: Mapping[str, tuple[str, ...]] | None = None
    """Loaded kernel modules that matter here, each with those that use it; None: could not tell."""
    kernel_driver: KernelDriver | None = None
    daemons: Mapping[str, Daemon] | None = None
    """Those that run, by :data:`FABRIC_MANAGER` and :data:`IMEX`; None: the node's processes cannot be seen."""
    imex_nodes: int | None = None
    """Nodes of the IMEX domain that this node is configured for; None: could not tell."""
    imex_written: int | None = None
    """When that configuration was last written or replaced, in nanoseconds (``st_ctime_ns``); None: there is none."""
    uptime_seconds: float | None = None
    allocatable_gpus: int | None = None
    """Whole GPUs that the kubelet would hand out at that moment; None: not asked, or no answer."""
