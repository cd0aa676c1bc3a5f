"""The PCIe link of a GPU."""

from typing import Any

from gpudiag_agent.nvml import fields, values
from gpudiag_agent.nvml.call import Caller
from gpudiag_agent.nvml.fields import Fields
from gpudiag_agent.sample import PCIeSample

_MAX_GENERATION = 15
_MAX_WIDTH = 32


def read_pcie(call: Caller, handle: Any, read: Fields, *, full: bool) -> PCIeSample | None:
    """Generation, width and error counters; None where the GPU says nothing of it."""
    found = PCIeSample(
        generation=_small(call, "nvmlDeviceGetCurrPcieLinkGeneration", handle, _MAX_GENERATION),
        width=_small(call, "nvmlDeviceGetCurrPcieLinkWidth", handle, _MAX_WIDTH),
        generation_max=_small(call, "nvmlDeviceGetMaxPcieLinkGeneration", handle, _MAX_GENERATION) if full else None,
        width_max=_small(call, "nvmlDeviceGetMaxPcieLinkWidth", handle, _MAX_WIDTH) if full else None,
        replays=values.count(read.get(fields.PCIE_REPLAYS)),
        errors=read.counters(fields.PCIE_ERRORS),
    )
    return None if found == PCIeSample() else found


def _small(call: Caller, function: str, handle: Any, highest: int) -> int | None:
    return values.setting(call.detail(function, handle), highest)
