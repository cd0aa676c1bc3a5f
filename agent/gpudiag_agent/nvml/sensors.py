"""Temperatures, power, clocks: what changes from one look to the next."""

from typing import Any

from gpudiag_agent.nvml import fields, values
from gpudiag_agent.nvml.call import INVALID_ARGUMENT, Caller
from gpudiag_agent.nvml.fields import Fields

_GPU_SENSOR = 0
_SM_CLOCK, _MEMORY_CLOCK = 1, 2
_LOWEST_STATE = 15
"""P15; NVML_PSTATE_UNKNOWN is 32."""
_MAX_ACTION = 255


def read_temperatures(call: Caller, handle: Any, read: Fields) -> dict[str, Any]:
    """Temperatures and margins."""
    celsius = call.first(
        ("nvmlDeviceGetTemperatureV", handle, _GPU_SENSOR),
        ("nvmlDeviceGetTemperature", handle, _GPU_SENSOR),
    )
    margin = call("nvmlDeviceGetMarginTemperature", handle, tolerate=(INVALID_ARGUMENT,))
    return {
        "temperature_celsius": values.celsius(celsius),
        # 0 °C is how boards without the sensor answer; no memory at work is that cold.
        "memory_temperature_celsius": values.limit_celsius(read.get(fields.MEMORY_TEMPERATURE)),
        "thermal_margin_celsius": values.margin_celsius(margin),
        "thermal_margin_slowdown_celsius": values.margin_celsius(read.get(fields.SLOWDOWN_MARGIN)),
        "recovery_action": values.within(read.get(fields.RECOVERY_ACTION), 0, _MAX_ACTION),
    }


def read_load(call: Caller, handle: Any, read: Fields) -> dict[str, Any]:
    """Power, load, clocks and what holds them."""
    utilization = call("nvmlDeviceGetUtilizationRates", handle)
    reasons = call.first(
        ("nvmlDeviceGetCurrentClocksEventReasons", handle),
        ("nvmlDeviceGetCurrentClocksThrottleReasons", handle),
    )
    limit = call("nvmlDeviceGetEnforcedPowerLimit", handle)
    application = call.detail("nvmlDeviceGetApplicationsClock", handle, _SM_CLOCK)
    encoder = call.inventory("nvmlDeviceGetEncoderUtilization", handle)
    decoder = call.inventory("nvmlDeviceGetDecoderUtilization", handle)
    return {
        "power_milliwatts": values.within(call("nvmlDeviceGetPowerUsage", handle), 0, values.MAX_MILLIWATTS),
        "energy_millijoules": values.count(call.inventory("nvmlDeviceGetTotalEnergyConsumption", handle)),
        "power_limit_milliwatts": values.setting(limit, values.MAX_MILLIWATTS),
        "utilization_percent": None if utilization is None else values.percent(utilization.gpu),
        "memory_utilization_percent": None if utilization is None else values.percent(utilization.memory),
        # With the period of their sampling, in microseconds.
        "encoder_utilization_percent": None if encoder is None else values.percent(encoder[0]),
        "decoder_utilization_percent": None if decoder is None else values.percent(decoder[0]),
        "sm_clock_mhz": values.within(call("nvmlDeviceGetClockInfo", handle, _SM_CLOCK), 0, values.MAX_MHZ),
        "memory_clock_mhz": values.within(
            call.inventory("nvmlDeviceGetClockInfo", handle, _MEMORY_CLOCK), 0, values.MAX_MHZ
        ),
        "application_clock_mhz": values.setting(application, values.MAX_MHZ),
        "performance_state": values.within(call("nvmlDeviceGetPerformanceState", handle), 0, _LOWEST_STATE),
        # All bits set is "not available", not every reason at once.
        "clock_event_reasons": values.count(reasons),
        "throttle_times": read.throttle_times(),
        "persistence_mode": values.flag(call.detail("nvmlDeviceGetPersistenceMode", handle)),
    }
