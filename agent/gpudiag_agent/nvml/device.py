"""Everything the agent reads of one GPU. Names of functions and constants are those of nvml.h."""

from typing import Any

import pynvml

from gpudiag_agent.nvml import fields, values
from gpudiag_agent.nvml.call import INVALID_ARGUMENT, Caller, attempt
from gpudiag_agent.nvml.mig import read_mig
from gpudiag_agent.sample import GPUSample

_GPU_SENSOR = 0
_SHUTDOWN, _SLOWDOWN, _MEMORY_MAX, _GPU_MAX = 0, 1, 2, 3
_CORRECTED, _UNCORRECTED = 0, 1
_VOLATILE, _AGGREGATE = 0, 1
_SM_CLOCK = 1
_MAX_MILLIWATTS = 10_000_000
_MAX_MHZ = 100_000
_LOWEST_STATE = 15
"""P15; NVML_PSTATE_UNKNOWN is 32."""
_MAX_ACTION = 255


def read_device(index: int) -> GPUSample:
    """Read one GPU. Never raises: what fails is in ``errors``, what is unsupported is None."""
    call = Caller()
    handle, code = attempt("nvmlDeviceGetHandleByIndex", index)
    if code:
        # A GPU that is listed and cannot be asked is a failure whatever the code, "not supported" included.
        call.failed("nvmlDeviceGetHandleByIndex", code)
        return GPUSample(index=index, errors=call.errors)
    found: dict[str, Any] = {
        **_identity(call, handle),
        **_temperatures(call, handle),
        **_load(call, handle),
        **_memory_errors(call, handle),
        **read_mig(call, handle),
    }
    return GPUSample(index=index, **found, errors=call.errors)


def _identity(call: Caller, handle: Any) -> dict[str, Any]:
    memory = call.first(
        ("nvmlDeviceGetMemoryInfo", handle, pynvml.nvmlMemory_v2),
        ("nvmlDeviceGetMemoryInfo", handle),
    )
    # No memory at all is a struct that nobody filled.
    total = None if memory is None else values.size_bytes(memory.total) or None
    return {
        "uuid": values.uuid(call("nvmlDeviceGetUUID", handle)),
        "pci": values.pci(call("nvmlDeviceGetPciInfo", handle)),
        "model": values.text(call("nvmlDeviceGetName", handle)),
        "serial": values.word(call("nvmlDeviceGetSerial", handle)),
        "memory_total_bytes": total,
        "memory_used_bytes": values.size_bytes(memory.used) if memory is not None and total else None,
    }


def _temperatures(call: Caller, handle: Any) -> dict[str, Any]:
    read = fields.read_fields(call, handle)
    celsius = call.first(
        ("nvmlDeviceGetTemperatureV", handle, _GPU_SENSOR),
        ("nvmlDeviceGetTemperature", handle, _GPU_SENSOR),
    )
    margin = call("nvmlDeviceGetMarginTemperature", handle, tolerate=(INVALID_ARGUMENT,))
    return {
        "temperature_celsius": values.celsius(celsius),
        "temperature_shutdown_celsius": _threshold(call, handle, _SHUTDOWN),
        "temperature_slowdown_celsius": _threshold(call, handle, _SLOWDOWN),
        "temperature_max_celsius": _threshold(call, handle, _GPU_MAX),
        # 0 °C is how boards without the sensor answer; no memory at work is that cold.
        "memory_temperature_celsius": values.limit_celsius(read.get(fields.MEMORY_TEMPERATURE)),
        "memory_temperature_max_celsius": _threshold(call, handle, _MEMORY_MAX),
        "thermal_margin_celsius": values.margin_celsius(margin),
        "thermal_margin_slowdown_celsius": values.margin_celsius(read.get(fields.SLOWDOWN_MARGIN)),
        "recovery_action": values.within(read.get(fields.RECOVERY_ACTION), 0, _MAX_ACTION),
    }


def _load(call: Caller, handle: Any) -> dict[str, Any]:
    utilization = call("nvmlDeviceGetUtilizationRates", handle)
    reasons = call.first(
        ("nvmlDeviceGetCurrentClocksEventReasons", handle),
        ("nvmlDeviceGetCurrentClocksThrottleReasons", handle),
    )
    return {
        "power_milliwatts": values.within(call("nvmlDeviceGetPowerUsage", handle), 0, _MAX_MILLIWATTS),
        "power_limit_milliwatts": values.within(call("nvmlDeviceGetEnforcedPowerLimit", handle), 1, _MAX_MILLIWATTS),
        "utilization_percent": None if utilization is None else values.within(utilization.gpu, 0, 100),
        "sm_clock_mhz": values.within(call("nvmlDeviceGetClockInfo", handle, _SM_CLOCK), 0, _MAX_MHZ),
        "performance_state": values.within(call("nvmlDeviceGetPerformanceState", handle), 0, _LOWEST_STATE),
        # All bits set is "not available", not every reason at once.
        "clock_event_reasons": values.count(reasons),
    }


def _memory_errors(call: Caller, handle: Any) -> dict[str, Any]:
    current, pending = call("nvmlDeviceGetEccMode", handle) or (None, None)
    corrected, uncorrected, remap_pending, remap_failure = call("nvmlDeviceGetRemappedRows", handle) or (None,) * 4
    return {
        "ecc_current": values.flag(current),
        "ecc_pending": values.flag(pending),
        "ecc_uncorrected_volatile": _ecc(call, handle, _UNCORRECTED, _VOLATILE),
        "ecc_corrected_volatile": _ecc(call, handle, _CORRECTED, _VOLATILE),
        "ecc_uncorrected_aggregate": _ecc(call, handle, _UNCORRECTED, _AGGREGATE),
        "remapped_rows_corrected": values.rows(corrected),
        "remapped_rows_uncorrected": values.rows(uncorrected),
        "remap_pending": values.flag(remap_pending),
        "remap_failure": values.flag(remap_failure),
    }


def _ecc(call: Caller, handle: Any, kind: int, since: int) -> int | None:
    return values.count(call("nvmlDeviceGetTotalEccErrors", handle, kind, since))


def _threshold(call: Caller, handle: Any, kind: int) -> int | None:
    # INVALID_ARGUMENT: a kind of limit that this driver does not know yet, or (Blackwell) no longer.
    found = call("nvmlDeviceGetTemperatureThreshold", handle, kind, tolerate=(INVALID_ARGUMENT,))
    return values.limit_celsius(found)
