"""What cannot be judged while an NVML call fails: the checks that it feeds. Data.

A call is *vital* where a Critical fault could go unseen without it, or the GPU itself could not be told from others:
its GPU is Unknown then. Of the others a fault that goes unseen makes a GPU Degraded at most, or another witness tells
of it as well: they are named, and health stays what it is. A call that is in neither feeds no check (``nvml.call``:
inventory).

Names are those of ``CallError``: a function as pynvml has it, a field of ``nvmlDeviceGetFieldValues`` with its number.
"""

from collections.abc import Mapping

from gpudiag_api.vocabulary import Check


def _field(number: int) -> str:
    return f"nvmlDeviceGetFieldValues({number})"


_RETIRED_PAGES = (29, 30, 31)
_PCIE_ERRORS = (94, 169, *range(173, 184))
_NVLINK5_ERRORS = (*range(206, 216), 219, 220, 221, 222)
_C2C_COUNTERS = (231, 232, 233)

VITAL: Mapping[str, tuple[Check, ...]] = {
    "nvmlDeviceGetHandleByIndex": (Check.GPU_LOST,),
    "nvmlDeviceGetUUID": (Check.GPU_LOST,),
    "nvmlDeviceGetPciInfo": (Check.GPU_COUNT, Check.XID),
    "nvmlDeviceGetTemperature": (Check.TEMPERATURE,),
    "nvmlDeviceGetTemperatureV": (Check.TEMPERATURE,),
    "nvmlDeviceGetMarginTemperature": (Check.TEMPERATURE,),
    "nvmlDeviceGetTemperatureThreshold": (Check.TEMPERATURE,),
    _field(82): (Check.TEMPERATURE,),
    _field(194): (Check.TEMPERATURE,),
    "nvmlDeviceGetCurrentClocksEventReasons": (Check.THROTTLING,),
    "nvmlDeviceGetCurrentClocksThrottleReasons": (Check.THROTTLING,),
    "nvmlDeviceGetEccMode": (Check.ECC_MODE, Check.ECC_UNCORRECTABLE),
    "nvmlDeviceGetTotalEccErrors": (Check.ECC_UNCORRECTABLE, Check.ECC_CORRECTED),
    "nvmlDeviceGetSramEccErrorStatus": (Check.SRAM_ECC,),
    "nvmlDeviceGetRemappedRows": (Check.ROW_REMAP,),
    **{_field(number): (Check.RETIRED_PAGES,) for number in _RETIRED_PAGES},
    "nvmlDeviceGetUnrepairableMemoryFlag_v1": (Check.MEMORY_REPAIR,),
    _field(230): (Check.XID,),
    "nvmlDeviceGetNvLinkState": (Check.NVLINK, Check.NVLINK_ERRORS),
    "nvmlDeviceGetGpuFabricInfoV": (Check.FABRIC,),
    "nvmlDeviceGetGpuFabricInfo": (Check.FABRIC,),
    _field(170): (Check.C2C,),
    _field(171): (Check.C2C,),
    "nvmlDeviceGetFieldValues": (Check.TEMPERATURE, Check.RETIRED_PAGES, Check.XID, Check.PCIE_ERRORS, Check.C2C),
}

OTHERS: Mapping[str, tuple[Check, ...]] = {
    "nvmlDeviceGetRowRemapperHistogram": (Check.ROW_REMAP,),
    _field(307): (Check.ROW_REMAP,),
    "nvmlDeviceGetRepairStatus": (Check.MEMORY_REPAIR,),
    "nvmlDeviceValidateInforom": (Check.INFOROM,),
    "nvmlDeviceGetCurrPcieLinkGeneration": (Check.PCIE_LINK,),
    "nvmlDeviceGetCurrPcieLinkWidth": (Check.PCIE_LINK,),
    "nvmlDeviceGetMaxPcieLinkGeneration": (Check.PCIE_LINK,),
    "nvmlDeviceGetMaxPcieLinkWidth": (Check.PCIE_LINK,),
    "nvmlDeviceGetPerformanceState": (Check.PCIE_LINK,),
    "nvmlDeviceGetUtilizationRates": (Check.PCIE_LINK, Check.PROCESSES),
    # Fatal ones among them: they cost the GPU, which NVML, the bus and XIDs tell.
    **{_field(number): (Check.PCIE_ERRORS,) for number in _PCIE_ERRORS},
    "nvmlDeviceGetNvLinkErrorCounter": (Check.NVLINK_ERRORS,),
    **{_field(number): (Check.NVLINK_ERRORS,) for number in _NVLINK5_ERRORS},
    # Without it a link to a switch weighs no more than a bridge.
    "nvmlDeviceGetNvLinkRemoteDeviceType": (Check.NVLINK,),
    **{_field(number): (Check.C2C,) for number in _C2C_COUNTERS},
    "nvmlDeviceGetEnforcedPowerLimit": (Check.POWER,),
    "nvmlDeviceGetPowerManagementDefaultLimit": (Check.POWER,),
    "nvmlDeviceGetApplicationsClock": (Check.CLOCKS,),
    "nvmlDeviceGetDefaultApplicationsClock": (Check.CLOCKS,),
    "nvmlDeviceGetPersistenceMode": (Check.PERSISTENCE_MODE,),
    "nvmlDeviceGetMigMode": (Check.MIG,),
    "nvmlDeviceGetMaxMigDeviceCount": (Check.MIG,),
    "nvmlDeviceGetMigDeviceHandleByIndex": (Check.MIG,),
    "nvmlDeviceGetGpuInstanceId": (Check.MIG,),
    "nvmlDeviceGetComputeInstanceId": (Check.MIG,),
    "nvmlDeviceGetMemoryInfo": (Check.PROCESSES,),
    "nvmlDeviceGetComputeRunningProcesses_v3": (Check.PROCESSES,),
    "nvmlDeviceGetGraphicsRunningProcesses_v3": (Check.PROCESSES,),
    "nvmlGetExcludedDeviceCount": (Check.GPU_COUNT,),
    "nvmlSystemGetConfComputeState": (Check.CONFIDENTIAL_COMPUTE,),
    "nvmlSystemGetConfComputeGpusReadyState": (Check.CONFIDENTIAL_COMPUTE,),
    # Telemetry: no check judges it, and people miss it.
    "nvmlDeviceGetPowerUsage": (),
    "nvmlDeviceGetClockInfo": (),
}


def checks(call: str) -> tuple[Check, ...]:
    """The checks that cannot judge, or not fully, while that call fails."""
    return VITAL.get(call) or OTHERS.get(call, ())
