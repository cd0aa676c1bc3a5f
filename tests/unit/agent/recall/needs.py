"""What machines have, told from what their drivers answer."""

import msgspec

from gpudiag_agent.checks.boards import is_workstation
from gpudiag_agent.host.facts import HostFacts, PCIDevice

from .model import Need

ECC = Need("ECC", lambda _, gpu: bool(gpu.ecc_current))
ECC_MODE = Need("ECC mode to speak of", lambda _, gpu: gpu.ecc_current is not None)
SERVER = Need("server board (ECC and persistence mode come switched off)", lambda _, gpu: not is_workstation(gpu.model))
ROWS = Need("row remapping", lambda _, gpu: gpu.remap_pending is not None)
HISTOGRAM = Need("row remapper histogram", lambda _, gpu: gpu.remap_histogram is not None)
PAGES = Need("page retirement", lambda _, gpu: gpu.retired_pages_pending is not None)
SRAM = Need("SRAM error status", lambda _, gpu: gpu.sram_threshold_exceeded is not None)
REPAIR = Need("repair status", lambda _, gpu: gpu.channel_repair_pending is not None)
MARGIN = Need("thermal margin", lambda _, gpu: gpu.thermal_margin_slowdown_celsius is not None)
NO_MARGIN = Need(
    "absolute temperature limit in force (its margin decides)",
    lambda _, gpu: gpu.thermal_margin_slowdown_celsius is None and gpu.temperature_slowdown_celsius is not None,
)
MEMORY_LIMIT = Need("limit for its memory's temperature", lambda _, gpu: bool(gpu.memory_temperature_max_celsius))
PCIE_COUNTERS = Need("PCIe error counters", lambda _, gpu: gpu.pcie is not None and "fatal" in gpu.pcie.errors)
THROTTLE_TIMES = Need("throttle time counters", lambda _, gpu: gpu.throttle_times is not None)
OLD_NUMBERS = Need("driver before 580 (fields 251 to 253)", lambda sample, _: (sample.driver_version or "") < "58")
NEW_NUMBERS = Need("driver from 580 on (fields 269 to 271)", lambda sample, _: (sample.driver_version or "") >= "58")
PERFORMS_AT_P0 = Need("P0 under load", lambda _, gpu: gpu.performance_state == 0)
APPLICATION_CLOCKS = Need("application clocks", lambda _, gpu: bool(gpu.application_clock_default_mhz))
RECOVERY_FIELD = Need("recovery action (field 230)", lambda _, gpu: gpu.recovery_action is not None)
MIG_ABLE = Need("MIG mode", lambda _, gpu: gpu.mig_current is not None)
NO_MIG = Need("whole GPU (MIG is on)", lambda _, gpu: not gpu.mig_current)
MIG_ON = Need("MIG instances", lambda _, gpu: bool(gpu.mig))
NVLINKS = Need("NVLink in use", lambda _, gpu: any(link.active for link in gpu.nvlinks or ()))
SWITCHED = Need(
    "NVLink to a switch", lambda _, gpu: any(link.remote_kind == "switch" for link in gpu.nvlinks or () if link.active)
)
DIRECT = Need(
    "NVLink from GPU to GPU",
    lambda _, gpu: any(link.remote_kind == "gpu" for link in gpu.nvlinks or () if link.active),
)
NVLINK_4 = Need(
    "NVLink up to generation 4 in use",
    lambda _, gpu: any("replay" in link.errors for link in gpu.nvlinks or () if link.active),
)
NVLINK_5 = Need("NVLink 5", lambda _, gpu: any("malformed" in link.errors for link in gpu.nvlinks or () if link.active))
C2C = Need("C2C link", lambda _, gpu: bool(gpu.c2c))
NO_C2C = Need("memory of its own (the kernel uses it as well)", lambda _, gpu: gpu.c2c is None)
FABRIC = Need(
    "NVSwitch fabric that is judged",
    lambda _, gpu: gpu.fabric is not None and gpu.fabric.state != 0 and "PCIe" not in gpu.model,
)
SEVERAL = Need("second GPU", lambda sample, _: len(sample.gpus) > 1)
CONFIDENTIAL = Need("confidential computing", lambda sample, _: sample.confidential_compute is not None)
INFOROM = Need("InfoROM", lambda _, gpu: gpu.inforom_valid is not None)
PROCESSES = Need("process list", lambda _, gpu: bool(gpu.processes))
RACK = Need("IMEX domain (not a rack-scale machine)", lambda _, gpu: "GB200" in gpu.model or "GB300" in gpu.model)
NVSWITCHES = Need(
    "NVSwitch on its PCI bus", lambda sample, gpu: SWITCHED.met(sample, gpu) and not RACK.met(sample, gpu)
)
NOT_JOINED = Need("fabric that is not told of", lambda _, gpu: gpu.fabric is None)
TELLS_NO_REPAIRS = Need(
    "GPU that is silent about its repairs",
    lambda _, gpu: gpu.remap_pending is None and gpu.retired_pages_pending is None,
)


def unbound(host: HostFacts) -> HostFacts:
    """With one more GPU on the bus, which no driver has."""
    return msgspec.structs.replace(host, pci=(*(host.pci or ()), PCIDevice("0000:fe:00.0", None)))
