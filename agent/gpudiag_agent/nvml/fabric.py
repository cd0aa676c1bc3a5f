"""Where a GPU stands in its NVSwitch fabric."""

import uuid
from ctypes import byref
from typing import Any

import pynvml

from gpudiag_agent.nvml import values
from gpudiag_agent.nvml.call import ABOUT_THE_GPU, NOT_SUPPORTED, Caller, attempt
from gpudiag_agent.sample import FabricSample

_COMPLETED = 3
_STATES = 3
_SUMMARIES = 3
_MAX_CODE = 999
_FORMS = (
    ("nvmlDeviceGetGpuFabricInfoV", "c_nvmlGpuFabricInfo_v3_t"),
    ("nvmlDeviceGetGpuFabricInfoV", "c_nvmlGpuFabricInfo_v2_t"),
    ("nvmlDeviceGetGpuFabricInfo", "c_nvmlGpuFabricInfo_t"),
)
"""Newest first. The function with the V is missing before driver 550."""


def read_fabric(call: Caller, handle: Any) -> FabricSample | None:
    """Registration and health; None where the GPU or the driver knows no fabric."""
    for function, form in _FORMS:
        info = getattr(pynvml, form)()
        _, code = attempt(function, handle, byref(info))
        if not code:
            return _told(info)
        call.answered(function, code)
        if code in ABOUT_THE_GPU or code == NOT_SUPPORTED:
            # The function and the struct are known, and the GPU has no fabric: no other form will tell more.
            return None
    return None


def _told(info: Any) -> FabricSample | None:
    state = values.within(info.state, 0, _STATES)
    if state is None:
        return None
    cluster = bytes(info.clusterUuid)
    return FabricSample(
        state=state,
        status=values.within(info.status, 0, _MAX_CODE) if state == _COMPLETED else None,
        health_summary=values.within(getattr(info, "healthSummary", None), 0, _SUMMARIES),
        health_mask=values.rows(getattr(info, "healthMask", None)),
        clique_id=values.rows(info.cliqueId) if state == _COMPLETED else None,
        cluster_uuid=str(uuid.UUID(bytes=cluster)) if any(cluster) else "",
    )
