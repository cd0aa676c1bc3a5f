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
    """At most this, or at least, see below; None: reported only."""
    at_least: bool = False
    """Whether more is better."""
    reference: str = ""
    """What it is compared with, and how that fared in the same run."""
    gates: bool = False
    """Whether missing the target fails the run."""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether the target was reached."""
        if self.target is None:
            return True
        return self.measured >= self.target if self.at_least else self.measured <= self.target

    @property
    def verdict(self) -> str:
        """For the table: ok, MISSED where that fails the run, else over; nothing where there is no target."""
        return "" if self.target is None else "ok" if self.met else "MISSED" if self.gates else "over"

    def cells(self) -> tuple[str, str, str, str, str]:
        """Name, target, measured, verdict, reference."""
        target = "" if self.target is None else f"{'≥' if self.at_least else '≤'} {self.target:g}"
        return self.name, target, f"{self.measured:.3f} {self.unit}", self.verdict, self.reference


def table(results: Iterable[Result]) -> str:
    """All as lines of a table."""
    rows = [("measure", "target", "measured", "verdict", "reference in the same run")]
    rows += [result.cells() for result in results]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:<{widths[3]}}  {row[4]}".rstrip()
        for row in rows
    )


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
