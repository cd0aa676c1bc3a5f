"""Corrected memory errors, by rate. One alone is what ECC is for.

Counter: corrected errors since the driver was loaded (``nvmlDeviceGetTotalEccErrors``, corrected, volatile).

| what | finding | cleared by |
|---|---|---|
| more than ``eccCorrected.perHour`` in an hour | CorrectedErrorStorm, Warning | two hours without such an hour |
| more than ``eccCorrected.perDay`` in a day | CorrectedErrorTrend, Info | two days without such a day |

A reboot clears both. The storm outranks the trend: one finding per GPU. A count that fell is a reset and raises
nothing.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.counters import DAY, HOUR, Counters
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

_CORRECTED = "ecc.corrected"


class ECCCorrected:
    """See the module.

    Args:
        counters: shared by all checks.
    """

    name = Check.ECC_CORRECTED
    needs = Witness.NVML

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def observe(self, sample: Sample) -> None:
        """Follow the counters."""
        for gpu in sample.gpus:
            self._counters.observe(gpu.uuid, {_CORRECTED: gpu.ecc_corrected_volatile}, sample.taken_at)

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs whose memory needs correcting too often."""
        limits = view.thresholds.ecc_corrected
        for gpu in view.sample.gpus:
            if gpu.ecc_corrected_volatile is None and not gpu.incomplete:
                continue
            hour = self._counters.worst(gpu.uuid, _CORRECTED, HOUR, within_seconds=2 * HOUR) or 0
            day = self._counters.worst(gpu.uuid, _CORRECTED, DAY, within_seconds=2 * DAY) or 0
            if hour > limits.per_hour:
                yield _storm(gpu, hour, limits.per_hour)
            elif day > limits.per_day:
                yield _trend(gpu, day, limits.per_day)


def _storm(gpu: GPUSample, errors: int, limit: int) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.ECC_CORRECTED,
        reason="CorrectedErrorStorm",
        severity=Severity.WARNING,
        blame=Blame.HARDWARE,
        action=Action.RUN_DIAGNOSTICS,
        message=f"{say(subject)}: {errors} memory errors were corrected in an hour. Results are right, but its memory "
        "is failing or its cooling is: diagnose it before one cannot be corrected.",
        subject=subject,
        evidence=(evidence("correctedErrors", errors, threshold=limit, unit="errors/h"),),
    )


def _trend(gpu: GPUSample, errors: int, limit: int) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.ECC_CORRECTED,
        reason="CorrectedErrorTrend",
        severity=Severity.INFO,
        blame=Blame.HARDWARE,
        action=Action.NONE,
        message=f"{say(subject)}: {errors} memory errors were corrected in a day. Watch whether they grow.",
        subject=subject,
        evidence=(evidence("correctedErrors", errors, threshold=limit, unit="errors/d"),),
    )
