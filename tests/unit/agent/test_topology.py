"""Which GPUs reach each other how."""

import pytest

from gpudiag_agent.host.facts import HostFacts, PCIDevice
from gpudiag_agent.sample import FabricSample, GPUSample, NVLinkSample, PCIeSample, Sample
from gpudiag_agent.topology import topology


def gpu(index: int, **values: object) -> GPUSample:
    return GPUSample(index=index, uuid=f"GPU-{index}", pci=f"0000:{index:02x}:00.0", **values)  # type: ignore[arg-type]


def link(number: int, *, to: int | None = None, kind: str = "gpu", active: bool = True) -> NVLinkSample:
    remote = "" if to is None else f"00000000:{to:02X}:00.0"
    return NVLinkSample(link=number, active=active, remote_pci=remote, remote_kind=kind)


def switched(count: int) -> tuple[NVLinkSample, ...]:
    return tuple(link(number, to=0x90, kind="switch") for number in range(count))


@pytest.mark.parametrize(
    ("one", "other", "kind", "links"),
    [
        ({"nvlinks": (link(0, to=2), link(1, to=2), link(2, to=9))}, {}, "NVLink", 2),
        ({"nvlinks": (link(0, to=2, active=False),)}, {}, "System", 0),
        ({"nvlinks": switched(18)}, {"nvlinks": switched(17)}, "NVSwitch", 17),
        ({"nvlinks": switched(18)}, {"nvlinks": ()}, "System", 0),
        ({"numa_node": 1}, {"numa_node": 1}, "PCIe", 0),
        ({"numa_node": 0}, {"numa_node": 1}, "System", 0),
        ({}, {}, "System", 0),
    ],
)
def test_a_pair(one: dict[str, object], other: dict[str, object], kind: str, links: int) -> None:
    found = topology(Sample(taken_at=0, gpus=(gpu(1, **one), gpu(2, **other))), node_name="n")
    assert [(entry.gpu_index, entry.peer_index, entry.kind, entry.links) for entry in found.links] == [
        (1, 2, kind, links)
    ]


def test_a_place() -> None:
    sample = gpu(
        3,
        numa_node=1,
        pcie=PCIeSample(generation=1, generation_max=5, width=16, width_max=16),
        nvlinks=(link(0, to=4), link(1, to=4, active=False)),
        fabric=FabricSample(state=3),
    )
    (place,) = topology(Sample(taken_at=0, gpus=(sample,)), node_name="n").placement
    assert (place.numa_node, place.pcie_generation, place.pcie_generation_max) == (1, 1, 5)
    assert (place.nvlinks_active, place.nvlinks_total, place.fabric_state) == (1, 2, "Completed")


def test_what_a_gpu_does_not_have_is_absent() -> None:
    (place,) = topology(Sample(taken_at=0, gpus=(gpu(0),)), node_name="n").placement
    assert (place.nvlinks_total, place.fabric_state, place.pcie_width) == (None, None, None)


def test_the_slot_says_where_a_gpu_is_that_does_not_say_it_itself() -> None:
    slots = (PCIDevice("0000:01:00.0", "nvidia", 1), PCIDevice("0000:02:00.0", "nvidia", 1))
    sample = Sample(taken_at=0, gpus=(gpu(1), gpu(2, numa_node=0)), host=HostFacts(pci=slots))
    assert [place.numa_node for place in topology(sample, node_name="n").placement] == [1, 0]
