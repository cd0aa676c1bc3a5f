"""GPUDiagnostic (namespaced), the question: ``spec``. Its verdict is in :mod:`gpudiag_api.kinds.verdict`."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from gpudiag_api.kinds.base import (
    DEFAULTED_OBJECT,
    SET,
    DurationText,
    Model,
    NodeName,
    Trigger,
    duration_rules,
    rule,
    validations,
)
from gpudiag_api.kinds.selector import LabelSelector
from gpudiag_api.kinds.verdict import GPUDiagnosticStatus
from gpudiag_api.vocabulary import Check

CheckName = Annotated[Check, Field(description="Name of a check, for example ECCUncorrectable.")]
XIDCode = Annotated[int, Field(ge=1, le=65535)]


class PodRef(Model):
    """A Pod of the diagnostic's own namespace."""

    name: NodeName
    """Name of the Pod."""


class Target(Model):
    """Which nodes are asked about. At most one field; none means every GPU node."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "[has(self.nodeSelector), has(self.nodeNames), has(self.podRef)].filter(x, x).size() <= 1",
                "set at most one of nodeSelector, nodeNames and podRef; leave all out for every GPU node",
            )
        )
    )

    node_selector: LabelSelector | None = None
    """GPU nodes whose labels match."""
    node_names: Annotated[tuple[NodeName, ...], Field(min_length=1, max_length=1000, json_schema_extra=SET)] | None = (
        None
    )
    """Nodes by name, at most 1000."""
    pod_ref: PodRef | None = None
    """The node and the GPUs of one Pod of this namespace."""


class Checks(Model):
    """Which findings count. Filters findings; never changes what an agent samples."""

    include: Annotated[tuple[CheckName, ...], Field(min_length=1, max_length=64, json_schema_extra=SET)] | None = None
    """Only these checks. Absent: all."""
    exclude: Annotated[tuple[CheckName, ...], Field(min_length=1, max_length=64, json_schema_extra=SET)] | None = None
    """All but these checks; wins over include."""


def _tolerance(field: str) -> dict[str, object]:
    return {
        "x-kubernetes-int-or-string": True,
        **validations(
            rule(
                "type(self) == int ? self >= 0 : self.matches('^(100|[1-9]?[0-9])%$')",
                f"{field} must be a number from 0 or a percentage from 0% to 100%, for example 2 or 5%",
            )
        ),
    }


class Tolerate(Model):
    """How much may be wrong while the verdict is still at most Degraded; the message says what was tolerated."""

    unhealthy_gpus: Annotated[
        int | str, Field(union_mode="left_to_right", json_schema_extra=_tolerance("unhealthyGPUs"))
    ] = 0
    """Unhealthy GPUs, as a number or a percentage of the GPUs targeted."""
    unknown_nodes: Annotated[
        int | str, Field(union_mode="left_to_right", json_schema_extra=_tolerance("unknownNodes"))
    ] = 0
    """Nodes that could not be read, as a number or a percentage of the nodes targeted."""


class XIDPolicy(Model):
    """XID codes that weigh differently here than by default."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "!has(self.ignore) || !has(self.critical) || self.ignore.all(code, !(code in self.critical))",
                "a code cannot be in ignore and in critical at once; remove it from one of them",
            )
        )
    )

    ignore: Annotated[tuple[XIDCode, ...], Field(max_length=64, json_schema_extra=SET)] | None = None
    """Codes that do not count."""
    critical: Annotated[tuple[XIDCode, ...], Field(max_length=64, json_schema_extra=SET)] | None = None
    """Codes that make their GPU Unhealthy."""


class Policy(Model):
    """What this diagnostic expects, judged from what the GPUNodes hold."""

    expected_gpus_per_node: Annotated[int, Field(ge=1, le=64)] | None = None
    """Number of GPUs every target must have."""
    expected_driver_version: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Driver version every target must run, for example 570.133.20."""
    expected_model: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Product name every GPU must have, as the driver gives it."""
    xids: XIDPolicy | None = None
    """XID codes that weigh differently."""
    tolerate: Annotated[Tolerate, Field(json_schema_extra=DEFAULTED_OBJECT)] = Tolerate()
    """How much may be wrong while the verdict is still at most Degraded."""
    maintenance_selector: LabelSelector | None = None
    """Nodes whose findings are kept but do not move the verdict."""


class GPUDiagnosticSpec(Model):
    """The question: which nodes, how often, judged by what."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            rule(
                "!has(self.ttlAfterFinished) || (has(self.mode) && self.mode == 'Once')",
                "ttlAfterFinished needs mode: Once, since Continuous never finishes; remove it or set mode: Once",
            ),
            rule(
                "!has(self.detail) || self.detail != 'Full' || (has(self.mode) && self.mode == 'Once')",
                "detail: Full needs mode: Once; use detail: Summary for a Continuous diagnostic",
            ),
        )
    )

    target: Target | None = None
    """Which nodes are asked about. Absent: every GPU node."""
    mode: Literal["Continuous", "Once"] = "Continuous"
    """Continuous is judged whenever something changes. Once takes fresh samples from every target, then is
    Complete; it runs once per metadata.generation and again for every new trigger."""
    trigger: Trigger | None = None
    """Any new string runs a Once diagnostic again. Ignored for Continuous."""
    interval: Annotated[DurationText, Field(json_schema_extra=duration_rules("interval", "5s", "24h", "30s"))] = "30s"
    """A Continuous status moves at most this often (Go duration, 5s to 24h), except when health worsens.
    Ignored for Once."""
    deadline: Annotated[DurationText, Field(json_schema_extra=duration_rules("deadline", "1s", "10m", "30s"))] = "30s"
    """A Once run ends by then with what it has (Go duration, 1s to 10m)."""
    ttl_after_finished: (
        Annotated[DurationText, Field(json_schema_extra=duration_rules("ttlAfterFinished", "0s", "720h", "24h"))] | None
    ) = None
    """Delete the object this long after a Once run finished (Go duration, 0s to 720h). Absent: never.
    Leave it out for objects that Git owns."""
    suspend: bool = False
    """Stop judging; the last result is kept."""
    checks: Checks | None = None
    """Which findings count. Absent: all."""
    policy: Annotated[Policy, Field(json_schema_extra=DEFAULTED_OBJECT)] = Policy()
    """What this diagnostic expects."""
    detail: Literal["Summary", "Full"] = "Summary"
    """Full adds per-node results with GPUs, events, timeline, topology and processes; Once and at most 10 nodes."""
    history_limit: Annotated[int, Field(ge=0, le=50)] = 10
    """Changes of verdict kept in status.history (0 to 50)."""


class GPUDiagnostic(Model):
    """A question about the health of GPUs, and its verdict."""

    spec: Annotated[GPUDiagnosticSpec, Field(json_schema_extra=DEFAULTED_OBJECT)] = GPUDiagnosticSpec()
    """The question. Empty: every GPU node, continuously."""
    status: GPUDiagnosticStatus | None = None
    """The verdict, written by the operator."""
