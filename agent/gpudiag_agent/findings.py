"""Problems → findings: since when, in what order, within the bounds of the wire.

A finding's life is that of its (check, reason, subject). When it is no longer given it is gone; should it come
back, that is a new one. Severity and values may change within a life.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem
from gpudiag_api import documentation
from gpudiag_api.times import to_rfc3339
from gpudiag_api.wire import Finding, Subject

MAX_FINDINGS = 256
"""As many as the wire carries."""
_MAX_TEXT = 1024

Key = tuple[str, str, str]


class FindingBook:
    """Remembers since when each finding stands."""

    def __init__(self) -> None:
        self._since: dict[Key, float] = {}

    def enter(self, problems: Iterable[Problem], now: float) -> tuple[Finding, ...]:
        """The findings of this moment, worst first; ``now`` in Unix seconds."""
        unique: dict[Key, Problem] = {}
        for problem in problems:
            key = (str(problem.check), problem.reason, _where(problem.subject))
            other = unique.get(key)
            if other is None or problem.severity.badness > other.severity.badness:
                unique[key] = problem
        worst_first = sorted(unique.items(), key=_order)[:MAX_FINDINGS]
        self._since = {
            key: problem.since if problem.since is not None else self._since.get(key, now)
            for key, problem in worst_first
        }
        return tuple(_finding(problem, self._since[key], now) for key, problem in worst_first)


def _where(subject: Subject) -> str:
    who = subject.gpu_uuid or subject.pci or ""
    return f"{who}/{subject.mig_gpu_instance}/{subject.mig_compute_instance}/{subject.link or ''}"


def _order(entry: tuple[Key, Problem]) -> tuple[int, int, Key]:
    key, problem = entry
    index = problem.subject.gpu_index
    return (-problem.severity.badness, -1 if index is None else index, key)


def _finding(problem: Problem, since: float, now: float) -> Finding:
    return Finding(
        check=str(problem.check),
        reason=problem.reason,
        severity=problem.severity,
        blame=problem.blame,
        action=problem.action,
        message=problem.message[:_MAX_TEXT],
        documentation=documentation.of(problem.check),
        subject=problem.subject,
        evidence=problem.evidence[:16],
        first_seen=to_rfc3339(since),
        last_seen=to_rfc3339(now if problem.until is None else problem.until),
        count=problem.count,
    )
