"""Temperature, judged by limits that the GPU itself gives. No limit known: no judgement.

| what | finding |
|---|---|
| T.Limit margin below the GPU's slowdown margin (signed: -2 on H100) | Overheating, Warning |
| where there is no margin or no margin limit: temperature at or above the slowdown limit | Overheating, Warning |
| where there is no slowdown limit either: temperature above the highest operating temperature | Overheating, Warning |
| temperature at or above the shutdown limit (where the margin does not decide) | Overheating, Critical |
| memory temperature above its highest operating temperature | MemoryOverheating, Warning |
| temperature above ``temperature.gpuCelsius`` (not set), whatever the GPU says | Overheating, Warning |
| memory above ``temperature.memoryCelsius``, where set in place of its own | MemoryOverheating, Warning |

Raised at once; cleared after ``temperature.clearAfterSeconds`` (60) in which every reading was at least
``clearBelowCelsius`` (3) degrees inside the limit, or by a limit that is configured higher. Absolute limits of the GPU
are not used where the margin is known: from Hopper on they mislead. Drivers before 570 answer a margin of 0 or less
that means nothing (gpud leaves it out too): there such a margin is no reading.
"""

from collections.abc import Callable, Iterable

import msgspec

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_agent.thresholds import TemperatureLimits, Thresholds
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

MARGIN_DRIVER = 570
"""First driver branch whose margins of 0 and less are true."""

_GPU, _MEMORY = "Overheating", "MemoryOverheating"


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One temperature against its limit. ``excess`` above 0 is too hot."""

    reason: str
    name: str
    value: int
    limit: int
    excess: int
    """Degrees beyond what is allowed; 0 is the last allowed one."""
    severity: Severity = Severity.WARNING
    own: bool = True
    """Whether the limit is the GPU's."""


class Temperature:
    """See the module.

    Args:
        thresholds: gives the limits in force.
    """

    name = Check.TEMPERATURE
    needs = Witness.NVML

    def __init__(self, thresholds: Callable[[], Thresholds] = Thresholds) -> None:
        self._thresholds = thresholds
        self._hot: dict[tuple[str, str], tuple[Reading, float]] = {}
        """(GPU, reason) → what to show, and since when it has been calm (infinity: it is not)."""

    def observe(self, sample: Sample) -> None:
        """Raise what is too hot, and clear what has been calm for long enough."""
        if sample.fault is not None:
            return
        hot = {}
        limits = self._thresholds().temperature
        true_margins = _true_margins(sample.driver_version)
        for gpu in sample.gpus:
            readings = _readings(gpu, limits, true_margins=true_margins)
            for reason in (_GPU, _MEMORY):
                before = self._hot.get((gpu.uuid, reason))
                after = _follow(before, readings.get(reason), sample.taken_at, limits, failed=gpu.incomplete)
                if after is not None:
                    hot[gpu.uuid, reason] = after
        self._hot = hot

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs that are, or have just been, too hot."""
        for gpu in view.sample.gpus:
            for reason in (_GPU, _MEMORY):
                entry = self._hot.get((gpu.uuid, reason))
                if entry is not None:
                    yield _problem(gpu, entry[0])


_NOT_CALM = float("inf")


def _true_margins(driver: str | None) -> bool:
    major = (driver or "").partition(".")[0]
    return not major.isdecimal() or int(major) >= MARGIN_DRIVER


def _follow(
    before: tuple[Reading, float] | None,
    reading: Reading | None,
    at: float,
    limits: TemperatureLimits,
    *,
    failed: bool,
) -> tuple[Reading, float] | None:
    if reading is None:
        return before if failed else None
    if reading.excess > 0:
        return reading, _NOT_CALM
    if before is None:
        return None
    shown, calm_since = before
    # What is shown is the current value, at the severity that was reached: Critical does not flap to Warning.
    shown = msgspec.structs.replace(reading, severity=shown.severity)
    if reading.excess > -limits.clear_below_celsius:
        return shown, _NOT_CALM
    calm_since = min(calm_since, at)
    return None if at - calm_since >= limits.clear_after_seconds else (shown, calm_since)


def _readings(gpu: GPUSample, limits: TemperatureLimits, *, true_margins: bool) -> dict[str, Reading]:
    """The temperatures of a GPU for which there is a limit, by reason; of several the worst."""
    found: dict[str, Reading] = {}
    for reading in (*_of_gpu(gpu, limits, true_margins=true_margins), *_of_memory(gpu, limits)):
        if reading.reason not in found or _badness(reading) > _badness(found[reading.reason]):
            found[reading.reason] = reading
    return found


def _badness(reading: Reading) -> tuple[int, int]:
    return (reading.severity.badness if reading.excess > 0 else 0), reading.excess


def _of_gpu(gpu: GPUSample, limits: TemperatureLimits, *, true_margins: bool) -> Iterable[Reading]:
    margin, limit = gpu.thermal_margin_celsius, gpu.thermal_margin_slowdown_celsius
    if margin is not None and limit is not None and (margin > 0 or true_margins):
        yield Reading(reason=_GPU, name="thermalMargin", value=margin, limit=limit, excess=limit - margin)
    elif gpu.temperature_celsius is not None:
        yield from _absolute(gpu, gpu.temperature_celsius)
    value, allowed = gpu.temperature_celsius, limits.gpu_celsius
    if value is not None and allowed is not None:
        yield Reading(reason=_GPU, name="temperature", value=value, limit=allowed, excess=value - allowed, own=False)


def _of_memory(gpu: GPUSample, limits: TemperatureLimits) -> Iterable[Reading]:
    value, own = gpu.memory_temperature_celsius, limits.memory_celsius is None
    allowed = gpu.memory_temperature_max_celsius if own else limits.memory_celsius
    if value is not None and allowed:
        name = "memoryTemperature"
        yield Reading(reason=_MEMORY, name=name, value=value, limit=allowed, excess=value - allowed, own=own)


def _absolute(gpu: GPUSample, value: int) -> Iterable[Reading]:
    shutdown, slowdown = gpu.temperature_shutdown_celsius, gpu.temperature_slowdown_celsius
    # A limit of 0 is a board without one.
    if shutdown and value >= shutdown:
        excess = value - shutdown + 1
        yield Reading(
            reason=_GPU,
            name="temperature",
            value=value,
            limit=shutdown,
            excess=excess,
            severity=Severity.CRITICAL,
        )
    elif slowdown:
        yield Reading(reason=_GPU, name="temperature", value=value, limit=slowdown, excess=value - slowdown + 1)
    elif highest := gpu.temperature_max_celsius:
        yield Reading(reason=_GPU, name="temperature", value=value, limit=highest, excess=value - highest)


def _problem(gpu: GPUSample, reading: Reading) -> Problem:
    subject = subject_of(gpu)
    what = "memory" if reading.reason == _MEMORY else "GPU"
    whose = "its own limit" if reading.own else "the configured limit"
    return Problem(
        check=Check.TEMPERATURE,
        reason=reading.reason,
        severity=reading.severity,
        blame=Blame.ENVIRONMENT,
        action=Action.CHECK_COOLING,
        message=f"{say(subject)}: the {what} is too hot, or was a moment ago: {reading.name} {reading.value} °C, "
        f"{whose} is {reading.limit} °C. Check air flow, fans and inlet temperature.",
        subject=subject,
        evidence=(evidence(reading.name, reading.value, threshold=reading.limit, unit="°C"),),
    )
