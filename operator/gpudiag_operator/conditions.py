"""Conditions of both kinds: one place that moves ``lastTransitionTime`` only when ``status`` flips.

The operator writes whole lists (a merge patch replaces them), so every new list is computed from the stored one.
"""

from collections.abc import Iterable
from typing import Literal

from gpudiag_api.kinds.base import Condition
from gpudiag_api.times import to_rfc3339

Status = Literal["True", "False", "Unknown"]

MESSAGE_LIMIT = 512
"""Characters. The schema allows 4,096; seven full ones would eat half of a diagnostic's 64 KiB."""


def clip(text: str, limit: int) -> str:
    """The text, cut to ``limit`` characters with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


class ConditionSet:
    """The conditions of one object while its next status is computed.

    Args:
        previous: the stored conditions; kept as they are unless set or dropped.
        generation: metadata.generation that the new ones are computed from.
        now: Unix seconds.
    """

    def __init__(self, previous: Iterable[Condition], *, generation: int, now: float) -> None:
        self._conditions = {condition.type: condition for condition in previous}
        self._generation = generation
        self._now = to_rfc3339(now)

    def set(self, kind: str, status: Status, reason: str, message: str = "") -> None:
        """Set one condition; its transition time is kept while its status stays the same."""
        before = self._conditions.get(kind)
        since = before.last_transition_time if before is not None and before.status == status else self._now
        self._conditions[kind] = Condition(
            type=kind,
            status=status,
            reason=str(reason),
            message=clip(message, MESSAGE_LIMIT),
            last_transition_time=since,
            observed_generation=self._generation,
        )

    def drop(self, *kinds: str) -> None:
        """Remove conditions: those that exist only while true, or that no longer apply."""
        for kind in kinds:
            self._conditions.pop(kind, None)

    def is_true(self, kind: str) -> bool:
        """Whether there is a condition of that type, and it holds."""
        return kind in self._conditions and self._conditions[kind].status == "True"

    def build(self) -> tuple[Condition, ...]:
        """The new list; the order of types never changes by itself."""
        return tuple(sorted(self._conditions.values(), key=lambda condition: _ORDER.get(condition.type, len(_ORDER))))


_ORDER = {
    kind: rank
    for rank, kind in enumerate(
        (
            "Ready",
            "Complete",
            "Reconciling",
            "Stalled",
            "GPUsHealthy",
            "AgentsReachable",
            "AgentReachable",
            "CircuitBreakersClosed",
            "CircuitBreakerClosed",
        )
    )
}
