"""URL paths of GPUDiagnostics."""

from gpudiag_api.kinds import GROUP, VERSION
from gpudiag_operator.diagnostics.registry import Key

COLLECTION = f"/apis/{GROUP}/{VERSION}/gpudiagnostics"


def path_of(key: Key) -> str:
    """The path of one object."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{key.namespace}/gpudiagnostics/{key.name}"
