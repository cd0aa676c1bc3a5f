"""One gauge per check and GPU: 1 sick, 0 well, and nothing where nobody can tell."""

import msgspec
from tests.unit.agent.test_standings import GPU, Node

from gpudiag_agent.sample import CallError, GPUSample
from gpudiag_agent.server import conditions
from gpudiag_api.vocabulary import Capability, Check

HOT = msgspec.structs.replace(GPU, remap_failure=True)


def said(node: Node) -> dict[tuple[str, str], float]:
    """(UUID, check) → value; the node's own have no UUID."""
    sample, report = node.assessor.sample, node.assessor.report(node.now)
    assert sample is not None
    assert report is not None
    family = conditions.family(report, sample, node.assessor.standings)
    return {(one.labels["uuid"], one.labels["check"]): one.value for one in family.samples}


def test_a_sick_gpu_is_1_and_0_again_when_it_is_well() -> None:
    node = Node()
    assert said(node)["GPU-0", "RowRemap"] == 0
    node.look(gpus=(HOT,))
    assert said(node)["GPU-0", "RowRemap"] == 1
    assert said(node)["GPU-0", "Temperature"] == 0
    node.look()
    assert said(node)["GPU-0", "RowRemap"] == 0


def test_every_check_has_one_of_each_gpu_and_one_of_the_node() -> None:
    node = Node()
    assert set(said(node)) == {(uuid, str(check)) for uuid in ("GPU-0", "") for check in Check}


def test_what_cannot_be_judged_is_absent() -> None:
    node = Node()
    node.look(log="cannot be read")
    assert ("GPU-0", "XID") not in said(node)
    assert ("GPU-0", "Temperature") in said(node)
    node.look(fault=Capability.DRIVER_HUNG)
    assert {uuid for uuid, _ in said(node)} == {""}


def test_a_gpu_that_does_not_tell_one_thing_has_the_others() -> None:
    failed = CallError("nvmlDeviceGetRemappedRows", 999, "NVML_ERROR_UNKNOWN")
    other = GPUSample(index=1, uuid="GPU-1", pci="0000:4b:00.0", model="NVIDIA H100", unread=(failed,))
    node = Node()
    node.look(gpus=(GPU, other))
    assert ("GPU-1", "RowRemap") not in said(node)
    assert said(node)["GPU-1", "Temperature"] == said(node)["GPU-0", "RowRemap"] == 0
