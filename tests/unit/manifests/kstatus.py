"""kstatus, as its documentation has it for kinds it does not know (sigs.k8s.io/cli-utils, pkg/kstatus).

Flux and `kpt live` read resources so.
"""

from typing import Any


def kstatus(item: dict[str, Any]) -> str:
    """Terminating, InProgress, Failed or Current."""
    metadata, status = item["metadata"], item.get("status", {})
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
    if "deletionTimestamp" in metadata:
        return "Terminating"
    if status.get("observedGeneration", metadata["generation"]) != metadata["generation"]:
        return "InProgress"
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    return "Current" if conditions.get("Ready", "True") == "True" else "InProgress"
