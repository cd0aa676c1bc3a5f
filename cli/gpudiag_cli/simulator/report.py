"""The report that a simulated agent gives: pure functions from a machine and its faults.

In two steps. What the report means changes only with the faults; telemetry is put in per sample.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from gpudiag_api.times import to_rfc3339
from gpudiag_api.version import __version__
from gpudiag_api.vocabulary import Health
from gpudiag_api.wire import GPU, WIRE_VERSION, AgentInfo, Allocation, Driver, Finding, Measurements, Report
from gpudiag_cli.simulator import symptoms
from gpudiag_cli.simulator.faults import Fault, Injected
from gpudiag_cli.simulator.machines import Machine, boot_id

HOT_CELSIUS = 88.0


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """A node to simulate."""

    name: str
    machine: Machine
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the Node besides those of every GPU node, for example its pool."""
    latency: float = 0.0
    """Seconds that every answer of its agent takes."""
    jitter: float = 0.0
    """Seconds by which that differs from answer to answer, at most, up or down."""


def compose(
    spec: NodeSpec, gpus: tuple[GPU, ...], faults: tuple[Injected, ...], *, jobs: int, interval: float
) -> Report:
    """What the report means now, without telemetry and time.

    Args:
        spec: the node.
        gpus: its GPUs, as ``spec.machine.gpus(spec.name)`` gives them.
        faults: what is wrong; misbehaviours that concern the contents are put in too.
        jobs: how many jobs have come to the first GPU, one after the other; 0 is none.
        interval: seconds between samples, which the report carries.
    """
    kinds = {each.fault for each in faults}
    sick = [each for each in faults if each.fault.health]
    found = _one_per_key(tuple(finding for each in sick for finding in symptoms.findings(each, gpus)))
    gaps = tuple(gap for each in sick if (gap := symptoms.gap(each)))
    blind = any(gap.reason.blinds for gap in gaps)
    boot = boot_id(spec.name)
    seen = () if Fault.NO_DRIVER in kinds else tuple(_with_health(gpu, found, blind=blind) for gpu in gpus)
    return Report(
        version="2.0" if Fault.WRONG_VERSION in kinds else WIRE_VERSION,
        agent=AgentInfo(
            version=__version__,
            node_name=f"not-{spec.name}" if Fault.WRONG_NODE in kinds else spec.name,
            boot_id=boot,
            source="simulated",
            sampling_interval_seconds=interval,
        ),
        health=Health.worst(gpu.health for gpu in seen),
        driver=Driver() if Fault.NO_DRIVER in kinds else spec.machine.driver,
        capabilities=gaps,
        gpus=(*seen, *seen[:1]) if Fault.DUPLICATE_GPU in kinds else seen,
        findings=found,
        xids=tuple(event for each in reversed(sick) for event in symptoms.xids(each, gpus, boot)),
        allocations=_allocations(gpus, jobs),
    )


def with_telemetry(report: Report, spec: NodeSpec, faults: tuple[Injected, ...], sampled_at: float) -> Report:
    """The report of the sample taken then (Unix seconds): the same meaning, other measurements."""
    hot = {each.gpu for each in faults if each.fault is Fault.HOT}
    gpus = tuple(
        msgspec.structs.replace(gpu, measurements=measure(gpu, spec, sampled_at, hot=gpu.index in hot))
        for gpu in report.gpus
    )
    return msgspec.structs.replace(report, gpus=gpus, sampled_at=to_rfc3339(sampled_at))


def measure(gpu: GPU, spec: NodeSpec, sampled_at: float, *, hot: bool) -> Measurements:
    """Plausible telemetry that differs between GPUs and samples, and is the same for the same sample."""
    wobble = (gpu.index * 7 + int(sampled_at * 1000)) % 13
    return Measurements(
        temperature_celsius=HOT_CELSIUS if hot else 34.0 + wobble,
        power_watts=spec.machine.idle_watts + wobble * 1.5,
        utilization_percent=float(wobble),
        memory_used_bytes=(wobble + 1) << 28,
        sm_clock_mhz=345 + wobble * 15,
    )


def _with_health(gpu: GPU, found: tuple[Finding, ...], *, blind: bool) -> GPU:
    """Health is the worst of the GPU's findings; where nothing can be read and nothing worse is known, Unknown."""
    parts = [each.severity.health for each in found if each.subject.gpu_uuid == gpu.uuid]
    parts.append(Health.UNKNOWN if blind else Health.HEALTHY)
    return msgspec.structs.replace(gpu, health=Health.worst(parts))


def _one_per_key(found: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Two faults can lead to one finding, as XID 79 and a lost GPU do; the older one counts."""
    return tuple({finding.key: finding for finding in reversed(found)}.values())


def _allocations(gpus: tuple[GPU, ...], jobs: int) -> tuple[Allocation, ...]:
    if not jobs:
        return ()
    return (Allocation(gpu_uuid=gpus[0].uuid, namespace="jobs", pod=f"train-{jobs}", container="main"),)
