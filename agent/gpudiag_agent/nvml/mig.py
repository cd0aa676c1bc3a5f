"""MIG: whether a GPU is split, and into what."""

import re
from typing import Any

from gpudiag_agent.nvml.call import Caller
from gpudiag_agent.sample import MIGDevice

_MAX_MIG_DEVICES = 16
_PROFILE = re.compile(r"\bMIG\s+(\S+)")
"""``nvmlDeviceGetName`` of a MIG device: ``NVIDIA A100-SXM4-40GB MIG 1g.5gb``."""


def read_mig(call: Caller, handle: Any) -> dict[str, Any]:
    """Mode (None where the GPU has no MIG) and devices of one GPU."""
    mode = call("nvmlDeviceGetMigMode", handle)
    if mode is None:
        return {}
    current, pending = (bool(value) for value in mode)
    return {
        "mig_current": current,
        "mig_pending": pending,
        "mig": _devices(call, handle) if current else (),
    }


def _devices(call: Caller, handle: Any) -> tuple[MIGDevice, ...]:
    slots = min(call("nvmlDeviceGetMaxMigDeviceCount", handle) or 0, _MAX_MIG_DEVICES)
    found = []
    for slot in range(slots):
        # An empty slot answers NOT_FOUND (6), which is not an error of the GPU: ask without keeping it.
        device = Caller()("nvmlDeviceGetMigDeviceHandleByIndex", handle, slot)
        uuid = None if device is None else call("nvmlDeviceGetUUID", device)
        if uuid:
            found.append(_device(call, device, uuid))
    return tuple(found)


def _device(call: Caller, device: Any, uuid: str) -> MIGDevice:
    memory = call("nvmlDeviceGetMemoryInfo", device)
    name = _PROFILE.search(call("nvmlDeviceGetName", device) or "")
    return MIGDevice(
        uuid=uuid,
        gpu_instance=call("nvmlDeviceGetGpuInstanceId", device) or 0,
        compute_instance=call("nvmlDeviceGetComputeInstanceId", device) or 0,
        profile=name[1] if name else "",
        memory_bytes=None if memory is None else int(memory.total),
    )
