"""Throttling by hardware that lasts, per GPU.

Over a window of :data:`WINDOW` seconds (five sampling intervals where that is longer), covered for at least
:data:`SPAN` of it by three samples or more:

| clock event reason (nvml.h) | finding |
|---|---|
| 0x40 hardware thermal slowdown | HardwareThermalSlowdown, Warning, CheckCooling |
| 0x80 hardware power brake | PowerBrake, Warning, CheckPower |
| 0x8 hardware slowdown with neither of the two | HardwareSlowdown, Warning, RunDiagnostics |
| 0x20 software thermal slowdown | SoftwareThermalSlowdown, Info, CheckCooling |

Raised when the bit is set in 60 % of the samples of the window, cleared when it is in less than 20 %.
Idle, clock settings, the software power cap and sync boost are not faults. The software thermal slowdown is how
passively cooled boards hold their working temperature, so it informs and does not degrade.
"""

from collections import deque
from collections.abc import Iterable

import msgspec

from gpudiag_agent.checks.base import Problem, View, evidence, say, subject_of
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

WINDOW = 60.0
SPAN = 2 / 3
RAISE, CLEAR = 0.6, 0.2
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


_RULES = (
    _Rule(
        "HardwareThermalSlowdown", _HW_THERMAL, 0, Severity.WARNING, Blame.ENVIRONMENT, Action.CHECK_COOLING,
        "its hardware halves the clocks because it is too hot",
    ),
    _Rule(
        "PowerBrake", _POWER_BRAKE, 0, Severity.WARNING, Blame.ENVIRONMENT, Action.CHECK_POWER,
        "the power supply or the rack holds its clocks down (power brake)",
    ),
    _Rule(
        "HardwareSlowdown", _HW_SLOWDOWN, _HW_THERMAL | _POWER_BRAKE, Severity.WARNING, Blame.HARDWARE,
        Action.RUN_DIAGNOSTICS, "its hardware holds the clocks down for neither heat nor power brake",
    ),
    _Rule(
        "SoftwareThermalSlowdown", _SW_THERMAL, _HW_THERMAL, Severity.INFO, Blame.ENVIRONMENT,
        Action.CHECK_COOLING, "the driver lowers its clocks to hold its temperature",
    ),
)  # fmt: skip


class Throttling:
    """See the module.

    Args:
        interval: seconds between samples.
    """

    name = Check.THROTTLING

    def __init__(self, interval: float) -> None:
        self._window = max(WINDOW, 5 * interval)
        self._seen: dict[str, deque[tuple[float, int]]] = {}
        self._raised: dict[tuple[str, str], float] = {}
        """(GPU, reason) → share of the window."""

    def observe(self, sample: Sample) -> None:
        """Move every GPU's window on. A driver that answers nothing leaves it where it was."""
        if sample.fault is not None:
            return
        seen, raised = {}, {}
        for gpu in sample.gpus:
            window = self._seen.get(gpu.uuid) or deque(maxlen=_MOST)
            if gpu.clock_event_reasons is not None:
                window.append((sample.taken_at, gpu.clock_event_reasons))
            # A clock set back leaves times from the future; they go too.
            while window and not sample.taken_at - self._window <= window[0][0] <= sample.taken_at:
                window.popleft()
            seen[gpu.uuid] = window
            for rule in _RULES:
                share = self._judged(window, rule, was_raised=(gpu.uuid, rule.reason) in self._raised)
                if share is not None:
                    raised[gpu.uuid, rule.reason] = share
        self._seen, self._raised = seen, raised

    def _judged(self, window: deque[tuple[float, int]], rule: _Rule, *, was_raised: bool) -> float | None:
        """The share of the window if the finding stands, else None."""
        if not window:
            return None
        share = sum(bool(bits & rule.bit and not bits & rule.unless) for _, bits in window) / len(window)
        if was_raised:
            return share if share >= CLEAR else None
        covered = window[-1][0] - window[0][0] >= self._window * SPAN and len(window) >= _FEWEST
        return share if covered and share >= RAISE else None

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs that have been held down for most of the window."""
        for gpu in view.sample.gpus:
            for rule in _RULES:
                share = self._raised.get((gpu.uuid, rule.reason))
                if share is not None:
                    yield self._problem(gpu, rule, share)

    def _problem(self, gpu: GPUSample, rule: _Rule, share: float) -> Problem:
        subject = subject_of(gpu)
        percent = round(100 * share)
        return Problem(
            check=Check.THROTTLING,
            reason=rule.reason,
            severity=rule.severity,
            blame=rule.blame,
            action=rule.action,
            message=f"{say(subject)}: {rule.words}, in {percent} % of the samples of the last {self._window:.0f} s.",
            subject=subject,
            evidence=(evidence("throttledSamples", percent, threshold=round(100 * RAISE), unit="%"),),
        )
