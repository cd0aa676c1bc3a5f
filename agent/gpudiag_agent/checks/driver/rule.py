"""What keeps the agent from seeing. Always Info: the agent's blindness is no fault of a GPU.

| what | finding | cleared by |
|---|---|---|
| the source gave nothing | the capability's word (DriverHung, NoDriver …) | the next sample that is read |
| no GPU and no reason | NoGPUs | a GPU |
| a GPU gives no reading at all | GPUNotReadable | the first reading |
| a call that is vital (``feeds``) failed in two samples in a row | ReadFailed | one sample without |
| another call that a check needs failed in two samples in a row | GPUPartlyReadable | one sample without |
| the same of a call about the node | NodePartlyReadable | one sample without |

The GPUs concerned become Unknown (see ``assess``), but where they are partly readable: checks that cannot judge are
named then. A failure that happens once changes nothing, and what a driver does not support is no failure.
"""

from collections.abc import Iterable, Sequence

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.driver import feeds
from gpudiag_agent.checks.inforom.rule import NVML_ERROR_CORRUPTED_INFOROM
from gpudiag_agent.checks.power.rule import NVML_ERROR_INSUFFICIENT_POWER
from gpudiag_agent.sample import NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED, CallError, GPUSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Capability, Check, Severity
from gpudiag_api.wire import Subject

_ADVICE = {
    Capability.NO_LIBRARY: (Blame.ENVIRONMENT, Action.NONE),
    Capability.NO_DRIVER: (Blame.DRIVER, Action.UPDATE_DRIVER),
    # The library on disk is newer than the module in the kernel: until it is loaded again, nothing helps.
    Capability.DRIVER_MISMATCH: (Blame.DRIVER, Action.REBOOT_NODE),
    Capability.PERMISSION_DENIED: (Blame.ENVIRONMENT, Action.NONE),
    Capability.NO_GPUS: (Blame.UNKNOWN, Action.NONE),
    Capability.DRIVER_HUNG: (Blame.DRIVER, Action.REBOOT_NODE),
}
_NO_PERMISSION = 4
_SPOKEN_FOR = frozenset({NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED})
"""Errors that the GPULost check judges."""
_EXPLAINED = _SPOKEN_FOR | {NVML_ERROR_INSUFFICIENT_POWER, NVML_ERROR_CORRUPTED_INFOROM}
"""Errors that a check judges, whatever was asked: nothing needs to be said about a call that is not vital."""

_SHOWN = 6
_NODE = ""
"""Stands for the node where GPUs are told by UUID, which is never empty."""

NO_GPUS_MESSAGE = "The driver answers and lists no GPU."


class Driver:
    """See the module."""

    name = Check.DRIVER
    needs = Witness.LOOK

    def __init__(self) -> None:
        self._failing: dict[str, frozenset[str]] = {}
        """GPU → calls that failed in the last sample."""
        self._lasting: dict[str, frozenset[str]] = {}
        """GPU → those that had failed in the one before as well."""

    def observe(self, sample: Sample) -> None:
        """Remember which calls failed, and which of them again."""
        if sample.fault is not None:
            return
        failing = {gpu.uuid: _calls(gpu.errors + gpu.unread) for gpu in sample.gpus}
        failing[_NODE] = _calls(sample.unread)
        self._lasting = {uuid: calls & self._failing.get(uuid, frozenset()) for uuid, calls in failing.items()}
        self._failing = failing

    def judge(self, view: View) -> Iterable[Problem]:
        """Why something could not be seen."""
        fault = view.sample.fault
        if fault is not None:
            return [_blind(fault.reason, fault.message)]
        if not view.sample.gpus:
            return [_blind(Capability.NO_GPUS, NO_GPUS_MESSAGE)]
        return [*self._node(view.sample), *(problem for gpu in view.sample.gpus for problem in self._reads(gpu))]

    def _node(self, sample: Sample) -> list[Problem]:
        lasting = self._lasting.get(_NODE, frozenset())
        failures = [error for error in sample.unread if error.call in lasting]
        return [_unread(Subject(), "NodePartlyReadable", _blind_checks(failures), failures)] if failures else []

    def _reads(self, gpu: GPUSample) -> list[Problem]:
        silent = unreadable(gpu)
        lasting = self._lasting.get(gpu.uuid, frozenset())
        failures = [error for error in gpu.errors + gpu.unread if silent or error.call in lasting]
        failures = [error for error in failures if error.code not in _SPOKEN_FOR]
        if silent and failures:
            return [_unread(subject_of(gpu), "GPUNotReadable", "its health cannot be told", failures)]
        vital = [error for error in failures if error.call in feeds.VITAL]
        others = [error for error in failures if error.call in feeds.OTHERS and error.code not in _EXPLAINED]
        problems = []
        if vital:
            words = f"its health cannot be told, since {_blind_checks(vital)}"
            problems.append(_unread(subject_of(gpu), "ReadFailed", words, vital))
        if others:
            problems.append(_unread(subject_of(gpu), "GPUPartlyReadable", _blind_checks(others), others))
        return problems


def _calls(errors: Iterable[CallError]) -> frozenset[str]:
    return frozenset(error.call for error in errors)


def _blind_checks(failures: Iterable[CallError]) -> str:
    """What cannot be judged, as a clause: for example "PCIeLink cannot be judged"."""
    names = sorted({str(check) for error in failures for check in feeds.checks(error.call)})
    return f"{', '.join(names)} cannot be judged" if names else "its readings are incomplete"


def _unread(subject: Subject, reason: str, words: str, failures: Sequence[CallError]) -> Problem:
    who = "the node" if subject == Subject() else say(subject)
    refused = all(error.code == _NO_PERMISSION for error in failures)
    advice = " Run the agent as root, in a container privileged." if refused else ""
    calls = sorted({f"{error.call}: {error.name}" for error in failures})
    return Problem(
        check=Check.DRIVER,
        reason=reason,
        severity=Severity.INFO,
        blame=Blame.ENVIRONMENT if refused else Blame.UNKNOWN,
        action=Action.NONE,
        message=f"{who}: {words}: NVML calls fail ({_some(calls)}).{advice}",
        subject=subject,
        evidence=tuple(evidence(error.call, error.name) for error in failures[:16]),
    )


def _some(calls: Sequence[str]) -> str:
    left = len(calls) - _SHOWN
    return ", ".join(calls[:_SHOWN]) + (f" and {left} more" if left > 0 else "")


def unreadable(gpu: GPUSample) -> bool:
    """Whether a GPU gives no reading that a check could judge, although it should."""
    readings = (
        gpu.temperature_celsius,
        gpu.power_milliwatts,
        gpu.memory_used_bytes,
        gpu.ecc_uncorrected_volatile,
        gpu.clock_event_reasons,
    )
    return bool(gpu.errors) and all(reading is None for reading in readings)


def _blind(reason: Capability, message: str) -> Problem:
    blame, action = _ADVICE.get(reason, (Blame.UNKNOWN, Action.NONE))
    return Problem(
        check=Check.DRIVER,
        reason=str(reason),
        severity=Severity.INFO,
        blame=blame,
        action=action,
        message=message,
        evidence=(evidence("capability", reason),),
    )
