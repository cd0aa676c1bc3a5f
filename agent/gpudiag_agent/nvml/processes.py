"""Who uses a GPU, as the driver lists it."""

from typing import Any

from gpudiag_agent.nvml import values
from gpudiag_agent.nvml.call import Caller
from gpudiag_agent.sample import GPUProcess

MAX_PROCESSES = 128
"""Of one kind on one GPU; a GPU's contexts run out of memory before that."""
_KINDS = {
    "compute": "nvmlDeviceGetComputeRunningProcesses_v3",
    "graphics": "nvmlDeviceGetGraphicsRunningProcesses_v3",
}
_MAX_PID = (1 << 31) - 1
_MAX_INSTANCE = 1 << 16
"""0xFFFFFFFF, the whole GPU, is beyond it."""


def read_processes(call: Caller, handle: Any) -> tuple[GPUProcess, ...] | None:
    """Compute and graphics processes; None where the driver tells of neither kind."""
    told = {kind: call.detail(function, handle) for kind, function in _KINDS.items()}
    if all(found is None for found in told.values()):
        return None
    listed = [(kind, info) for kind, found in told.items() for info in (found or ())[:MAX_PROCESSES]]
    return tuple(_process(kind, info) for kind, info in listed if 0 < info.pid <= _MAX_PID)


def _process(kind: str, info: Any) -> GPUProcess:
    return GPUProcess(
        pid=int(info.pid),
        kind=kind,
        memory_bytes=values.size_bytes(info.usedGpuMemory),
        mig_gpu_instance=values.within(info.gpuInstanceId, 0, _MAX_INSTANCE),
        mig_compute_instance=values.within(info.computeInstanceId, 0, _MAX_INSTANCE),
    )
