"""One measurement, and how it is shown. Only ratios and counts gate: absolute times say more of the machine."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """A measure, its target, and what it is compared with."""

    name: str
    measured: float
    unit: str
    target: float | None = None
    """At most this; None: reported only."""
    gates: bool = False
    """Whether missing the target fails the run."""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether the target was reached."""
        return self.target is None or self.measured <= self.target

    def line(self) -> str:
        """One line of the table."""
        target = "" if self.target is None else f"≤ {self.target:g}"
        verdict = "" if self.target is None else "ok" if self.met else "MISSED" if self.gates else "over"
        return f"{self.name:<58} {self.measured:>10.3f} {self.unit:<8} {target:>8}  {verdict}"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Iterable[float]) -> dict[str, float]:
    """Minimum, median, p99 and maximum."""
    given = list(values)
    return {
        "min": min(given),
        "median": statistics.median(given),
        "p99": percentile(given, 0.99),
        "max": max(given),
        "n": len(given),
    }
