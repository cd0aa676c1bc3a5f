"""One look at all GPUs: initialise, read, shut down.

NVML keeps ``/dev/nvidia*`` open between initialisation and shutdown, and whoever holds them open blocks a GPU reset and
a change of MIG mode. So the library is initialised for each sample and released after it; the handles are never
kept. The price on a driver without persistence mode is that the GPU wakes up for each sample.
"""

import time
from typing import Any

import pynvml

from gpudiag_agent.nvml.call import FUNCTION_NOT_FOUND, attempt, error_name
from gpudiag_agent.nvml.device import read_device
from gpudiag_agent.sample import Sample, SourceFault
from gpudiag_api.vocabulary import Capability

_MAX_GPUS = 64

_FAULTS: dict[int, tuple[Capability, str]] = {
    4: (
        Capability.PERMISSION_DENIED,
        "The driver refused access; give the container access to /dev/nvidia* (NVIDIA runtime, or privileged).",
    ),
    9: (
        Capability.NO_DRIVER,
        "The NVIDIA kernel driver is not loaded; run nvidia-smi on the node and look for NVRM in dmesg.",
    ),
    10: (Capability.DRIVER_HUNG, "The driver timed out; look for NVRM in dmesg, then reboot the node."),
    12: (
        Capability.NO_LIBRARY,
        "libnvidia-ml.so.1 was not found; install the driver, or run the agent with the NVIDIA container runtime.",
    ),
    18: (
        Capability.DRIVER_MISMATCH,
        "The library and the loaded kernel module have different versions; reboot the node or reload the driver.",
    ),
    999: (
        Capability.PERMISSION_DENIED,
        "Usually the container lost /dev/nvidia* (systemctl daemon-reload), a fault of the agent: restart its Pod.",
    ),
}


def read_sample() -> Sample:
    """Look once. Blocks for as long as the driver does; never raises for a fault of driver or GPUs."""
    code = _initialise()
    if code:
        return _faulty(code, "nvmlInit")
    try:
        count, code = attempt("nvmlDeviceGetCount")
        if code:
            return _faulty(code, "nvmlDeviceGetCount")
        versions: dict[str, Any] = {
            "driver_version": attempt("nvmlSystemGetDriverVersion")[0] or None,
            "nvml_version": attempt("nvmlSystemGetNVMLVersion")[0] or None,
            "cuda_version": _cuda_version(),
        }
        if count == 0:
            message = "The driver answers but lists no GPU; look for NVRM in dmesg, and at lspci -d 10de:."
            return Sample(taken_at=time.time(), **versions, fault=SourceFault(Capability.NO_GPUS, message))
        gpus = tuple(read_device(index) for index in range(min(count, _MAX_GPUS)))
        return Sample(taken_at=time.time(), **versions, gpus=gpus)
    finally:
        attempt("nvmlShutdown")


def _initialise() -> int:
    """Initialise NVML; 0 or the code. An old library has only ``nvmlInit_v2``."""
    _, code = attempt("nvmlInit")
    if code != FUNCTION_NOT_FOUND:
        return code
    try:
        return int(pynvml._nvmlGetFunctionPointer("nvmlInit_v2")())  # noqa: SLF001
    except pynvml.NVMLError as error:
        return int(error.value)


def _cuda_version() -> str | None:
    number = attempt("nvmlSystemGetCudaDriverVersion_v2")[0] or attempt("nvmlSystemGetCudaDriverVersion")[0]
    return f"{number // 1000}.{number % 1000 // 10}" if number else None


def _faulty(code: int, call: str) -> Sample:
    reason, advice = _FAULTS.get(code, (Capability.NO_DRIVER, "Run nvidia-smi on the node and look for NVRM in dmesg."))
    message = f"{call} answered {error_name(code)} ({code}). {advice}"
    return Sample(taken_at=time.time(), fault=SourceFault(reason, message))
