"""Kernel lines without an XID as findings.

| line | finding | severity | cleared by |
|---|---|---|---|
| RmInitAdapter failed | AdapterInit/AdapterInitFailed | Critical | the GPU answers; driver loaded anew; reboot |
| probe routine failed | AdapterInit/GPUNotProbed | Warning | driver loaded anew; reboot; all on the PCI bus are bound |
| probe routine not called | AdapterInit/GPUNotProbed | Warning; Info where another driver has them | as above |
| Rate limiting GSP RPC | GSP/GSPErrorStorm | Critical | recovery (see the ledger); driver loaded anew; reboot |
| API mismatch | Driver/ClientVersionMismatch | Info: one process is wrong, not the GPU | an hour without one |
| NVLink training failed | NVLink/LinkTrainingFailed | Warning | driver loaded anew; reboot |
| nvidia-peermem: invalid context | PeerMemory/InvalidContext | Info | an hour without one |

A driver whose own library does not match is the Driver check's business: NVML says so itself. A crash within NCCL is
kept among the lines and is no finding: it is the application's.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Memoryless, Problem, View, Witness, evidence, say
from gpudiag_agent.checks.kernel.signals import HeldSignal
from gpudiag_agent.kernel_log.signals import (
    AdapterInitLine,
    MismatchLine,
    NotProbedLine,
    PeerMemoryLine,
    RateLimitLine,
    TrainingLine,
)
from gpudiag_api.vocabulary import Action, Blame, Check, Severity
from gpudiag_api.wire import Evidence, Subject

SPAN = 3600.0
"""Seconds after which a process's trouble is over."""


class AdapterInit(Memoryless):
    """GPUs that the driver could not initialise, or was not given."""

    name = Check.ADAPTER_INIT
    needs = Witness.KERNEL_LOG

    def judge(self, view: View) -> Iterable[Problem]:
        """See the module."""
        for held in view.signals:
            match held.line:
                case AdapterInitLine(status=status):
                    subject = _subject(held, view)
                    yield _problem(
                        held,
                        check=self.name,
                        reason="AdapterInitFailed",
                        severity=Severity.CRITICAL,
                        blame=Blame.HARDWARE,
                        action=Action.REBOOT_NODE,
                        message=f"{say(subject)}: the driver cannot initialise it (RmInitAdapter {status or 'failed'})."
                        " Reset it or reboot the node; if it happens again, have it inspected.",
                        subject=subject,
                        more=(evidence("rmInitAdapter", status or "failed"),),
                    )
                case NotProbedLine(devices=devices, failed=failed):
                    yield from self._not_probed(held, devices, view, failed=failed)

    def _not_probed(self, held: HeldSignal, devices: int, view: View, *, failed: bool) -> Iterable[Problem]:
        bound = None if view.pci is None else [device.driver for device in view.pci]
        if bound is not None and bound and all(driver == "nvidia" for driver in bound):
            return
        elsewhere = not failed and bound is not None and None not in bound
        yield _problem(
            held,
            check=self.name,
            reason="GPUNotProbed",
            severity=Severity.INFO if elsewhere else Severity.WARNING,
            blame=Blame.ENVIRONMENT if not failed else Blame.DRIVER,
            action=Action.NONE if elsewhere else Action.REBOOT_NODE,
            message=f"The driver's probe routine {'failed' if failed else 'was not called'} for {devices} device(s)"
            + (": another driver has them." if elsewhere else ": they are on the bus and cannot be used."),
            more=(evidence("devices", devices, threshold=0),),
        )


class GSP(Memoryless):
    """Storms of errors from the GPU's system processor."""

    name = Check.GSP
    needs = Witness.KERNEL_LOG

    def judge(self, view: View) -> Iterable[Problem]:
        """See the module."""
        for held in view.signals:
            if isinstance(held.line, RateLimitLine):
                subject = _subject(held, view)
                yield _problem(
                    held,
                    check=self.name,
                    reason="GSPErrorStorm",
                    severity=Severity.CRITICAL,
                    blame=Blame.DRIVER,
                    action=Action.DRAIN_AND_RESET_GPU,
                    message=f"{say(subject)}: its system processor fails so often that the driver prints 1 of 30 "
                    "errors. Drain and reset it.",
                    subject=subject,
                )


class ClientVersion(Memoryless):
    """Processes that bring libraries of another driver version."""

    name = Check.DRIVER
    needs = Witness.LOOK

    def judge(self, view: View) -> Iterable[Problem]:
        """See the module; the newest speaks for all."""
        recent = [held for held in view.signals if isinstance(held.line, MismatchLine) and view.now - held.last < SPAN]
        if not recent:
            return
        held = max(recent, key=lambda one: one.last)
        line = held.line
        assert isinstance(line, MismatchLine)
        theirs, ours = line.client_version or "another", line.module_version or "its own"
        yield _problem(
            held,
            check=self.name,
            reason="ClientVersionMismatch",
            severity=Severity.INFO,
            blame=Blame.ENVIRONMENT,
            action=Action.CHECK_APPLICATION,
            message=f"{line.client or 'A process'} (pid {line.process_id}) came with libraries of version {theirs}, "
            f"the kernel module has {ours}: it cannot use the GPUs until they are the same.",
            more=(evidence("clientVersion", theirs, threshold=ours), evidence("processes", len(recent))),
        )


class LinkTraining(Memoryless):
    """NVLinks that did not train; the line names no GPU."""

    name = Check.NVLINK
    needs = Witness.KERNEL_LOG

    def judge(self, view: View) -> Iterable[Problem]:
        """See the module."""
        for held in view.signals:
            if isinstance(held.line, TrainingLine):
                yield _problem(
                    held,
                    check=self.name,
                    reason="LinkTrainingFailed",
                    severity=Severity.WARNING,
                    blame=Blame.HARDWARE,
                    action=Action.REBOOT_NODE,
                    message="NVLinks of this node did not train; the driver does not say which. Reboot the node.",
                )


class PeerMemory(Memoryless):
    """Errors of nvidia-peermem."""

    name = Check.PEER_MEMORY
    needs = Witness.LOOK

    def judge(self, view: View) -> Iterable[Problem]:
        """See the module."""
        for held in view.signals:
            if isinstance(held.line, PeerMemoryLine) and view.now - held.last < SPAN:
                yield _problem(
                    held,
                    check=self.name,
                    reason="InvalidContext",
                    severity=Severity.INFO,
                    blame=Blame.DRIVER,
                    action=Action.NONE,
                    message="nvidia-peermem met an invalid context: a process that used GPUDirect RDMA was ended.",
                )


def _subject(held: HeldSignal, view: View) -> Subject:
    known = view.by_pci.get(held.pci or "")
    return known.subject if known else Subject(pci=held.pci)


def _problem(
    held: HeldSignal,
    *,
    check: Check,
    reason: str,
    severity: Severity,
    blame: Blame,
    action: Action,
    message: str,
    subject: Subject | None = None,
    more: tuple[Evidence, ...] = (),
) -> Problem:
    return Problem(
        check=check,
        reason=reason,
        severity=severity,
        blame=blame,
        action=action,
        message=message,
        subject=subject or Subject(),
        evidence=(*more, evidence("count", held.count)),
        since=held.first,
        until=held.last,
        count=held.count,
    )
