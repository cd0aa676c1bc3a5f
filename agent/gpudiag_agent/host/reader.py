"""All readers of the host together: one look, quick, and never an exception for what the host does not show."""

from pathlib import Path

from gpudiag_agent.clock import Clock
from gpudiag_agent.host import files, infiniband, kernel, pci_bus
from gpudiag_agent.host.daemons import Daemons
from gpudiag_agent.host.facts import FABRIC_MANAGER, IMEX, HostFacts

_IMEX_NODES = "1/root/etc/nvidia-imex/nodes_config.cfg"
"""The nodes of the domain, an address a line, as the node's first process sees it: the agent has a root of its own."""
_MAX_CONFIG = 65536


class HostReader:
    """Looks at the host.

    Args:
        clock: for the time of a look.
        sysfs_pci: where the PCI bus shows its devices.
        sysfs_infiniband: where the kernel shows InfiniBand and RoCE adapters.
        proc: a procfs that shows the node's own processes.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        sysfs_pci: Path = pci_bus.DEFAULT_ROOT,
        sysfs_infiniband: Path = infiniband.DEFAULT_ROOT,
        proc: Path = Path("/proc"),
    ) -> None:
        self._clock = clock
        self._pci = sysfs_pci
        self._infiniband = sysfs_infiniband
        self._proc = proc
        self._daemons = Daemons(proc, clock=clock)

    def scan(self) -> HostFacts:
        """Look once. Files only; one that hangs in the kernel hangs this call: see :class:`HostWatch`."""
        devices, nvswitches = pci_bus.scan(self._pci)
        imex_nodes, imex_written = self._imex()
        wanted = [name for name, needed in ((FABRIC_MANAGER, nvswitches), (IMEX, imex_nodes)) if needed]
        return HostFacts(
            taken_at=self._clock.now(),
            pci=devices,
            nvswitches=nvswitches,
            ports=infiniband.ports(self._infiniband),
            modules=kernel.modules(self._proc),
            kernel_driver=kernel.driver(self._proc),
            daemons=self._daemons.look(wanted=wanted),
            imex_nodes=imex_nodes,
            imex_written=imex_written,
            uptime_seconds=kernel.uptime(self._proc),
        )

    def _imex(self) -> tuple[int | None, int | None]:
        """How many nodes are configured, and when that was written."""
        path = self._proc / _IMEX_NODES
        text = files.read(path, _MAX_CONFIG)
        if text is None:
            return None, None
        nodes = sum(1 for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
        return nodes, files.written(path)
