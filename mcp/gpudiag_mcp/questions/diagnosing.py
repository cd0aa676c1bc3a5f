"""How a question that no resource answers yet can be answered: the exact diagnostic to create."""

from dataclasses import dataclass

from gpudiag_api.kinds.base import API_VERSION
from gpudiag_mcp.answers.models import NeedsDiagnostic

TOOL = "create_gpu_diagnostic"
WAIT_SECONDS = 60
TTL = "15m"


@dataclass(frozen=True, kw_only=True)
class Diagnosing:
    """Whether this server may create, and where."""

    enabled: bool
    namespace: str
    context: str = ""
    """Set when the call must name its context."""

    def needs(self, *, node: str, why: str) -> NeedsDiagnostic:
        """A Full diagnostic of one node."""
        arguments: dict[str, object] = {"node": node, "detail": "Full", "wait_s": WAIT_SECONDS}
        if self.context:
            arguments["context"] = self.context
        manifest = {
            "apiVersion": API_VERSION,
            "kind": "GPUDiagnostic",
            "metadata": {"generateName": "full-", "namespace": self.namespace},
            "spec": {"mode": "Once", "detail": "Full", "ttlAfterFinished": TTL, "target": {"nodeNames": [node]}},
        }
        if self.enabled:
            return NeedsDiagnostic(tool=TOOL, arguments=arguments, why=why, enabled=True)
        note = f"{why} This server is read-only (no --allow-create): a person runs kubectl create -f with the manifest."
        return NeedsDiagnostic(tool=TOOL, arguments=arguments, why=note, enabled=False, manifest=manifest)
