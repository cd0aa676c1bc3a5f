"""One look at all GPUs: initialise, read, shut down. Runs only in the child: every line of it may block for ever.

NVML keeps ``/dev/nvidia*`` open between initialisation and shutdown, and whoever holds them open blocks a GPU reset and
a change of MIG mode. So the library is initialised for each sample and released after it; handles are never kept, and
neither is anything read through them: a board may be swapped, a driver reloaded between two looks.

The price falls on nodes without persistence mode, where the driver puts a GPU to sleep when its last user leaves: each
look wakes the GPUs up, which takes seconds per GPU, and starts their volatile counters anew. Run nvidia-persistenced
there (the GPU operator does), or give ``NVMLSource`` a longer deadline.
"""

import ctypes
import time
from typing import Any

import pynvml

from gpudiag_agent.nvml import call, values
from gpudiag_agent.nvml.device import read_device
from gpudiag_agent.sample import GPUSample, Sample, SourceFault
from gpudiag_api.vocabulary import Capability

_LIBRARY = "libnvidia-ml.so.1"
"""What pynvml loads, from the library path; nothing else is tried."""
_MAX_GPUS = 64
"""As many as the wire takes."""

_BLOCKED = (
    "Usually the container lost its access to /dev/nvidia*, for example through systemctl daemon-reload. That is a "
    "fault of the agent's container and not of a GPU: restart the agent's Pod."
)
_FAULTS: dict[int, tuple[Capability, str]] = {
    call.NO_PERMISSION: (
        Capability.PERMISSION_DENIED,
        "The driver refused access: give the agent's container /dev/nvidia* (NVIDIA runtime, or privileged).",
    ),
    call.DRIVER_NOT_LOADED: (
        Capability.NO_DRIVER,
        "The NVIDIA kernel driver is not loaded: run nvidia-smi on the node and look for NVRM in dmesg.",
    ),
    call.TIMEOUT: (Capability.DRIVER_HUNG, "The driver timed out: look for NVRM in dmesg, then reboot the node."),
    call.LIBRARY_NOT_FOUND: (
        Capability.NO_LIBRARY,
        "Install the driver, or run the agent with the NVIDIA container runtime.",
    ),
    call.FUNCTION_NOT_FOUND: (
        Capability.NO_LIBRARY,
        f"The {_LIBRARY} on the library path lacks what NVML always has: install the driver's own.",
    ),
    call.LIB_RM_VERSION_MISMATCH: (
        Capability.DRIVER_MISMATCH,
        "The library and the loaded kernel module have different versions: reload the driver, or reboot the node.",
    ),
    call.UNKNOWN: (Capability.PERMISSION_DENIED, _BLOCKED),
}
_OTHERWISE = (Capability.NO_DRIVER, "Run nvidia-smi on the node and look for NVRM in dmesg.")
_NO_GPUS = "The driver answers and lists no GPU: look for NVRM in dmesg, and at lspci -d 10de:."
_ABOUT_THE_AGENT = frozenset({call.NO_PERMISSION, call.FUNCTION_NOT_FOUND, call.UNKNOWN})
"""Codes that, given for every single GPU, say something about the container or the library."""


def read_sample(*, full: bool = True) -> Sample:
    """Look once. Blocks for as long as the driver does; never raises for a fault of driver or GPUs.

    Args:
        full: also what lasts from one look to the next (``lasting``).
    """
    code = _initialise()
    if code:
        return _faulty(code, "nvmlInit")
    try:
        return _read(full=full)
    finally:
        call.attempt("nvmlShutdown")


def _read(*, full: bool) -> Sample:
    count, code = call.attempt("nvmlDeviceGetCount")
    if code:
        return _faulty(code, "nvmlDeviceGetCount")
    asked = call.Caller()
    node: dict[str, Any] = {
        "driver_version": _version("nvmlSystemGetDriverVersion"),
        "nvml_version": _version("nvmlSystemGetNVMLVersion"),
        "cuda_version": _cuda_version(),
        "excluded_gpus": values.rows(asked.detail("nvmlGetExcludedDeviceCount")),
        **_confidential(asked),
    }
    node["unread"] = asked.unread
    if count == 0:
        return Sample(taken_at=time.time(), **node, fault=SourceFault(Capability.NO_GPUS, _NO_GPUS))
    gpus = tuple(read_device(index, full=full) for index in range(min(count, _MAX_GPUS)))
    code = _refused(gpus)
    if code:
        return _faulty(code, "nvmlDeviceGetHandleByIndex, for every GPU,", **node)
    return Sample(taken_at=time.time(), **node, gpus=gpus)


def _initialise() -> int:
    """Initialise NVML; 0 or the code. An old library has only ``nvmlInit_v2``."""
    _, code = call.attempt("nvmlInit")
    if code != call.FUNCTION_NOT_FOUND:
        return code
    try:
        return int(pynvml._nvmlGetFunctionPointer("nvmlInit_v2")())  # noqa: SLF001 - pynvml wraps only the newer one
    except pynvml.NVMLError as error:
        return int(error.value)


def _refused(gpus: tuple[GPUSample, ...]) -> int:
    """The code with which every GPU refused its handle, where it says nothing about the GPUs; else 0."""
    first = gpus[0].errors[0].code if gpus[0].errors else 0
    same = all(
        [(error.call, error.code) for error in gpu.errors] == [("nvmlDeviceGetHandleByIndex", first)] for gpu in gpus
    )
    return first if same and first in _ABOUT_THE_AGENT else 0


def _version(function: str) -> str | None:
    return values.word(call.attempt(function)[0]) or None


def _confidential(asked: call.Caller) -> dict[str, bool | None]:
    """Whether the system computes confidentially; only then whether its GPUs take work."""
    state = asked.detail("nvmlSystemGetConfComputeState")
    enabled = None if state is None else values.flag(state.ccFeature)
    ready = asked.detail("nvmlSystemGetConfComputeGpusReadyState") if enabled else None
    return {"confidential_compute": enabled, "confidential_compute_ready": values.flag(ready)}


def _cuda_version() -> str | None:
    """NVML writes 12.8 as 12080."""
    for function in ("nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion"):
        number = values.within(call.attempt(function)[0], 1000, 999_999)
        if number is not None:
            return f"{number // 1000}.{number % 1000 // 10}"
    return None


def _faulty(code: int, what: str, **node: Any) -> Sample:
    reason, advice = _FAULTS.get(code, _OTHERWISE)
    answered = f"{what} answered {call.error_name(code)} ({code})."
    if code == call.LIBRARY_NOT_FOUND:
        answered = f"{_LIBRARY} could not be loaded ({_why_not_loaded()})."
    return Sample(taken_at=time.time(), **node, fault=SourceFault(reason, f"{answered} {advice}"))


def _why_not_loaded() -> str:
    """The dynamic loader's own words, which pynvml swallows: absent, built for another machine, not readable."""
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError as error:
        return values.text(str(error))
    return "it can be now"
