"""What keeps the agent from seeing. Always Info: the agent's blindness is no fault of a GPU.

| what | finding | cleared by |
|---|---|---|
| the source gave nothing | the capability's word (DriverHung, NoDriver …) | the next sample that is read |
| no GPU and no reason | NoGPUs | a GPU |
| a GPU gives no reading at all | GPUNotReadable | the first reading |
| a call that a check needs failed in two samples in a row | ReadFailed | one sample without |

The GPUs concerned become Unknown (see ``assess``); a failure that happens once changes nothing.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, evidence, say, subject_of
from gpudiag_agent.sample import NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED, CallError, GPUSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Capability, Check, Severity

_ADVICE = {
    Capability.NO_LIBRARY: (Blame.ENVIRONMENT, Action.NONE),
    Capability.NO_DRIVER: (Blame.DRIVER, Action.UPDATE_DRIVER),
    # The library on disk is newer than the module in the kernel: until it is loaded again, nothing helps.
    Capability.DRIVER_MISMATCH: (Blame.DRIVER, Action.REBOOT_NODE),
    Capability.PERMISSION_DENIED: (Blame.ENVIRONMENT, Action.NONE),
    Capability.NO_GPUS: (Blame.UNKNOWN, Action.NONE),
    Capability.DRIVER_HUNG: (Blame.DRIVER, Action.REBOOT_NODE),
}
_JUDGED = ("Handle", "UUID", "PciInfo", "Temperature", "Ecc", "Remapped", "ClocksEventReasons", "FieldValues")
"""Parts of the names of NVML functions whose answers the checks need. A serial number is not among them."""
_SPOKEN_FOR = frozenset({NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED})
"""Errors that the GPULost check judges."""

NO_GPUS_MESSAGE = "The driver answers and lists no GPU."


class Driver:
    """See the module."""

    name = Check.DRIVER

    def __init__(self) -> None:
        self._failing: dict[str, tuple[int, frozenset[str]]] = {}

    def observe(self, sample: Sample) -> None:
        """Count the samples in a row in which the same call failed."""
        if sample.fault is not None:
            return
        failing = {}
        for gpu in sample.gpus:
            calls = frozenset(error.call for error in _failures(gpu))
            before, calls_before = self._failing.get(gpu.uuid, (0, calls))
            if calls & calls_before:
                failing[gpu.uuid] = (before + 1, calls)
            elif calls:
                failing[gpu.uuid] = (1, calls)
        self._failing = failing

    def judge(self, view: View) -> Iterable[Problem]:
        """Why something could not be seen."""
        fault = view.sample.fault
        if fault is not None:
            return [_blind(fault.reason, fault.message)]
        if not view.sample.gpus:
            return [_blind(Capability.NO_GPUS, NO_GPUS_MESSAGE)]
        return [problem for gpu in view.sample.gpus for problem in self._reads(gpu)]

    def _reads(self, gpu: GPUSample) -> list[Problem]:
        failures = _failures(gpu)
        if not failures:
            return []
        silent = unreadable(gpu)
        if not silent and self._failing.get(gpu.uuid, (0, frozenset()))[0] < 2:
            return []
        subject = subject_of(gpu)
        words = ", ".join(sorted({f"{error.call}: {error.name}" for error in failures}))
        return [
            Problem(
                check=Check.DRIVER,
                reason="GPUNotReadable" if silent else "ReadFailed",
                severity=Severity.INFO,
                blame=Blame.UNKNOWN,
                action=Action.NONE,
                message=f"{say(subject)}: its health cannot be told, NVML calls fail ({words}).",
                subject=subject,
                evidence=tuple(evidence(error.call, error.name) for error in failures[:16]),
            )
        ]


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


def _failures(gpu: GPUSample) -> list[CallError]:
    return [
        error for error in gpu.errors if error.code not in _SPOKEN_FOR and any(part in error.call for part in _JUDGED)
    ]


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
