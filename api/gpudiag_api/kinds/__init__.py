"""The two kinds of ``gpudiag.dev/v1alpha1`` as pydantic models; the CRDs are generated from them."""

from gpudiag_api.kinds.base import API_VERSION, GROUP, VERSION
from gpudiag_api.kinds.gpudiagnostic import GPUDiagnostic, GPUDiagnosticSpec
from gpudiag_api.kinds.gpunode import GPUNode, GPUNodeSpec, GPUNodeStatus
from gpudiag_api.kinds.verdict import GPUDiagnosticStatus

__all__ = [
    "API_VERSION",
    "GROUP",
    "VERSION",
    "GPUDiagnostic",
    "GPUDiagnosticSpec",
    "GPUDiagnosticStatus",
    "GPUNode",
    "GPUNodeSpec",
    "GPUNodeStatus",
]
