"""Play one fault on one machine, from healthy to healthy, and say in one sentence what went wrong."""

from collections.abc import Iterable

import msgspec

from gpudiag_agent.host.facts import HostFacts
from gpudiag_api import documentation, pci
from gpudiag_api.vocabulary import Health
from gpudiag_api.wire import Finding, Report, Subject

from .machines import Machine
from .model import Clear, Expect, Fault
from .node import INTERVAL, Node, usual_host


class RecallError(AssertionError):
    """A fault was missed, named wrongly, seen on the wrong GPU, or did not go away."""


def play(fault: Fault, machine: Machine) -> Finding:
    """Inject the fault, judge the report, clear it in every way that it can be cleared in.

    Returns:
        What was said.

    Raises:
        RecallError: not what the table says.
    """
    node, found = _raised(fault, machine)
    if fault.standing:
        node.sample = machine.healed(fault)
        _is(node.looks(fault.standing), found, stands=True, when=f"{fault.standing:g} s of silence later")
    for number, clear in enumerate(fault.clears):
        if number:
            node, found = _raised(fault, machine)
        _cleared(node, fault, machine, clear, found)
    return found


def _raised(fault: Fault, machine: Machine) -> tuple[Node, Finding]:
    node = Node(machine.healthy(fault))
    node.host = _healthy_host(fault, machine)
    _quiet(node.look(), "before the fault")
    _quiet(node.look(), "before the fault")
    report = _inject(node, fault, machine)
    return node, _judged(report, fault.expect, machine)


def _healthy_host(fault: Fault, machine: Machine) -> HostFacts:
    usual = usual_host(machine.busy)
    return usual if fault.host_before is None else fault.host_before(usual)


def _inject(node: Node, fault: Fault, machine: Machine) -> Report:
    gpu = machine.gpu
    if fault.owners is not None:
        node.owners = fault.owners(gpu)
    if fault.host is not None:
        node.host = fault.host(node.host)
    node.sample = machine.faulty.get(fault.name, node.sample)
    report = node.report()
    if fault.story is not None:
        fault.story(node, gpu.pci)
        return node.report()
    if fault.lines:
        if fault.host is not None:
            node.look()
        report = node.hear(*spoken(fault.lines, gpu.pci))
        if not fault.reading:
            return report
    report = node.look()
    if fault.after:
        half = max(0.0, fault.after / 2 - INTERVAL)
        report = node.looks(half)
        if not fault.earlier:
            _quiet(report, f"{half:g} s into a fault that must last")
        # A second more: no look falls on the very end.
        report = node.looks(fault.after - half + 1)
    return report


def spoken(lines: Iterable[str], address: str) -> list[str]:
    """Lines about the GPU at that address, as the driver writes it."""
    return [line.replace("{pci}", address).replace("{bus}", pci.slot(address)) for line in lines]


def _judged(report: Report, expect: Expect, machine: Machine) -> Finding:
    said = [(str(finding.check), finding.reason) for finding in report.findings]
    matching = [f for f in report.findings if (f.check, f.reason) == (expect.check, expect.reason)]
    if expect.others:
        matching = [f for f in matching if f.subject.gpu_index == machine.target]
    if len(matching) != 1:
        raise RecallError(f"expected one {expect.check}/{expect.reason}, the report says {said or 'nothing'}")
    found = matching[0]
    judged = (found.severity, found.blame, found.action)
    if judged != (expect.severity, expect.blame, expect.action):
        raise RecallError(f"judged {'/'.join(judged)}, not {expect.severity}/{expect.blame}/{expect.action}")
    _about(found.subject, expect, machine)
    others = {f.reason for f in report.findings if f is not found and not (expect.others and f.reason == found.reason)}
    if others != set(expect.also):
        raise RecallError(f"beside {found.reason}: {sorted(others)}, expected {sorted(expect.also)}")
    if found.documentation != documentation.of(expect.check) or not found.evidence:
        raise RecallError("a finding has evidence and a page")
    _neighbours(report, expect, found, machine)
    return found


def _about(subject: Subject, expect: Expect, machine: Machine) -> None:
    gpu = machine.gpu
    wanted = Subject(
        link=expect.link, mig_gpu_instance=expect.gpu_instance, mig_compute_instance=expect.compute_instance
    )
    if expect.subject == "gpu":
        wanted = msgspec.structs.replace(
            wanted,
            gpu_index=gpu.index,
            gpu_uuid=gpu.uuid,
            pci=pci.normalise(gpu.pci),
            serial=gpu.serial or None,
        )
    elif expect.subject not in {"node", "link"}:
        wanted = msgspec.structs.replace(wanted, pci=expect.subject)
    if subject != wanted:
        raise RecallError(f"about {subject}, not about {wanted}")


def _neighbours(report: Report, expect: Expect, found: Finding, machine: Machine) -> None:
    if expect.capability is not None:
        return
    if len(report.gpus) != len(machine.busy.gpus):
        raise RecallError(f"{len(report.gpus)} GPUs reported, {len(machine.busy.gpus)} are there")
    for gpu in report.gpus:
        own = gpu.index == machine.target and expect.subject == "gpu"
        if not own and not expect.others and gpu.health is not Health.HEALTHY:
            raise RecallError(f"neighbour GPU {gpu.index} is {gpu.health}")
        if own and not expect.also and gpu.health is not (expect.health or found.severity.health):
            raise RecallError(f"the GPU is {gpu.health}, its finding {found.severity}")


def _cleared(node: Node, fault: Fault, machine: Machine, clear: Clear, found: Finding) -> None:
    if clear.healed:
        node.sample, node.owners, node.host = machine.healed(fault), {}, _healthy_host(fault, machine)
    if clear.lines:
        _is(node.hear(*spoken(clear.lines, machine.gpu.pci)), found, stands=False, when=clear.words)
    if clear.reloaded:
        node.without_driver()
    if clear.reboot:
        node.reboot()
    report = node.look()
    if clear.after > INTERVAL:
        _is(report, found, stands=True, when="one look after it")
        _is(node.looks(clear.after / 2), found, stands=True, when=f"half of: {clear.words}")
        report = node.looks(clear.after / 2 + 2 * INTERVAL)
    _quiet(report, f"after: {clear.words}")


def _is(report: Report, found: Finding, *, stands: bool, when: str) -> None:
    there = any((f.check, f.reason, f.subject) == (found.check, found.reason, found.subject) for f in report.findings)
    if there is not stands:
        raise RecallError(f"{found.reason} is {'gone' if stands else 'still there'}: {when}")


def _quiet(report: Report, when: str) -> None:
    if report.findings:
        raise RecallError(f"{when}: {[f'{finding.check}/{finding.reason}' for finding in report.findings]}")
