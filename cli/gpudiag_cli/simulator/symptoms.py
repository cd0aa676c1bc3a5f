"""What a healthy agent says about a sick GPU: findings and kernel events for each health fault.

The words are the agent's; the simulator writes them down instead of judging samples, because what is under test
here is everything behind the agent.
"""

from dataclasses import dataclass

from gpudiag_api.times import to_rfc3339
from gpudiag_api.vocabulary import Action, Blame, Capability, Check, Severity
from gpudiag_api.wire import GPU, CapabilityGap, Evidence, Finding, Subject, XIDEvent
from gpudiag_cli.simulator.faults import Fault, Injected


@dataclass(frozen=True, kw_only=True)
class _Symptom:
    """A finding without its place and time."""

    check: Check
    reason: str
    severity: Severity
    blame: Blame
    action: Action
    message: str
    """``{gpu}`` stands for the index."""
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Line:
    """An XID in the kernel log, without its place and time."""

    code: int
    name: str
    severity: Severity
    blame: Blame
    action: Action
    message: str


_LOST = _Symptom(
    check=Check.GPU_LOST,
    reason="GPULost",
    severity=Severity.CRITICAL,
    blame=Blame.HARDWARE,
    action=Action.REBOOT_NODE,
    message="GPU {gpu} no longer answers: the driver reports it as lost.",
    evidence=(Evidence(name="nvml", value="ERROR_GPU_IS_LOST"),),
)

_SYMPTOMS: dict[Fault, _Symptom] = {
    Fault.XID_79: _LOST,
    Fault.GPU_LOST: _LOST,
    Fault.ECC: _Symptom(
        check=Check.ECC_UNCORRECTABLE,
        reason="UncorrectableErrors",
        severity=Severity.CRITICAL,
        blame=Blame.HARDWARE,
        action=Action.DRAIN_AND_RESET_GPU,
        message="GPU {gpu} counts 2 uncorrectable memory errors since the driver was loaded.",
        evidence=(Evidence(name="eccUncorrectedVolatile", value="2", threshold="0"),),
    ),
    Fault.ROW_REMAP_PENDING: _Symptom(
        check=Check.ROW_REMAP,
        reason="RemapPending",
        severity=Severity.WARNING,
        blame=Blame.HARDWARE,
        action=Action.RESET_GPU_WHEN_IDLE,
        message="GPU {gpu} has a memory row that a reset will replace.",
        evidence=(Evidence(name="remapPending", value="true"),),
    ),
    Fault.ROW_REMAP_FAILED: _Symptom(
        check=Check.ROW_REMAP,
        reason="RemapFailed",
        severity=Severity.CRITICAL,
        blame=Blame.HARDWARE,
        action=Action.REPLACE_GPU,
        message="GPU {gpu} has no spare memory row left for a bad one.",
        evidence=(Evidence(name="remapFailure", value="true"),),
    ),
    Fault.HOT: _Symptom(
        check=Check.TEMPERATURE,
        reason="Overheating",
        severity=Severity.WARNING,
        blame=Blame.ENVIRONMENT,
        action=Action.CHECK_COOLING,
        message="GPU {gpu} is at 88 °C; it slows down from 87 °C.",
        evidence=(Evidence(name="temperature", value="88", threshold="87", unit="C"),),
    ),
    Fault.THROTTLED: _Symptom(
        check=Check.THROTTLING,
        reason="PowerBrake",
        severity=Severity.WARNING,
        blame=Blame.ENVIRONMENT,
        action=Action.CHECK_POWER,
        message="GPU {gpu} is held back by the power brake.",
        evidence=(Evidence(name="clockEventReasons", value="0x80"),),
    ),
}

_LINES: dict[Fault, _Line] = {
    Fault.XID_79: _Line(
        code=79,
        name="GPU_HAS_FALLEN_OFF_THE_BUS",
        severity=Severity.CRITICAL,
        blame=Blame.HARDWARE,
        action=Action.REBOOT_NODE,
        message="GPU has fallen off the bus.",
    ),
    Fault.XID_48: _Line(
        code=48,
        name="GPU_ECC_DBE",
        severity=Severity.CRITICAL,
        blame=Blame.HARDWARE,
        action=Action.DRAIN_AND_RESET_GPU,
        message="DBE (double bit error) on partition 3, subpartition 1",
    ),
    Fault.XID_31: _Line(
        code=31,
        name="FIFO_ERROR_MMU_ERR_FLT",
        severity=Severity.INFO,
        blame=Blame.APPLICATION,
        action=Action.CHECK_APPLICATION,
        message="MMU Fault: ENGINE GRAPHICS faulted. Fault is of type FAULT_PDE ACCESS_TYPE_READ",
    ),
}

