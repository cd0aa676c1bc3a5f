"""What has gone wrong in a GPU's memory, and what was done about it."""

from ctypes import byref
from typing import Any

import pynvml

from gpudiag_agent.nvml import fields, values
from gpudiag_agent.nvml.call import Caller
from gpudiag_agent.nvml.fields import Fields
from gpudiag_agent.sample import RowHistogram

_CORRECTED, _UNCORRECTED = 0, 1
_VOLATILE, _AGGREGATE = 0, 1
_SRAM_PLACES = {
    "l2": "aggregateUncBucketL2",
    "sm": "aggregateUncBucketSm",
    "microcontroller": "aggregateUncBucketMcu",
    "pcie": "aggregateUncBucketPcie",
    "other": "aggregateUncBucketOther",
}


def read_memory_errors(call: Caller, handle: Any, read: Fields) -> dict[str, Any]:
    """ECC counters, and the three generations of repair: retired pages, remapped rows, remapped banks."""
    current, pending = call("nvmlDeviceGetEccMode", handle) or (None, None)
    corrected, uncorrected, remap_pending, remap_failure = call("nvmlDeviceGetRemappedRows", handle) or (None,) * 4
    channel, tpc = call.detail("nvmlDeviceGetRepairStatus", handle) or (None, None)
    return {
        "ecc_current": values.flag(current),
        "ecc_pending": values.flag(pending),
        "ecc_uncorrected_volatile": _ecc(call, handle, _UNCORRECTED, _VOLATILE),
        "ecc_corrected_volatile": _ecc(call, handle, _CORRECTED, _VOLATILE),
        "ecc_uncorrected_aggregate": _ecc(call, handle, _UNCORRECTED, _AGGREGATE),
        "ecc_corrected_aggregate": _ecc(call, handle, _CORRECTED, _AGGREGATE),
        "remapped_rows_corrected": values.rows(corrected),
        "remapped_rows_uncorrected": values.rows(uncorrected),
        "remap_pending": values.flag(remap_pending),
        "remap_failure": values.flag(remap_failure),
        "remap_histogram": _histogram(call, handle),
        "bank_remap_pending": values.flag(read.get(fields.BANK_REMAP_PENDING)),
        "retired_pages_single_bit": values.rows(read.get(fields.RETIRED_SINGLE_BIT)),
        "retired_pages_double_bit": values.rows(read.get(fields.RETIRED_DOUBLE_BIT)),
        "retired_pages_pending": values.flag(read.get(fields.RETIRED_PENDING)),
        "channel_repair_pending": values.flag(channel),
        "tpc_repair_pending": values.flag(tpc),
        "unrepairable_memory": values.flag(call.detail("nvmlDeviceGetUnrepairableMemoryFlag_v1", handle)),
        **_sram(call, handle),
    }


def _ecc(call: Caller, handle: Any, kind: int, since: int) -> int | None:
    return values.count(call("nvmlDeviceGetTotalEccErrors", handle, kind, since))


def _histogram(call: Caller, handle: Any) -> RowHistogram | None:
    found = call.detail("nvmlDeviceGetRowRemapperHistogram", handle)
    if found is None:
        return None
    banks = [values.rows(getattr(found, name)) for name in ("max", "high", "partial", "low", "none")]
    whole = [number for number in banks if number is not None]
    return RowHistogram(*whole) if len(whole) == len(banks) else None


def _sram(call: Caller, handle: Any) -> dict[str, Any]:
    status = pynvml.c_nvmlEccSramErrorStatus_v1_t()
    if call.detail("nvmlDeviceGetSramEccErrorStatus", handle, byref(status)) is None:
        return {}
    found = {place: values.count(getattr(status, member)) for place, member in _SRAM_PLACES.items()}
    return {
        "sram_threshold_exceeded": values.flag(status.bThresholdExceeded),
        "sram_uncorrected": {place: number for place, number in found.items() if number is not None},
    }
