"""MIG: whether a GPU is split, and into what."""

import re
from typing import Any

from gpudiag_agent.nvml import values
from gpudiag_agent.nvml.call import INVALID_ARGUMENT, NOT_FOUND, Caller
from gpudiag_agent.sample import MIGDevice

_MAX_DEVICES = 16
"""Today's GPUs have at most 7; the wire takes 64."""
_MAX_INSTANCE = 1 << 16
_PROFILE = re.compile(r"\bMIG\s+(\S+)")
"""``nvmlDeviceGetName`` of a MIG device: ``NVIDIA A100-SXM4-40GB MIG 1g.5gb``."""
_EMPTY_SLOT = (NOT_FOUND, INVALID_ARGUMENT)


def read_mig(call: Caller, handle: Any) -> dict[str, Any]:
    """Mode (None where the GPU has no MIG) and devices of one GPU."""
    current, pending = (values.flag(value) for value in call("nvmlDeviceGetMigMode", handle) or (None, None))
    return {
        "mig_current": current,
        "mig_pending": pending,
        "mig": _devices(call, handle) if current else (),
    }


def _devices(call: Caller, handle: Any) -> tuple[MIGDevice, ...]:
    slots = min(call("nvmlDeviceGetMaxMigDeviceCount", handle) or 0, _MAX_DEVICES)
    found = []
    for slot in range(slots):
        device = call("nvmlDeviceGetMigDeviceHandleByIndex", handle, slot, tolerate=_EMPTY_SLOT)
        if device is not None:
            found.append(_device(call, device))
    return tuple(device for device in found if device is not None)


def _device(call: Caller, device: Any) -> MIGDevice | None:
    """A MIG device; None where it does not say which one it is: 0 would name another instance."""
    uuid = values.uuid(call("nvmlDeviceGetUUID", device))
    gpu_instance = values.within(call("nvmlDeviceGetGpuInstanceId", device), 0, _MAX_INSTANCE)
    compute_instance = values.within(call("nvmlDeviceGetComputeInstanceId", device), 0, _MAX_INSTANCE)
    if not uuid or gpu_instance is None or compute_instance is None:
        return None
    memory = call.inventory("nvmlDeviceGetMemoryInfo", device)
    total = None if memory is None else values.size_bytes(memory.total) or None
    name = _PROFILE.search(values.text(call.inventory("nvmlDeviceGetName", device)))
    return MIGDevice(
        uuid=uuid,
        gpu_instance=gpu_instance,
        compute_instance=compute_instance,
        profile=values.word(name[1]) if name else "",
        memory_bytes=total,
        memory_used_bytes=values.size_bytes(memory.used) if memory is not None and total else None,
    )