_GAPS = {
    Fault.DRIVER_HUNG: CapabilityGap(
        reason=Capability.DRIVER_HUNG, message="NVML did not answer within 10 s; the driver hangs. Reboot the node."
    ),
    Fault.NO_DRIVER: CapabilityGap(
        reason=Capability.NO_DRIVER, message="nvmlInit failed with 9: the NVIDIA kernel module is not loaded."
    ),
    Fault.NO_KERNEL_LOG: CapabilityGap(
        reason=Capability.NO_KERNEL_LOG,
        message="/dev/kmsg: permission denied; XIDs are not seen. Run the agent privileged.",
    ),
}


def findings(injected: Injected, gpus: tuple[GPU, ...]) -> tuple[Finding, ...]:
    """What the checks find because of one fault."""
    if injected.fault is Fault.NO_KERNEL_LOG:
        return ()
    if injected.fault in _GAPS:
        return (_driver_finding(injected),)
    subject = _subject(gpus[injected.gpu])
    found = []
    symptom = _SYMPTOMS.get(injected.fault)
    if symptom:
        found.append(_finding(symptom, injected, subject))
    line = _LINES.get(injected.fault)
    # Of a lost GPU the check for lost GPUs speaks, whichever witness it has.
    if line and symptom is not _LOST:
        what = _Symptom(
            check=Check.XID,
            reason=f"XID{line.code}",
            severity=line.severity,
            blame=line.blame,
            action=line.action,
            message=f"XID {line.code} on GPU {{gpu}}: {line.message}",
            evidence=(Evidence(name="xid", value=str(line.code)),),
        )
        found.append(_finding(what, injected, subject))
    return tuple(found)


def xids(injected: Injected, gpus: tuple[GPU, ...], boot: str) -> tuple[XIDEvent, ...]:
    """The kernel events that come with one fault."""
    line = _LINES.get(injected.fault)
    if line is None:
        return ()
    when = to_rfc3339(injected.since)
    return (
        XIDEvent(
            # The moment stands for the sequence number: it too grows, and tells two injections apart.
            id=f"{boot}/{int(injected.since * 1000)}",
            code=line.code,
            name=line.name,
            severity=line.severity,
            blame=line.blame,
            action=line.action,
            message=line.message,
            subject=_subject(gpus[injected.gpu]),
            first_seen=when,
            last_seen=when,
        ),
    )


def gap(injected: Injected) -> CapabilityGap | None:
    """What the agent can no longer do because of one fault."""
    return _GAPS.get(injected.fault)


def _driver_finding(injected: Injected) -> Finding:
    capability = _GAPS[injected.fault]
    action = Action.UPDATE_DRIVER if injected.fault is Fault.NO_DRIVER else Action.REBOOT_NODE
    when = to_rfc3339(injected.since)
    return Finding(
        check=Check.DRIVER,
        reason=str(capability.reason),
        severity=Severity.INFO,
        blame=Blame.DRIVER,
        action=action,
        message=capability.message,
        first_seen=when,
        last_seen=when,
    )


def _finding(symptom: _Symptom, injected: Injected, subject: Subject) -> Finding:
    when = to_rfc3339(injected.since)
    return Finding(
        check=symptom.check,
        reason=symptom.reason,
        severity=symptom.severity,
        blame=symptom.blame,
        action=symptom.action,
        message=symptom.message.format(gpu=injected.gpu),
        subject=subject,
        evidence=symptom.evidence,
        first_seen=when,
        last_seen=when,
    )


def _subject(gpu: GPU) -> Subject:
    return Subject(gpu_index=gpu.index, gpu_uuid=gpu.uuid, pci=gpu.pci, serial=gpu.serial)
