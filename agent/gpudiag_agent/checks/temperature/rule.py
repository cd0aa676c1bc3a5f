"""Temperature, judged only by limits that the GPU itself gives. No limit known: no judgement.

| what | finding |
|---|---|
| T.Limit margin below the GPU's slowdown margin (signed: -2 on H100) | Overheating, Warning |
| where there is no margin or no margin limit: temperature at or above the slowdown limit | Overheating, Warning |
| where there is no slowdown limit either: temperature above the highest operating temperature | Overheating, Warning |
| temperature at or above the shutdown limit (where the margin does not decide) | Overheating, Critical |
| memory temperature above its highest operating temperature | MemoryOverheating, Warning |

Raised at once; cleared after :data:`CALM` seconds in which every reading was at least :data:`HYSTERESIS` degrees
inside the limit. Absolute limits are not used where the margin is known: from Hopper on they mislead.
"""

from collections.abc import Iterable

import msgspec

from gpudiag_agent.checks.base import Problem, View, evidence, say, subject_of
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

HYSTERESIS = 3
"""Degrees Celsius inside the limit from which a reading counts as calm."""
CALM = 60.0
"""Seconds of calm that clear a finding."""

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


class Temperature:
    """See the module."""

    name = Check.TEMPERATURE

    def __init__(self) -> None:
        self._hot: dict[tuple[str, str], tuple[Reading, float]] = {}
        """(GPU, reason) → what to show, and since when it has been calm (infinity: it is not)."""

    def observe(self, sample: Sample) -> None:
        """Raise what is too hot, and clear what has been calm for long enough."""
        if sample.fault is not None:
            return
        hot = {}
        for gpu in sample.gpus:
            readings = {reading.reason: reading for reading in readings_of(gpu)}
            for reason in (_GPU, _MEMORY):
                before = self._hot.get((gpu.uuid, reason))
                after = _follow(before, readings.get(reason), sample.taken_at, failed=bool(gpu.errors))
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


def _follow(
    before: tuple[Reading, float] | None, reading: Reading | None, at: float, *, failed: bool
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
    if reading.excess > -HYSTERESIS:
        return shown, _NOT_CALM
    calm_since = min(calm_since, at)
    return None if at - calm_since >= CALM else (shown, calm_since)


def readings_of(gpu: GPUSample) -> Iterable[Reading]:
    """The temperatures of a GPU for which it gives a limit."""
    margin, limit = gpu.thermal_margin_celsius, gpu.thermal_margin_slowdown_celsius
    if margin is not None and limit is not None:
        yield Reading(reason=_GPU, name="thermalMargin", value=margin, limit=limit, excess=limit - margin)
    elif gpu.temperature_celsius is not None:
        yield from _absolute(gpu, gpu.temperature_celsius)
    memory, highest = gpu.memory_temperature_celsius, gpu.memory_temperature_max_celsius
    if memory is not None and highest:
        yield Reading(reason=_MEMORY, name="memoryTemperature", value=memory, limit=highest, excess=memory - highest)


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
    return Problem(
        check=Check.TEMPERATURE,
        reason=reading.reason,
        severity=reading.severity,
        blame=Blame.ENVIRONMENT,
        action=Action.CHECK_COOLING,
        message=f"{say(subject)}: the {what} is too hot, or was within the last minute: {reading.name} "
        f"{reading.value} °C, its own limit is {reading.limit} °C. Check air flow, fans and inlet temperature.",
        subject=subject,
        evidence=(evidence(reading.name, reading.value, threshold=reading.limit, unit="°C"),),
    )
