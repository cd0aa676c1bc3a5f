"""Throttling by hardware that lasts, per GPU.

Over a window of :data:`WINDOW` seconds (five sampling intervals where that is longer), covered for at least
:data:`SPAN` of it by three samples or more:

| clock event reason (nvml.h), or the time spent in it | finding |
|---|---|
| 0x40 hardware thermal slowdown | HardwareThermalSlowdown, Warning, CheckCooling |
| 0x80 hardware power brake | PowerBrake, Warning, CheckPower |
| 0x8 hardware slowdown with neither of the two | HardwareSlowdown, Warning, RunDiagnostics |
| 0x20 software thermal slowdown | SoftwareThermalSlowdown, Info, CheckCooling |

Raised when that is ``throttling.raisePercent`` (60 %) of the window, cleared when it is less than ``clearPercent``
(20 %). The share is that of the samples with the bit set, or of the nanoseconds that the driver counts as slowed down
(fields 269 to 271), whichever is more: the bit misses what happens between two looks, and not every driver counts.
Every GPU is judged by itself, and one that does not tell is silent (gpud adds up the minutes of all GPUs).
Idle, clock settings, the software power cap and sync boost are not faults. The software thermal slowdown is how
passively cooled boards hold their working temperature, so it informs and does not degrade.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.sample import GPUSample, Sample, ThrottleTimes
from gpudiag_agent.thresholds import Thresholds, ThrottlingLimits
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

WINDOW = 60.0
SPAN = 2 / 3
_FEWEST = 3
_MOST = 120
"""Samples kept per GPU: two minutes of the fastest sampling there is (1/s)."""

_HW_SLOWDOWN, _SW_THERMAL, _HW_THERMAL, _POWER_BRAKE = 0x8, 0x20, 0x40, 0x80


class _Rule(msgspec.Struct, frozen=True):
    reason: str
    bit: int
    unless: int
    """Bits that explain it better."""
    severity: Severity
    blame: Blame
    action: Action
    words: str
    time: str = ""
    """The counter of the time spent in it."""


class _Look(msgspec.Struct, frozen=True):
    """What one sample says of one GPU."""

    at: float
    bits: int | None
    times: ThrottleTimes | None


_Window = deque[_Look]

_RULES = (
    _Rule(
        "HardwareThermalSlowdown", _HW_THERMAL, 0, Severity.WARNING, Blame.ENVIRONMENT, Action.CHECK_COOLING,
        "its hardware halves the clocks because it is too hot", "hardware_thermal",
    ),
    _Rule(
        "PowerBrake", _POWER_BRAKE, 0, Severity.WARNING, Blame.ENVIRONMENT, Action.CHECK_POWER,
        "the power supply or the rack holds its clocks down (power brake)", "hardware_power_brake",
    ),
    _Rule(
        "HardwareSlowdown", _HW_SLOWDOWN, _HW_THERMAL | _POWER_BRAKE, Severity.WARNING, Blame.HARDWARE,
        Action.RUN_DIAGNOSTICS, "its hardware holds the clocks down for neither heat nor power brake",
    ),
    _Rule(
        "SoftwareThermalSlowdown", _SW_THERMAL, _HW_THERMAL, Severity.INFO, Blame.ENVIRONMENT,
        Action.CHECK_COOLING, "the driver lowers its clocks to hold its temperature", "software_thermal",
    ),
)  # fmt: skip


class Throttling:
    """See the module.

    Args:
        interval: seconds between samples.
        thresholds: gives the limits in force.
    """

    name = Check.THROTTLING
    needs = Witness.NVML

    def __init__(self, interval: float, thresholds: Callable[[], Thresholds] = Thresholds) -> None:
        self._window = max(WINDOW, 5 * interval)
        self._thresholds = thresholds
        self._seen: dict[str, _Window] = {}
        self._raised: dict[tuple[str, str], tuple[float, int]] = {}
        """(GPU, reason) → share of the window, and the percentage that raised it."""

    def observe(self, sample: Sample) -> None:
        """Move every GPU's window on. A driver that answers nothing leaves it where it was."""
        if sample.fault is not None:
            return
        limits = self._thresholds().throttling
        seen, raised = {}, {}
        for gpu in sample.gpus:
            window = self._seen.get(gpu.uuid) or deque(maxlen=_MOST)
            if gpu.clock_event_reasons is not None or gpu.throttle_times is not None:
                window.append(_Look(sample.taken_at, gpu.clock_event_reasons, gpu.throttle_times))
            # A clock set back leaves times from the future; they go too.
            while window and not sample.taken_at - self._window <= window[0].at <= sample.taken_at:
                window.popleft()
            seen[gpu.uuid] = window
            for rule in _RULES:
                was_raised = (gpu.uuid, rule.reason) in self._raised
                share = self._judged(window, rule, limits, was_raised=was_raised)
                if share is not None:
                    raised[gpu.uuid, rule.reason] = share, limits.raise_percent
        self._seen, self._raised = seen, raised

    def _judged(self, window: _Window, rule: _Rule, limits: ThrottlingLimits, *, was_raised: bool) -> float | None:
        """The share of the window in percent if the finding stands, else None."""
        if not window:
            return None
        share = 100 * max(_by_bits(window, rule), _by_time(window, rule))
        if was_raised:
            return share if share >= limits.clear_percent else None
        covered = window[-1].at - window[0].at >= self._window * SPAN and len(window) >= _FEWEST
        return share if covered and share >= limits.raise_percent else None

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs that have been held down for most of the window."""
        for gpu in view.sample.gpus:
            for rule in _RULES:
                raised = self._raised.get((gpu.uuid, rule.reason))
                if raised is not None:
                    yield self._problem(gpu, rule, round(raised[0]), raised[1])

    def _problem(self, gpu: GPUSample, rule: _Rule, percent: int, limit: int) -> Problem:
        subject = subject_of(gpu)
        return Problem(
            check=Check.THROTTLING,
            reason=rule.reason,
            severity=rule.severity,
            blame=rule.blame,
            action=rule.action,
            message=f"{say(subject)}: {rule.words}, for {percent} % of the last {self._window:.0f} s.",
            subject=subject,
            evidence=(evidence("throttledTime", percent, threshold=limit, unit="%"),),
        )


def _by_bits(window: _Window, rule: _Rule) -> float:
    """Share of the samples that have the bit, 0 to 1."""
    told = [look.bits for look in window if look.bits is not None]
    return sum(bool(bits & rule.bit and not bits & rule.unless) for bits in told) / len(told) if told else 0.0


def _by_time(window: _Window, rule: _Rule) -> float:
    """Share of the time that the driver counted, 0 to 1; a counter that fell (driver reload) counts nothing."""
    told = [(look.at, spent) for look in window if (spent := getattr(look.times, rule.time or "-", None)) is not None]
    steps = [(until - at, after - spent) for (at, spent), (until, after) in itertools.pairwise(told) if after >= spent]
    seconds = sum(length for length, _ in steps)
    return min(1.0, sum(spent for _, spent in steps) / 1e9 / seconds) if seconds > 0 else 0.0
