"""What a simulated agent says beyond its report: flight recorder, XIDs, topology, processes. Pure.

Nothing is recorded. Telemetry follows from the moment alone, so the past is computed when somebody asks for it: 5,000
flight recorders would be 7 million points.
"""

from itertools import combinations

from gpudiag_api import wire
from gpudiag_api.times import to_rfc3339
from gpudiag_cli.simulator import symptoms
from gpudiag_cli.simulator.faults import Fault
from gpudiag_cli.simulator.node import SimulatedNode
from gpudiag_cli.simulator.report import measure

RECORDER_MINUTES = 30
MAX_POINTS = 360
MAX_XIDS = 512
_SWITCHED = ("H100", "H200", "B200", "A100", "GB200")
"""Models whose GPUs hang on NVSwitches; the others have PCIe alone."""
_NVLINKS = 18
_FIRST_PID = 4001


def timeline(node: SimulatedNode, *, minutes: int, points: int, gpu: int | None = None) -> wire.TimelineAnswer:
    """The last so many minutes, at most so many points per GPU, of one GPU or of all.

    Args:
        node: whose.
        minutes: 1 to 30.
        points: 1 to 360.
        gpu: index of the only GPU wanted; it must exist.
    """
    end = node.sample()
    step = max(node.interval, minutes * 60 / points)
    moments = [end - step * back for back in reversed(range(min(points, int(minutes * 60 / step))))]
    hot = {each.gpu: each.since for each in node.faults if each.fault is Fault.HOT}
    held = {each.gpu: each.since for each in node.faults if each.fault in (Fault.HOT, Fault.THROTTLED)}

    def point(index: int, moment: float) -> wire.TimelinePoint:
        measured = measure(node.gpus[index], node.spec, moment, hot=moment >= hot.get(index, end + 1))
        return wire.TimelinePoint(
            at=to_rfc3339(moment),
            temperature_celsius=measured.temperature_celsius,
            power_watts=measured.power_watts,
            utilization_percent=measured.utilization_percent,
            memory_used_bytes=measured.memory_used_bytes,
            sm_clock_mhz=measured.sm_clock_mhz,
            throttled=moment >= held.get(index, end + 1),
        )

    return wire.TimelineAnswer(
        version=wire.WIRE_VERSION,
        node_name=node.name,
        step_seconds=step,
        gpus=tuple(
            wire.GPUTimeline(
                gpu_index=each.index,
                gpu_uuid=each.uuid,
                points=tuple(point(each.index, moment) for moment in moments),
            )
            for each in node.gpus
            if gpu in (None, each.index)
        ),
        events=_events(node, since=end - minutes * 60, gpu=gpu),
    )


def _events(node: SimulatedNode, *, since: float, gpu: int | None) -> tuple[wire.TimelineEvent, ...]:
    told = []
    for each in node.faults:
        if each.since < since or not each.fault.health or (gpu is not None and each.fault.on_gpu and each.gpu != gpu):
            continue
        index = each.gpu if each.fault.on_gpu else None
        when = to_rfc3339(each.since)
        for xid in symptoms.xids(each, node.gpus, node.boot):
            message = f"XID {xid.code}: {xid.message}"
            told.append(wire.TimelineEvent(at=when, kind="xid", message=message, gpu_index=index))
        told += [
            wire.TimelineEvent(at=when, kind="raised", message=finding.message, gpu_index=index)
            for finding in symptoms.findings(each, node.gpus)
        ]
    return tuple(sorted(told, key=lambda event: event.at))


def xids(node: SimulatedNode, *, since: str, limit: int) -> wire.XIDsAnswer:
    """Kernel events after a cursor, oldest first; a cursor of another boot, or none: all there are."""
    boot, _, moment = since.rpartition(".")
    after = int(moment) if boot == node.boot and moment.isascii() and moment.isdecimal() else 0
    events = [
        (int(event.id.rpartition("/")[2]), event)
        for each in node.faults
        for event in symptoms.xids(each, node.gpus, node.boot)
    ]
    found = sorted((entry for entry in events if entry[0] > after), key=lambda entry: entry[0])[:limit]
    return wire.XIDsAnswer(
        version=wire.WIRE_VERSION,
        node_name=node.name,
        events=tuple(event for _, event in found),
        cursor=f"{node.boot}.{found[-1][0] if found else after}",
    )


def topology(node: SimulatedNode) -> wire.TopologyAnswer:
    """NVSwitches between the GPUs of machines that have them, else PCIe; the first half of the GPUs on NUMA node 0."""
    switched = any(model in node.machine.model for model in _SWITCHED)
    half = (node.machine.gpu_count + 1) // 2

    def kind(one: int, other: int) -> str:
        if switched:
            return "NVSwitch"
        return "PCIe" if (one < half) == (other < half) else "System"

    return wire.TopologyAnswer(
        version=wire.WIRE_VERSION,
        node_name=node.name,
        links=tuple(
            wire.GPULink(gpu_index=one, peer_index=other, kind=kind(one, other), links=_NVLINKS if switched else 0)
            for one, other in combinations(range(node.machine.gpu_count), 2)
        ),
        placement=tuple(
            wire.GPUPlacement(
                gpu_index=gpu.index,
                gpu_uuid=gpu.uuid,
                pci=gpu.pci,
                numa_node=int(gpu.index >= half),
                pcie_generation=5,
                pcie_generation_max=5,
                pcie_width=16,
                pcie_width_max=16,
                nvlinks_active=_NVLINKS if switched else None,
                nvlinks_total=_NVLINKS if switched else None,
                fabric_state="Completed" if switched else None,
            )
            for gpu in node.gpus
        ),
    )


def processes(node: SimulatedNode) -> wire.ProcessesAnswer:
    """One process for each container that holds a GPU."""
    index = {gpu.uuid: gpu.index for gpu in node.gpus}
    return wire.ProcessesAnswer(
        version=wire.WIRE_VERSION,
        node_name=node.name,
        processes=tuple(
            wire.ProcessRow(
                gpu_index=index[held.gpu_uuid],
                pid=_FIRST_PID + number,
                name="python3",
                memory_bytes=8 << 30,
                namespace=held.namespace,
                pod=held.pod,
            )
            for number, held in enumerate(node.allocations)
        ),
    )
