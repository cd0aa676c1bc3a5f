"""Everything the agent reads of one GPU. Names of functions and constants are those of nvml.h."""

from typing import Any

import pynvml

from gpudiag_agent.nvml import fields
from gpudiag_agent.nvml.call import Caller
from gpudiag_agent.nvml.mig import read_mig
from gpudiag_agent.sample import GPUSample
from gpudiag_api.pci import normalise

_GPU_SENSOR = 0
_SHUTDOWN, _SLOWDOWN, _MEMORY_MAX, _GPU_MAX = 0, 1, 2, 3
_CORRECTED, _UNCORRECTED = 0, 1
_VOLATILE, _AGGREGATE = 0, 1
_SM_CLOCK = 1
_MAX_CELSIUS = 200
_MAX_MILLIWATTS = 10_000_000
_UNKNOWN_STATE = 32
"""NVML_PSTATE_UNKNOWN."""


def read_device(index: int) -> GPUSample:
    """Read one GPU. Never raises: what fails is in ``errors``, what is unsupported is None."""
    call = Caller()
    handle = call("nvmlDeviceGetHandleByIndex", index)
    if handle is None:
        return GPUSample(index=index, errors=call.errors)
    values: dict[str, Any] = {
        **_identity(call, handle),
        **_temperatures(call, handle),
        **_load(call, handle),
        **_memory_errors(call, handle),
        **read_mig(call, handle),
    }
    return GPUSample(index=index, **values, errors=call.errors)


def _identity(call: Caller, handle: Any) -> dict[str, Any]:
    memory = call.first(
        ("nvmlDeviceGetMemoryInfo", handle, pynvml.nvmlMemory_v2),
        ("nvmlDeviceGetMemoryInfo", handle),
    )
    return {
        "uuid": _text(call("nvmlDeviceGetUUID", handle)),
        "pci": _pci(call("nvmlDeviceGetPciInfo", handle)),
        "model": _text(call("nvmlDeviceGetName", handle)),
        "serial": _text(call("nvmlDeviceGetSerial", handle)),
        "memory_total_bytes": int(memory.total) if memory is not None else None,
        "memory_used_bytes": int(memory.used) if memory is not None else None,
    }


def _temperatures(call: Caller, handle: Any) -> dict[str, Any]:
    read = fields.read_fields(call, handle)
    celsius = call.first(
        ("nvmlDeviceGetTemperatureV", handle, _GPU_SENSOR),
        ("nvmlDeviceGetTemperature", handle, _GPU_SENSOR),
    )
    return {
        "temperature_celsius": _within(celsius, 0, _MAX_CELSIUS),
        "temperature_shutdown_celsius": _threshold(call, handle, _SHUTDOWN),
        "temperature_slowdown_celsius": _threshold(call, handle, _SLOWDOWN),
        "temperature_max_celsius": _threshold(call, handle, _GPU_MAX),
        "memory_temperature_celsius": _within(read.get(fields.MEMORY_TEMPERATURE), 1, _MAX_CELSIUS),
        "memory_temperature_max_celsius": _threshold(call, handle, _MEMORY_MAX),
        "thermal_margin_celsius": _within(call("nvmlDeviceGetMarginTemperature", handle), -_MAX_CELSIUS, _MAX_CELSIUS),
        "thermal_margin_slowdown_celsius": _within(read.get(fields.SLOWDOWN_MARGIN), -_MAX_CELSIUS, _MAX_CELSIUS),
        "recovery_action": read.get(fields.RECOVERY_ACTION),
    }


def _load(call: Caller, handle: Any) -> dict[str, Any]:
    utilization = call("nvmlDeviceGetUtilizationRates", handle)
    return {
        "power_milliwatts": _within(call("nvmlDeviceGetPowerUsage", handle), 0, _MAX_MILLIWATTS),
        "power_limit_milliwatts": _within(call("nvmlDeviceGetEnforcedPowerLimit", handle), 1, _MAX_MILLIWATTS),
        "utilization_percent": _within(utilization.gpu, 0, 100) if utilization is not None else None,
        "sm_clock_mhz": _within(call("nvmlDeviceGetClockInfo", handle, _SM_CLOCK), 0, 100_000),
        "performance_state": _within(call("nvmlDeviceGetPerformanceState", handle), 0, _UNKNOWN_STATE - 1),
        "clock_event_reasons": call.first(
            ("nvmlDeviceGetCurrentClocksEventReasons", handle),
            ("nvmlDeviceGetCurrentClocksThrottleReasons", handle),
        ),
    }


def _memory_errors(call: Caller, handle: Any) -> dict[str, Any]:
    current, pending = call("nvmlDeviceGetEccMode", handle) or (None, None)
    corrected, uncorrected, remap_pending, remap_failure = call("nvmlDeviceGetRemappedRows", handle) or (None,) * 4
    return {
        "ecc_current": _flag(current),
        "ecc_pending": _flag(pending),
        "ecc_uncorrected_volatile": call("nvmlDeviceGetTotalEccErrors", handle, _UNCORRECTED, _VOLATILE),
        "ecc_corrected_volatile": call("nvmlDeviceGetTotalEccErrors", handle, _CORRECTED, _VOLATILE),
        "ecc_uncorrected_aggregate": call("nvmlDeviceGetTotalEccErrors", handle, _UNCORRECTED, _AGGREGATE),
        "remapped_rows_corrected": corrected,
        "remapped_rows_uncorrected": uncorrected,
        "remap_pending": _flag(remap_pending),
        "remap_failure": _flag(remap_failure),
    }


def _threshold(call: Caller, handle: Any, kind: int) -> int | None:
    """A limit of 0 °C means that none is set."""
    return _within(call("nvmlDeviceGetTemperatureThreshold", handle, kind), 1, _MAX_CELSIUS)


def _within(value: int | None, low: int, high: int) -> int | None:
    """A value outside what is physically possible is NVML's "not available" (for example 0xFFFFFFFF)."""
    return int(value) if value is not None and low <= value <= high else None


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _text(value: str | bytes | None) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else value or ""
    return "".join(character for character in text if character.isprintable()).strip()


def _pci(info: Any | None) -> str:
    if info is None:
        return ""
    try:
        return normalise(_text(info.busId))
    except ValueError:
        return ""
