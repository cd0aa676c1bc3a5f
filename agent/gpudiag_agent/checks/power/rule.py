"""Power: its supply, and the limit that somebody set.

| what | finding | cleared by |
|---|---|---|
| a call answers INSUFFICIENT_POWER (NVML error 8) | InsufficientPower, Critical | it answers without |
| limit below the default for :data:`LASTING` seconds | PowerLimitLowered, Info | one look at the default |
| the same, below ``power.lowestLimitPercent`` (not set) | PowerLimitTooLow, Warning | one look at or above it |

A limit below the default is somebody's decision (rack budget, ``nvidia-smi -pl``): it explains a slow job and is no
fault, unless the configuration says so. Power use near the limit is what a busy GPU does. The power brake is judged by
Throttling.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_agent.thresholds import PowerLimits
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

LASTING = 120.0
"""Seconds. The enforced limit also drops for moments, with every other thing that limits power."""
TOLERANCE = 0.99
"""Share of the default from which a limit counts as the default: boards round to their own steps."""
NVML_ERROR_INSUFFICIENT_POWER = 8


class Power:
    """See the module."""

    name = Check.POWER
    needs = Witness.NVML

    def __init__(self) -> None:
        self._lowered: dict[str, tuple[float, float, GPUSample]] = {}
        """GPU → since when its limit is lowered, when that was last read, and that reading."""

    def observe(self, sample: Sample) -> None:
        """Remember since when limits are lowered; a read that failed changes nothing."""
        if sample.fault is not None:
            return
        lowered = {}
        for gpu in sample.gpus:
            before = self._lowered.get(gpu.uuid)
            if _percent(gpu) is None:
                if before is not None and gpu.incomplete:
                    lowered[gpu.uuid] = before
            elif _percent(gpu, TOLERANCE) is not None:
                since = before[0] if before is not None else sample.taken_at
                lowered[gpu.uuid] = (min(since, sample.taken_at), sample.taken_at, gpu)
        self._lowered = lowered

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs without enough power, and with less than they are made for."""
        for gpu in view.sample.gpus:
            if any(error.code == NVML_ERROR_INSUFFICIENT_POWER for error in gpu.errors):
                yield _insufficient(gpu)
            since, read_at, reading = self._lowered.get(gpu.uuid, (0.0, 0.0, gpu))
            if read_at - since >= LASTING:
                yield _limited(gpu, reading, view.thresholds.power)


def _percent(gpu: GPUSample, below: float = float("inf")) -> float | None:
    """The limit as a share of the default in percent; None where either is unknown, or it is not below that share."""
    limit, default = gpu.power_limit_milliwatts, gpu.power_default_limit_milliwatts
    if not limit or not default or limit >= default * below:
        return None
    return 100 * limit / default


def _insufficient(gpu: GPUSample) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.POWER,
        reason="InsufficientPower",
        severity=Severity.CRITICAL,
        blame=Blame.ENVIRONMENT,
        action=Action.CHECK_POWER,
        message=f"{say(subject)}: it does not get enough power (NVML: ERROR_INSUFFICIENT_POWER). Check its power "
        "cables and the supply.",
        subject=subject,
        evidence=(evidence("nvml", "ERROR_INSUFFICIENT_POWER"),),
    )


def _limited(gpu: GPUSample, reading: GPUSample, limits: PowerLimits) -> Problem:
    subject = subject_of(gpu)
    watts = round((reading.power_limit_milliwatts or 0) / 1000)
    default = round((reading.power_default_limit_milliwatts or 0) / 1000)
    percent = _percent(reading) or 100.0
    too_low = limits.lowest_limit_percent is not None and percent < limits.lowest_limit_percent
    allowed = f", and the configuration allows no less than {limits.lowest_limit_percent} %" if too_low else ""
    return Problem(
        check=Check.POWER,
        reason="PowerLimitTooLow" if too_low else "PowerLimitLowered",
        severity=Severity.WARNING if too_low else Severity.INFO,
        blame=Blame.ENVIRONMENT,
        action=Action.CHECK_POWER if too_low else Action.NONE,
        message=f"{say(subject)}: its power limit is {watts} W, its default is {default} W{allowed}. It is slower than "
        f"others of its kind; nvidia-smi -pl {default} restores it.",
        subject=subject,
        evidence=(evidence("powerLimit", watts, threshold=default, unit="W"),),
    )
