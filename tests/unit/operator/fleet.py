"""Builders of nodes, findings and XIDs for tests of what comes after the agent."""

from typing import Any

import msgspec

from gpudiag_api import wire
from gpudiag_api.kinds import GPUDiagnosticSpec, GPUNodeSpec
from gpudiag_api.vocabulary import Action, Blame, Capability, Health, NotRead, Severity
from gpudiag_operator.assess.node import assess
from gpudiag_operator.domain import AgentPod, BreakerSnapshot, Failure, NodeInfo, NodeState, Reading, Target

SEEN = "2026-11-21T03:00:00.000Z"
NOW = 1_795_000_000.0

CRITICAL, WARNING, INFO = Severity.CRITICAL, Severity.WARNING, Severity.INFO


def gpu(index: int = 0, node: str = "n1", **fields: Any) -> wire.GPU:
    given: dict[str, Any] = {
        "index": index,
        "uuid": f"GPU-{node}-{index}",
        "pci": f"0000:{index + 16:02x}:00.0",
        "model": "NVIDIA H100 80GB HBM3",
        "memory_bytes": 80 << 30,
        "health": Health.HEALTHY,
    }
    return wire.GPU(**given | fields)


def subject(index: int, node: str = "n1") -> wire.Subject:
    return wire.Subject(gpu_index=index, gpu_uuid=f"GPU-{node}-{index}", pci=f"0000:{index + 16:02x}:00.0")


def finding(severity: Severity = CRITICAL, index: int | None = 0, node: str = "n1", **fields: Any) -> wire.Finding:
    given: dict[str, Any] = {
        "check": "ECCUncorrectable",
        "reason": "UncorrectableErrors",
        "severity": severity,
        "blame": Blame.HARDWARE,
        "action": Action.DRAIN_AND_RESET_GPU,
        "message": f"GPU {index} counts 2 uncorrectable memory errors.",
        "subject": wire.Subject() if index is None else subject(index, node),
        "first_seen": SEEN,
        "last_seen": SEEN,
    }
    return wire.Finding(**given | fields)


def xid(code: int = 48, sequence: int = 1, index: int = 0, node: str = "n1", **fields: Any) -> wire.XIDEvent:
    given: dict[str, Any] = {
        "id": f"boot/{sequence}",
        "code": code,
        "severity": CRITICAL,
        "blame": Blame.HARDWARE,
        "action": Action.DRAIN_AND_RESET_GPU,
        "message": "pid=7, name=python, DBE",
        "subject": subject(index, node),
        "first_seen": SEEN,
        "last_seen": SEEN,
    }
    return wire.XIDEvent(**given | fields)


def application_xid(sequence: int = 1, **fields: Any) -> wire.XIDEvent:
    given: dict[str, Any] = {
        "code": 31,
        "severity": INFO,
        "blame": Blame.APPLICATION,
        "action": Action.CHECK_APPLICATION,
    }
    return xid(sequence=sequence, **given | fields)


def gap(reason: Capability) -> wire.CapabilityGap:
    return wire.CapabilityGap(reason=reason, message=f"what says {reason}")


def report(name: str = "n1", *, gpus: int = 2, **fields: Any) -> wire.Report:
    given: dict[str, Any] = {
        "version": wire.WIRE_VERSION,
        "agent": wire.AgentInfo(version="0.1.0", node_name=name),
        "sampled_at": SEEN,
        "health": Health.HEALTHY,
        "driver": wire.Driver(version="570.133.20", cuda_version="12.8"),
        "gpus": tuple(gpu(index, name) for index in range(gpus)),
    }
    return wire.Report(**given | fields)


def failed(reason: NotRead = NotRead.TIMEOUT) -> Failure:
    return Failure(reason=reason, message="agent Pod secret-7 gave no answer in 5 s", since=NOW - 60)


def node_of(
    name: str = "n1",
    *,
    failure: NotRead | None = None,
    unseen: bool = False,
    labels: dict[str, str] | None = None,
    spec: GPUNodeSpec | None = None,
    last: NodeState | None = None,
    breaker: BreakerSnapshot | None = None,
    **fields: Any,
) -> NodeState:
    """A node as assessed: ``fields`` are those of its report, which it lacks when ``unseen``."""
    reading = Reading(
        target=Target(node=name, pod=AgentPod(name="agent-1", uid="p", node=name, ip="127.0.0.9", ready=True)),
        report=None if unseen else report(name, **fields),
        failure=None if failure is None else failed(failure),
        breaker=breaker or BreakerSnapshot(),
    )
    info = NodeInfo(name=name, uid=f"uid-{name}", ready=True, labels=labels or {}, gpu=True)
    return assess(reading, node=info, spec=spec or GPUNodeSpec(), now=NOW, last=last)


def spec_of(**fields: Any) -> GPUDiagnosticSpec:
    return GPUDiagnosticSpec.model_validate(fields)


def with_counts(state: NodeState, count: int) -> NodeState:
    """The same state with other counts and times: no change of meaning."""
    later = "2026-11-21T04:00:00.000Z"
    return msgspec.structs.replace(
        state,
        findings=tuple(msgspec.structs.replace(one, count=count, last_seen=later) for one in state.findings),
        xids=tuple(msgspec.structs.replace(one, count=count, last_seen=later) for one in state.xids),
        sampled_at=later,
    )
