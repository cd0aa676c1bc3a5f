"""Leave to make one call, as a circuit breaker gives it.

One call, with its retries, takes one permit and settles it once: success, failure, or ignored (cancelled, refused by
authentication, a fault of ours). A permit of an earlier state is old news: settling it changes nothing.
"""

from typing import Protocol


class Breaking(Protocol):
    """The part of a breaker that its permits report to."""

    era: int

    def on_success(self) -> None:
        """A permit of the present state succeeded."""
        ...

    def on_failure(self) -> None:
        """A permit of the present state failed."""
        ...

    def on_ignored(self) -> None:
        """A permit of the present state came to nothing."""
        ...


class Permit:
    """Leave to make one call. Settle it exactly once; later settlements are ignored."""

    __slots__ = ("_breaker", "_era", "_settled")

    def __init__(self, breaker: Breaking, era: int) -> None:
        self._breaker = breaker
        self._era = era
        self._settled = False

    def success(self) -> None:
        """The agent answered as it should."""
        if self._take():
            self._breaker.on_success()

    def failure(self) -> None:
        """The call failed in a way that counts."""
        if self._take():
            self._breaker.on_failure()

    def ignore(self) -> None:
        """Cancelled, or failed in a way that says nothing of the agent."""
        if self._take():
            self._breaker.on_ignored()

    def _take(self) -> bool:
        fresh = not self._settled and self._era == self._breaker.era
        self._settled = True
        return fresh
