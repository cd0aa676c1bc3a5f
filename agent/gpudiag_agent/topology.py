"""How the GPUs of a node reach each other, from one sample. Pure.

Two GPUs with a direct NVLink (T4-era bridges, V100, A100 boards without switches) are ``NVLink``; two GPUs whose active
links end at NVSwitches are ``NVSwitch``, since every switch of a node reaches every GPU; other pairs are ``PCIe`` on
one NUMA node and ``System`` across two.
"""

from collections.abc import Iterable, Iterator
from itertools import combinations

import msgspec

from gpudiag_agent.sample import GPUSample, NVLinkSample, Sample
from gpudiag_api import wire
from gpudiag_api.pci import slot
from gpudiag_api.wire import GPULink, GPUPlacement

_FABRIC_STATES = {1: "NotStarted", 2: "InProgress", 3: "Completed"}
"""``nvmlGpuFabricState_t``; 0 is "not supported"."""


def topology(sample: Sample, *, node_name: str) -> wire.TopologyAnswer:
    """The links and places of all GPUs that were read."""
    slots = {device.pci: device.numa_node for device in sample.host.pci or ()}
    gpus = tuple(_near(gpu, slots.get(gpu.pci)) for gpu in sample.gpus)
    return wire.TopologyAnswer(
        version=wire.WIRE_VERSION,
        node_name=node_name,
        links=tuple(_link(one, other) for one, other in combinations(gpus, 2)),
        placement=tuple(_placements(gpus)),
    )


def _link(one: GPUSample, other: GPUSample) -> GPULink:
    direct = sum(1 for link in _active(one) if link.remote_pci and other.pci and _meets(link.remote_pci, other.pci))
    if direct:
        return GPULink(gpu_index=one.index, peer_index=other.index, kind="NVLink", links=direct)
    switched = [sum(1 for link in _active(gpu) if link.remote_kind == "switch") for gpu in (one, other)]
    if min(switched):
        return GPULink(gpu_index=one.index, peer_index=other.index, kind="NVSwitch", links=min(switched))
    near = one.numa_node is not None and one.numa_node == other.numa_node
    return GPULink(gpu_index=one.index, peer_index=other.index, kind="PCIe" if near else "System", links=0)


def _active(gpu: GPUSample) -> Iterator[NVLinkSample]:
    return (link for link in gpu.nvlinks or () if link.active)


def _meets(remote: str, pci: str) -> bool:
    return slot(remote) == slot(pci)


def _near(gpu: GPUSample, numa_node: int | None) -> GPUSample:
    """The GPU with the NUMA node of its slot, where the driver does not name one."""
    return gpu if gpu.numa_node is not None else msgspec.structs.replace(gpu, numa_node=numa_node)


def _placements(gpus: Iterable[GPUSample]) -> Iterator[GPUPlacement]:
    for gpu in gpus:
        yield GPUPlacement(
            gpu_index=gpu.index,
            gpu_uuid=gpu.uuid,
            pci=gpu.pci,
            numa_node=gpu.numa_node,
            pcie_generation=gpu.pcie.generation if gpu.pcie else None,
            pcie_generation_max=gpu.pcie.generation_max if gpu.pcie else None,
            pcie_width=gpu.pcie.width if gpu.pcie else None,
            pcie_width_max=gpu.pcie.width_max if gpu.pcie else None,
            nvlinks_active=None if gpu.nvlinks is None else sum(1 for _ in _active(gpu)),
            nvlinks_total=None if gpu.nvlinks is None else len(gpu.nvlinks),
            fabric_state=_FABRIC_STATES.get(gpu.fabric.state) if gpu.fabric else None,
        )
