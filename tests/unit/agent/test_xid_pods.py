"""Whose XID it was: the pod is found at once and stays with the event after it is gone."""

import msgspec
import pytest

from gpudiag_agent.assess import Assessor
from gpudiag_agent.attribution.model import Device, Held, Owner, PodDevices, PodRef, Usage
from gpudiag_agent.checks.registry import all_checks
from gpudiag_agent.kernel_log.decode import KernelEvent
from gpudiag_agent.kernel_log.parse import XIDLine
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api.wire import AgentInfo, XIDEvent

PCI = "0000:3b:00.0"
NOW = 1_800_000_000.0
JOB = PodRef("ml", "train-0")


def held(pod: str, namespace: str = "ml", uuid: str = "GPU-0") -> Held:
    return Held(device=Device(gpu_uuid=uuid), namespace=namespace, pod=pod, container="c")


class Node:
    def __init__(self, *pods: Held) -> None:
        self.assessor = Assessor(agent=AgentInfo(version="0", node_name="n", boot_id="b"), checks=all_checks(10))
        self.holds(*pods)
        self.assessor.sampled(Sample(taken_at=NOW, gpus=(GPUSample(index=0, uuid="GPU-0", pci=PCI),)))

    def holds(self, *pods: Held) -> None:
        self.assessor.usage = Usage(pods=PodDevices(held=pods))

    def xid(self, code: int = 31, *, owner: Owner | None = None, live: bool = True, at: float = NOW) -> XIDEvent:
        line = XIDLine(code=code, pci=PCI, message="x", process_id=7, process_name="python")
        event = KernelEvent(id=f"b/{code}-{at}", at=at, what=line)
        self.assessor.heard(event, owner=owner, live=live)
        return self.seen()

    def seen(self) -> XIDEvent:
        report = self.assessor.report(NOW)
        assert report is not None
        return report.xids[0]


def pod(event: XIDEvent) -> tuple[str | None, str | None]:
    return event.pod_namespace, event.pod_name


IN_A_POD = Owner(pid=7, pod_uid="u", pod=JOB)
OF_THE_NODE = Owner(pid=7, name="nvidia-smi")
IN_A_NAMELESS_POD = Owner(pid=7, pod_uid="u")


@pytest.mark.parametrize(
    ("pods", "owner", "live", "found"),
    [
        pytest.param([], IN_A_POD, True, ("ml", "train-0"), id="the process leads to it"),
        pytest.param([held("other")], IN_A_POD, True, ("ml", "train-0"), id="the process is the better witness"),
        pytest.param([held("train-1")], None, True, ("ml", "train-1"), id="the only one that holds the GPU"),
        pytest.param([held("train-1")], IN_A_NAMELESS_POD, True, ("ml", "train-1"), id="its name is not to be found"),
        pytest.param([held("a"), held("b")], None, True, (None, None), id="two hold it: no guess"),
        pytest.param([held("a", uuid="GPU-9")], None, True, (None, None), id="another GPU is not this one"),
        pytest.param([held("a")], OF_THE_NODE, True, (None, None), id="a process of the node itself"),
        pytest.param([held("a")], None, False, (None, None), id="an old line says nothing of those who hold it now"),
    ],
)
def test_the_pod_behind(
    pods: list[Held], owner: Owner | None, live: bool, found: tuple[str | None, str | None]
) -> None:
    assert pod(Node(*pods).xid(owner=owner, live=live)) == found


def test_it_stays_when_the_pod_is_gone() -> None:
    node = Node(held("train-1"))
    node.xid()
    node.holds()
    assert pod(node.seen()) == ("ml", "train-1")


def test_a_repeat_that_leads_nowhere_does_not_lose_it() -> None:
    node = Node()
    node.xid(owner=IN_A_POD)
    again = node.xid(at=NOW + 1)
    assert (pod(again), again.count) == (("ml", "train-0"), 2)


def test_it_survives_a_restart_of_the_agent() -> None:
    before, after = Node(), Node()
    before.xid(owner=IN_A_POD)
    assert after.assessor.ledger.load(before.assessor.ledger.dump(), now=NOW) is None
    assert pod(after.seen()) == ("ml", "train-0")


def test_a_name_of_any_length_fits_the_wire() -> None:
    owner = Owner(pid=7, pod_uid="u", pod=PodRef("n" * 500, "p" * 500))
    event = Node().xid(owner=owner)
    assert msgspec.convert(msgspec.to_builtins(event), XIDEvent) == event
