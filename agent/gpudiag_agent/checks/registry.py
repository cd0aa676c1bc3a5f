"""The one list of checks. A new check adds its folder and one line here (and its word to the vocabulary)."""

from collections.abc import Callable

from gpudiag_agent.checks.base import Check
from gpudiag_agent.checks.c2c.rule import C2C
from gpudiag_agent.checks.clocks.rule import Clocks
from gpudiag_agent.checks.confidential_compute.rule import ConfidentialCompute
from gpudiag_agent.checks.counters import Counters
from gpudiag_agent.checks.driver.rule import Driver
from gpudiag_agent.checks.ecc_corrected.rule import ECCCorrected
from gpudiag_agent.checks.ecc_mode.rule import ECCMode
from gpudiag_agent.checks.ecc_uncorrectable.rule import ECCUncorrectable
from gpudiag_agent.checks.fabric.rule import Fabric
from gpudiag_agent.checks.fabric_manager.rule import FabricManager
from gpudiag_agent.checks.gpu_count.rule import GPUCount
from gpudiag_agent.checks.gpu_lost.rule import GPULost
from gpudiag_agent.checks.imex.rule import IMEX
from gpudiag_agent.checks.infiniband.baseline import PortBaseline
from gpudiag_agent.checks.infiniband.rule import InfiniBand
from gpudiag_agent.checks.inforom.rule import InfoROM
from gpudiag_agent.checks.kernel import rule as kernel
from gpudiag_agent.checks.memory_repair.rule import MemoryRepair
from gpudiag_agent.checks.mig.rule import MIG
from gpudiag_agent.checks.nvlink.baseline import LinkBaseline
from gpudiag_agent.checks.nvlink.rule import NVLink
from gpudiag_agent.checks.nvlink_errors.rule import NVLinkErrors
from gpudiag_agent.checks.pcie_errors.rule import PCIeErrors
from gpudiag_agent.checks.pcie_link.rule import PCIeLink
from gpudiag_agent.checks.peer_memory.rule import PeerMemory
from gpudiag_agent.checks.persistence_mode.rule import PersistenceMode
from gpudiag_agent.checks.power.rule import Power
from gpudiag_agent.checks.processes.rule import Processes
from gpudiag_agent.checks.retired_pages.rule import RetiredPages
from gpudiag_agent.checks.row_remap.rule import RowRemap
from gpudiag_agent.checks.sram_ecc.rule import SRAMECC
from gpudiag_agent.checks.sxid.rule import SXIDRule
from gpudiag_agent.checks.temperature.rule import Temperature
from gpudiag_agent.checks.throttling.rule import Throttling
from gpudiag_agent.checks.xid.rule import XIDRule
from gpudiag_agent.thresholds import Thresholds


def all_checks(
    interval: float,
    *,
    counters: Counters | None = None,
    links: LinkBaseline | None = None,
    ports: PortBaseline | None = None,
    thresholds: Callable[[], Thresholds] = Thresholds,
) -> tuple[Check, ...]:
    """A fresh set of every check.

    Args:
        interval: seconds between samples.
        counters: what the checks share of error counters; None: a fresh one, for callers that keep nothing.
        links: NVLinks that have been up; None: none yet.
        ports: what InfiniBand and RoCE ports have been able to do; None: nothing yet.
        thresholds: gives the limits in force, for the checks that judge with every sample.
    """
    counters = counters or Counters()
    return (
        GPUCount(),
        GPULost(),
        Driver(),
        ECCUncorrectable(),
        RowRemap(),
        RetiredPages(counters),
        MemoryRepair(),
        SRAMECC(),
        ECCCorrected(counters),
        ECCMode(),
        Temperature(thresholds),
        Throttling(interval, thresholds),
        Power(),
        Clocks(),
        PCIeLink(),
        PCIeErrors(counters),
        NVLink(links or LinkBaseline()),
        NVLinkErrors(counters),
        C2C(counters),
        Fabric(),
        FabricManager(),
        IMEX(),
        PeerMemory(),
        InfiniBand(counters, ports or PortBaseline()),
        InfoROM(),
        PersistenceMode(),
        MIG(),
        ConfidentialCompute(),
        Processes(),
        XIDRule(),
        SXIDRule(),
        kernel.AdapterInit(),
        kernel.GSP(),
        kernel.ClientVersion(),
        kernel.LinkTraining(),
        kernel.PeerMemory(),
    )
