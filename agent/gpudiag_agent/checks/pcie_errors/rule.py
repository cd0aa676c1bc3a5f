"""PCIe errors, by rate (fields 94 and 173 to 183, and the kernel's own count of the GPU's reports, AER).

What the counters hold from before is never judged.

| what | finding | cleared by |
|---|---|---|
| fatal errors: more than ``pcieErrors.fatalPerHour`` (0) | FatalErrors, Critical | an hour without |
| non-fatal ones: more than ``nonFatalPerHour`` (0) | NonFatalErrors, Warning | an hour without |
| replays: more than ``replaysPerMinute`` (8, as DCGM has it) | ReplayRate, Warning | no such minute for 15 minutes |
| correctable ones: more than ``correctablePerHour`` (1000) | CorrectableErrors, Info | no such hour for two hours |

Driver and kernel count the same errors: the larger growth counts. Fatal ones are the driver's to tell, as a reset of
the GPU looks like one to the kernel. A reboot clears all findings. Unsupported requests are what probing software
makes; hardware counts them as non-fatal errors too, so they are subtracted. Power management (recoveries from L0) and
NAKs are how a link works. A counter that fell is a reset and raises nothing.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.counters import HOUR, MINUTE, Counters
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_agent.thresholds import PCIeErrorLimits
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

_REPLAYS, _CORRECTABLE = "pcie.replays", "pcie.correctable"
_FATAL, _NON_FATAL, _UNSUPPORTED = "pcie.fatal", "pcie.non_fatal", "pcie.unsupported_request"
_FOLLOWED = ("correctable", "non_fatal", "fatal", "unsupported_request")
_AER = "aer."
"""Before the name of what the kernel counts: another counter, that starts elsewhere."""
_CALM = 15 * MINUTE
_ADVICE = "Reseat the GPU, or check riser, slot and cables."


class PCIeErrors:
    """See the module.

    Args:
        counters: shared by all checks.
    """

    name = Check.PCIE_ERRORS
    needs = Witness.NVML | Witness.PCI_BUS

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def observe(self, sample: Sample) -> None:
        """Follow the counters."""
        reported = {device.pci: device.errors for device in sample.host.pci or ()}
        for gpu in sample.gpus:
            if gpu.pcie is not None:
                errors: dict[str, int | None] = {f"pcie.{name}": gpu.pcie.errors.get(name) for name in _FOLLOWED}
                self._counters.observe(gpu.uuid, {_REPLAYS: gpu.pcie.replays, **errors}, sample.taken_at)
            if gpu.pci in reported:
                kernel = {_AER + f"pcie.{name}": count for name, count in reported[gpu.pci].items()}
                self._counters.observe(gpu.uuid, kernel, sample.taken_at)

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs whose link makes errors now."""
        for gpu in view.sample.gpus:
            if gpu.pcie is not None or gpu.incomplete:
                yield from self._link(gpu, view.thresholds.pcie_errors)

    def _link(self, gpu: GPUSample, limits: PCIeErrorLimits) -> Iterable[Problem]:
        fatal = self._grown(gpu, _FATAL)
        if fatal > limits.fatal_per_hour:
            words = f"{fatal} fatal PCIe errors within an hour. {_ADVICE}"
            yield _problem(
                gpu, "FatalErrors", Severity.CRITICAL, words, ("fatalErrors", fatal, limits.fatal_per_hour, "errors/h")
            )
        non_fatal = max(
            self._grown(gpu, source + _NON_FATAL) - self._grown(gpu, source + _UNSUPPORTED) for source in ("", _AER)
        )
        if non_fatal > limits.non_fatal_per_hour:
            words = f"{non_fatal} uncorrectable, non-fatal PCIe errors within an hour. {_ADVICE}"
            shown = ("nonFatalErrors", non_fatal, limits.non_fatal_per_hour, "errors/h")
            yield _problem(gpu, "NonFatalErrors", Severity.WARNING, words, shown)
        replays = self._counters.worst(gpu.uuid, _REPLAYS, MINUTE, within_seconds=_CALM) or 0
        if replays > limits.replays_per_minute:
            words = f"{replays} PCIe packets had to be sent again within a minute. {_ADVICE}"
            shown = ("replays", replays, limits.replays_per_minute, "1/min")
            yield _problem(gpu, "ReplayRate", Severity.WARNING, words, shown)
        corrected = max(
            self._counters.worst(gpu.uuid, source + _CORRECTABLE, HOUR, within_seconds=2 * HOUR) or 0
            for source in ("", _AER)
        )
        if corrected > limits.correctable_per_hour:
            words = f"{corrected} corrected PCIe errors within an hour: the link works and wears. Watch it."
            shown = ("correctableErrors", corrected, limits.correctable_per_hour, "errors/h")
            yield _problem(gpu, "CorrectableErrors", Severity.INFO, words, shown)

    def _grown(self, gpu: GPUSample, name: str) -> int:
        return self._counters.increase(gpu.uuid, name, HOUR) or 0


def _problem(gpu: GPUSample, reason: str, severity: Severity, words: str, shown: tuple[str, int, int, str]) -> Problem:
    subject = subject_of(gpu)
    name, value, limit, unit = shown
    return Problem(
        check=Check.PCIE_ERRORS,
        reason=reason,
        severity=severity,
        blame=Blame.HARDWARE,
        action=Action.NONE if severity is Severity.INFO else Action.RESEAT_OR_CHECK_LINK,
        message=f"{say(subject)}: {words}",
        subject=subject,
        evidence=(evidence(name, value, threshold=limit, unit=unit),),
    )
