"""Who a GPU is, and what it stays for as long as the board and the driver do."""

from typing import Any

import pynvml

from gpudiag_agent.nvml import values
from gpudiag_agent.nvml.call import CORRUPTED_INFOROM, Caller, attempt

_SHUTDOWN, _SLOWDOWN, _MEMORY_MAX, _GPU_MAX = 0, 1, 2, 3
_SM_CLOCK = 1
_NUMA_NODES = 1024
"""MAX_NUMNODES of the kernels that distributions ship."""
_WORD_BITS = 64
_NEAREST = 0
"""NVML_AFFINITY_SCOPE_NODE"""
_MAX_ARCHITECTURE = 255


def read_identity(call: Caller, handle: Any) -> dict[str, Any]:
    """Identity and memory: cheap, and what every look needs to know whom it looks at."""
    memory = call.first(
        ("nvmlDeviceGetMemoryInfo", handle, pynvml.nvmlMemory_v2),
        ("nvmlDeviceGetMemoryInfo", handle),
    )
    # No memory at all is a struct that nobody filled.
    total = None if memory is None else values.size_bytes(memory.total) or None
    return {
        "uuid": values.uuid(call("nvmlDeviceGetUUID", handle)),
        "pci": values.pci(call("nvmlDeviceGetPciInfo", handle)),
        "model": values.text(call.inventory("nvmlDeviceGetName", handle)),
        "serial": values.word(call.inventory("nvmlDeviceGetSerial", handle)),
        "memory_total_bytes": total,
        "memory_used_bytes": values.size_bytes(memory.used) if memory is not None and total else None,
        # Only the newer form has it.
        "memory_reserved_bytes": values.size_bytes(getattr(memory, "reserved", None)) if total else None,
    }


def read_lasting(call: Caller, handle: Any) -> dict[str, Any]:
    """What does not change between two looks, or is too slow for each: ``lasting`` keeps it."""
    gsp = call.inventory("nvmlDeviceGetGspFirmwareMode", handle) or (None, None)
    default_limit = call.detail("nvmlDeviceGetPowerManagementDefaultLimit", handle)
    return {
        "temperature_shutdown_celsius": _threshold(call, handle, _SHUTDOWN),
        "temperature_slowdown_celsius": _threshold(call, handle, _SLOWDOWN),
        "temperature_max_celsius": _threshold(call, handle, _GPU_MAX),
        "memory_temperature_max_celsius": _threshold(call, handle, _MEMORY_MAX),
        "power_default_limit_milliwatts": values.setting(default_limit, values.MAX_MILLIWATTS),
        "sm_clock_max_mhz": values.setting(
            call.inventory("nvmlDeviceGetMaxClockInfo", handle, _SM_CLOCK), values.MAX_MHZ
        ),
        "application_clock_default_mhz": values.setting(
            call.detail("nvmlDeviceGetDefaultApplicationsClock", handle, _SM_CLOCK), values.MAX_MHZ
        ),
        "inforom_valid": _inforom(call, handle),
        "vbios_version": values.word(call.inventory("nvmlDeviceGetVbiosVersion", handle)),
        "gsp_enabled": values.flag(gsp[0]),
        "gsp_default": values.flag(gsp[1]),
        "gsp_version": values.word(call.inventory("nvmlDeviceGetGspFirmwareVersion", handle)),
        "architecture": values.within(call.inventory("nvmlDeviceGetArchitecture", handle), 1, _MAX_ARCHITECTURE),
        "numa_node": _numa_node(call, handle),
    }


def _threshold(call: Caller, handle: Any, kind: int) -> int | None:
    # A detail: there are kinds of limit that this driver does not know yet, or (Blackwell) no longer.
    return values.limit_celsius(call.detail("nvmlDeviceGetTemperatureThreshold", handle, kind))


def _inforom(call: Caller, handle: Any) -> bool | None:
    _, code = attempt("nvmlDeviceValidateInforom", handle)
    if code in (0, CORRUPTED_INFOROM):
        return code == 0
    call.answered("nvmlDeviceValidateInforom", code)
    return None


def _numa_node(call: Caller, handle: Any) -> int | None:
    """The lowest node of the set, which has one node on every machine but odd ones."""
    found = call.inventory("nvmlDeviceGetMemoryAffinity", handle, _NUMA_NODES // _WORD_BITS, _NEAREST)
    mask = sum(int(word) << (_WORD_BITS * place) for place, word in enumerate(found or ()))
    return (mask & -mask).bit_length() - 1 if mask else None
