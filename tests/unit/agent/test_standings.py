"""Which checks can judge: each follows the sources that it needs, and no others."""

from collections.abc import Mapping

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.agent.recall import host_faults, kernel_faults

from gpudiag_agent.assess import Assessor
from gpudiag_agent.attribution.model import PodDevices, Usage
from gpudiag_agent.checks.base import Memoryless, Problem, View, Witness
from gpudiag_agent.checks.registry import all_checks
from gpudiag_agent.clock import ManualClock
from gpudiag_agent.host.facts import HostFacts, PCIDevice
from gpudiag_agent.publisher import Publisher
from gpudiag_agent.sample import GPUSample, Sample, SourceFault
from gpudiag_agent.sampler import Sampler
from gpudiag_agent.server.metrics import Metrics
from gpudiag_agent.standings import Standing
from gpudiag_api.vocabulary import Capability, Check, Severity
from gpudiag_api.wire import AgentInfo

START = 1_800_000_000.0
GPU = GPUSample(index=0, uuid="GPU-0", pci="0000:3b:00.0", model="NVIDIA H100", temperature_celsius=40)
HOST = HostFacts(pci=(PCIDevice("0000:3b:00.0", "nvidia"),), nvswitches=0, ports=(), modules={}, daemons={})

BY_LOG = {Check.XID, Check.SXID, Check.ADAPTER_INIT, Check.GSP}
BY_BUS = {Check.GPU_COUNT, Check.FABRIC, Check.NVLINK, Check.PCIE_ERRORS, Check.FABRIC_MANAGER}
BY_PORTS = {Check.INFINIBAND, Check.PEER_MEMORY}
SERVICES = {Check.FABRIC_MANAGER, Check.IMEX}


class Node:
    """An agent's knowledge, and a minute that everything speaks in."""

    def __init__(self) -> None:
        self.now = START
        self.assessor = Assessor(agent=AgentInfo(version="1", node_name="n"), checks=all_checks(10.0))
        self.look()

    def look(
        self,
        *,
        fault: Capability | None = None,
        host: HostFacts | None = HOST,
        log: str | None = None,
        usage: Mapping[str, object] | None = None,
        gpus: tuple[GPUSample, ...] = (GPU,),
    ) -> dict[Check, Standing]:
        self.now += 10
        said = SourceFault(fault, "why") if fault else None
        seen = None if host is None else msgspec.structs.replace(host, taken_at=self.now - 1)
        self.assessor.sampled(Sample(taken_at=self.now, gpus=() if said else gpus, fault=said), host=seen)
        self.assessor.kernel_log_problem = log
        known: Mapping[str, object] = {"pods": PodDevices(), "pods_at": self.now - 2, "owners": {}, **(usage or {})}
        self.assessor.usage = Usage(**known)  # type: ignore[arg-type]
        assert self.assessor.report(self.now) is not None
        return dict(self.assessor.standings.all())

    def down(self, **silent: object) -> set[Check]:
        return {check for check, standing in self.look(**silent).items() if not standing.up}  # type: ignore[arg-type]


def without(**facts: object) -> dict[str, object]:
    return {"host": msgspec.structs.replace(HOST, **facts)}


@pytest.mark.parametrize(
    ("silent", "down"),
    [
        ({"fault": Capability.DRIVER_HUNG}, set(Check) - BY_LOG - {Check.DRIVER, Check.INFINIBAND}),
        ({"log": "cannot be read"}, BY_LOG | {Check.NVLINK}),
        ({"usage": {"pods": None, "pods_at": None, "pods_problem": "no socket"}}, {Check.GPU_COUNT}),
        ({"usage": {"owners": None, "owners_problem": "no pids"}}, {Check.PROCESSES}),
        (without(daemons=None), SERVICES),
        (without(pci=None, nvswitches=None), BY_BUS),
        (without(pci=None), BY_BUS),
        (without(ports=None), BY_PORTS),
        (without(modules=None), {Check.PEER_MEMORY}),
        ({"host": HostFacts()}, BY_BUS | BY_PORTS | SERVICES),
        ({"host": None}, BY_BUS | BY_PORTS | SERVICES),
    ],
    ids=["hung", "log", "kubelet", "pids", "services", "bus", "no GPU on the bus", "ports", "modules", "host", "none"],
)
def test_a_silent_source_takes_down_those_that_need_it_and_no_others(
    silent: dict[str, object], down: set[Check]
) -> None:
    node = Node()
    before = node.look()
    assert {check for check, standing in before.items() if standing.up} == set(Check)
    assert node.down(**silent) == down
    after = dict(node.assessor.standings.all())
    for check in down:
        assert (after[check].last_success or 0) <= node.now - 10, "it stays where the source fell silent"
    for check in set(Check) - down:
        assert after[check].last_success == (before[check].last_success or 0) + 10
    assert node.down() == set(), "it speaks again"


