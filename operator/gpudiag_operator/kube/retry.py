"""Jittered back-off, and repeating requests that may be repeated."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gpudiag_operator.kube.errors import ApiError, ApiUnavailable

R = TypeVar("R")

LONGEST_RETRY_AFTER = 30.0
"""Seconds: a server that asks for more gets a caller that asks sooner; nobody waits an hour on a typo."""


class Backoff:
    """Delays that double from ``initial`` to ``cap`` seconds, each jittered to 50-100 % of its step."""

    def __init__(self, *, initial: float = 0.5, cap: float = 30.0, rng: random.Random | None = None) -> None:
        self._initial = initial
        self._cap = cap
        self._rng = rng or random.Random()  # noqa: S311  (spreads load, protects nothing)
        self._step = initial

    def next(self, at_least: float | None = None) -> float:
        """The next delay in seconds; ``at_least`` is what a server asked for (bounded by LONGEST_RETRY_AFTER)."""
        step, self._step = self._step, min(self._step * 2, self._cap)
        delay = step * self._rng.uniform(0.5, 1.0)
        if at_least is None:
            return delay
        return max(delay, min(at_least, LONGEST_RETRY_AFTER))

    def reset(self) -> None:
        """Start from ``initial`` again, after a success."""
        self._step = self._initial


async def retrying(
    call: Callable[[], Awaitable[R]],
    *,
    attempts: int = 4,
    backoff: Backoff | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> R:
    """Call until it works, at most ``attempts`` times.

    Only for requests that may be done twice: reads, merge patches, creates with a name of their own (where the
    caller takes ``already_exists`` for success).

    Raises:
        ApiError: at once when it is not retryable, else the last one.
        ApiUnavailable: of the last attempt.
    """
    backoff = backoff or Backoff(cap=5.0)
    for left in range(attempts - 1, -1, -1):
        try:
            return await call()
        except ApiError as error:
            if not error.retryable or left == 0:
                raise
            delay = backoff.next(error.retry_after)
        except ApiUnavailable:
            if left == 0:
                raise
            delay = backoff.next()
        await sleep(delay)
    raise AssertionError("unreachable: attempts is at least 1")
