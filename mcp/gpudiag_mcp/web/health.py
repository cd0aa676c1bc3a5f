"""Pages for probes: whether the process lives, and whether it can answer, with detail per backend.

Not being ready is about this process only: while the API server is away it answers from its copies and tells their
age, and taking it out of the Service would only replace that by nothing.
"""

from collections.abc import Sequence
from typing import Any

from gpudiag_mcp.cache.fleet import FleetCopy
from gpudiag_mcp.kube.copy import Copy
from gpudiag_mcp.kube.errors import AccessError


def readiness(opened: Sequence[FleetCopy]) -> tuple[bool, dict[str, Any]]:
    """Whether questions can be answered, and why not. Words and ages only: the page is open to everyone."""
    backends = [_backend(fleet) for fleet in opened]
    ready = any(
        not fleet.locked_out and all(copy.age_seconds is not None for copy in (fleet.nodes, fleet.diagnostics))
        for fleet in opened
    )
    return ready, {"status": "Ready" if ready else "NotReady", "backends": backends}


def _backend(fleet: FleetCopy) -> dict[str, Any]:
    return {
        "context": fleet.place.context,
        "gpunodes": _copy(fleet.nodes),
        "gpudiagnostics": _copy(fleet.diagnostics),
        "operator_lease": "Seen" if fleet.sign.renewed is not None else "NotSeen",
    }


def _copy(copy: Copy[Any]) -> dict[str, Any]:
    age = copy.age_seconds
    if copy.refused is not None:
        return {"state": "Refused", "status": 401 if isinstance(copy.refused, AccessError) else copy.refused.status}
    if age is None:
        return {"state": "Filling"}
    return {"state": "Unreachable" if copy.trouble else "Synced", "age_s": round(age, 1), "objects": len(copy.items)}