def test_before_the_first_look_nobody_can_judge() -> None:
    assessor = Assessor(agent=AgentInfo(version="1", node_name="n"), checks=all_checks(10.0))
    assert set(assessor.standings.all()) == {(check, Standing(False, None)) for check in Check}


def test_the_last_success_is_that_of_the_source_that_lags() -> None:
    standing = Node().look()[Check.GPU_COUNT]
    assert standing == Standing(True, START + 20 - 2), "the kubelet answered 2 s ago, the bus was seen 1 s ago"


def test_a_driver_that_lists_no_gpu_has_answered() -> None:
    assert Node().down(fault=Capability.NO_GPUS) == set()
    assert Node().down(gpus=(), **without(pci=None)) == set(), "nor does the bus show one"


def test_a_kubelet_that_is_not_to_be_asked_is_not_missing() -> None:
    assert Node().down(usage={"pods": None, "pods_at": None}) == set()


def test_what_is_missing_has_its_reason_in_the_report() -> None:
    node = Node()
    node.look(fault=Capability.DRIVER_HUNG, log="x", usage={"pods": None, "pods_problem": "y", "owners_problem": "z"})
    report = node.assessor.report(node.now)
    assert report is not None
    assert {gap.reason for gap in report.capabilities} == {
        Capability.DRIVER_HUNG, Capability.NO_KERNEL_LOG, Capability.NO_POD_RESOURCES, Capability.NO_HOST_PIDS
    }  # fmt: skip


def test_every_fault_of_the_matrix_needs_its_source() -> None:
    """A Warning that only kernel lines or only the host can raise: without them its check must not be called up."""
    needs = {check: Witness(0) for check in Check}
    for check in all_checks(10.0):
        needs[check.name] |= check.needs
    told_twice = {Check.GPU_LOST}  # NVML says it as well.
    loud = [fault for fault in kernel_faults.ALL if fault.expect.severity is not Severity.INFO]
    by_line = {fault.expect.check for fault in loud} - told_twice
    assert {check for check in by_line if Witness.KERNEL_LOG not in needs[check]} == set()
    host = Witness.PCI_BUS | Witness.PORTS | Witness.MODULES | Witness.DAEMONS
    by_host = {fault.expect.check for fault in host_faults.ALL if fault.expect.severity is not Severity.INFO}
    assert {check for check in by_host if not needs[check] & host} == set()


class Broken(Memoryless):
    """A check that breaks with every judgement."""

    name = Check.XID
    needs = Witness.LOOK

    def judge(self, view: View) -> list[Problem]:
        raise KeyError(view.now)


async def test_an_agent_that_fails_calls_no_check_up() -> None:
    clock, broken = ManualClock(), Broken()
    assessor = Assessor(agent=AgentInfo(version="1", node_name="n"), checks=(broken,))

    class Source:
        async def sample(self) -> Sample:
            return Sample(taken_at=clock.now(), gpus=(GPU,))

        async def close(self) -> None: ...

    sampler = Sampler(source=Source(), assessor=assessor, publisher=Publisher(), clock=clock, interval=10)
    await sampler.fresh()
    assert dict(assessor.standings.all())[Check.XID] == Standing(False, clock.now())


def test_the_page_has_one_series_per_check_and_no_more() -> None:
    node = Node()
    node.look(log="cannot be read")
    metrics = Metrics(assessor=node.assessor, publisher=Publisher(), clock=ManualClock(), lost_records=lambda: 0)
    page = {
        (sample.name, sample.labels["check"]): sample.value
        for family in text_string_to_metric_families(metrics.page().decode())
        for sample in family.samples
        if "check" in sample.labels
    }
    assert len(page) == 2 * len(Check)
    assert page["gpudiag_agent_check_up", "XID"] == 0
    assert page["gpudiag_agent_check_up", "Temperature"] == 1
    assert page["gpudiag_agent_check_last_success_timestamp_seconds", "XID"] == START + 10
    assert page["gpudiag_agent_check_last_success_timestamp_seconds", "Temperature"] == START + 20
