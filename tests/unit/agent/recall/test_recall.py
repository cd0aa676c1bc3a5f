"""Every fault that the facts name, on every machine that can have it: said, on the right GPU, in the right words, and
gone when it is over. The table is in ``gpu_faults`` and ``kernel_faults``, the page of it is ``docs/fault-matrix.md``.
"""

import msgspec
import pytest

from gpudiag_api import pci
from gpudiag_api.vocabulary import Check, Health, Severity

from . import table, xid_codes
from .machines import Machine
from .model import Fault
from .node import Node
from .play import RecallError, play, spoken

pytestmark = pytest.mark.untraced
NAMED = {fault.name: fault for fault in table.FAULTS}


@pytest.mark.parametrize("name", NAMED)
def test_it_is_found_and_clears(name: str) -> None:
    _play(NAMED[name], table.quick(NAMED[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_on_every_machine_that_can_have_it(name: str) -> None:
    _play(NAMED[name], table.able(NAMED[name]))


def _play(fault: Fault, machines: list[str]) -> None:
    wrong = {}
    for name in machines:
        try:
            play(fault, table.machine(name))
        except RecallError as error:
            wrong[name] = str(error)
    assert wrong == {}


def test_no_row_is_dead() -> None:
    assert len(NAMED) == len(table.FAULTS), "names are unique"
    for fault in table.FAULTS:
        assert fault.clears, f"{fault.name}: every finding ends"
        assert table.quick(fault), f"{fault.name}: no machine can have it"


class TestCodes:
    def test_all_of_them_are_here(self) -> None:
        assert sorted({*xid_codes.EXPECTED, *xid_codes.NOTES, xid_codes.LOST}) == list(range(1, 177))
        assert not xid_codes.NOTES & set(xid_codes.EXPECTED)

    @pytest.mark.parametrize("name", ["t4-1", "gb200-4"])
    def test_each_alone(self, name: str) -> None:
        machine = table.healthy(name)
        wrong = {}
        for code in range(1, 177):
            node = Node(machine.busy)
            node.look()
            report = node.hear(
                *spoken([f"NVRM: Xid (PCI:{{bus}}): {code}, pid=4242, name=python3, words"], machine.gpu.pci)
            )
            said = [(f.check, f.reason, f.severity, f.blame, f.action, f.subject.gpu_uuid) for f in report.findings]
            expected = []
            if code == xid_codes.LOST:
                expected = [(Check.GPU_LOST, "GPULost", "Critical", "Hardware", "RebootNode", machine.gpu.uuid)]
            elif code in xid_codes.EXPECTED:
                expected = [(Check.XID, f"XID{code}", *xid_codes.EXPECTED[code], machine.gpu.uuid)]
            if said != expected or [event.code for event in report.xids] != [code]:
                wrong[code] = said
        assert wrong == {}


def test_two_at_once_beside_a_lost_gpu() -> None:
    """Each is said of its own GPU, whatever is wrong with the others."""
    machine = table.machine("h100-8")
    once = [
        fault
        for fault in table.FAULTS
        if fault.name in machine.faulty
        and not (fault.after or fault.before or fault.lines or fault.expect.also)
        and fault.expect.subject == "gpu"
    ]
    assert len(once) > 30
    for place, one in enumerate(once):
        _together(machine, one, once[(place + 7) % len(once)])


def _together(machine: Machine, one: Fault, other: Fault) -> None:
    node = Node(machine.busy)
    node.look()
    gpus = list(machine.busy.gpus)
    lost = machine.faulty["NVML says GPU_IS_LOST (15)"].gpus[machine.target]
    expected = {(machine.target, "GPULost", Severity.CRITICAL)}
    for index, fault in ((2, one), (5, other)):
        was, ill = gpus[index], machine.faulty[fault.name].gpus[machine.target]
        gpus[index] = msgspec.structs.replace(ill, index=index, uuid=was.uuid, pci=was.pci, serial=was.serial)
        expected.add((index, fault.expect.reason, fault.expect.severity))
    gpus[machine.target] = lost
    node.sample = msgspec.structs.replace(machine.busy, gpus=tuple(gpus))
    report = node.look()
    assert {(f.subject.gpu_index, f.reason, f.severity) for f in report.findings} == expected, (one.name, other.name)
    healthy = {gpu.index for gpu in report.gpus if gpu.health is Health.HEALTHY}
    assert healthy >= {0, 3, 4, 6, 7}
    assert machine.target not in healthy


def test_a_gpu_that_is_no_longer_listed_is_named() -> None:
    machine = table.healthy("h100-8")
    node = Node(machine.busy)
    node.look()
    gone = machine.busy.gpus[-1]
    node.sample = msgspec.structs.replace(machine.busy, gpus=machine.busy.gpus[:-1])
    report = node.look()
    (lost,) = [finding for finding in report.findings if finding.reason == "GPULost"]
    assert (lost.subject.gpu_uuid, lost.subject.pci) == (gone.uuid, pci.normalise(gone.pci))
    assert [gpu.health for gpu in report.gpus] == [Health.HEALTHY] * 7 + [Health.UNHEALTHY]


def test_every_check_has_a_row() -> None:
    assert set(Check) - {fault.expect.check for fault in table.FAULTS} == set()
