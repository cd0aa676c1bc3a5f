"""Token buckets, one per key, in a table of bounded size."""

import time
from collections import OrderedDict
from collections.abc import Callable


class Buckets:
    """How often each key may do something.

    Args:
        per_minute: on average.
        burst: at once, after a pause.
        most: keys kept; the one that was not used for longest is forgotten first, and starts with a full bucket.
        monotonic: seconds of a clock that does not jump.
    """

    def __init__(
        self, *, per_minute: float, burst: float, most: int = 4096, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_minute / 60
        self._burst = burst
        self._most = most
        self._monotonic = monotonic
        self._kept: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, key: str) -> float:
        """Take one; gives 0, or the seconds until there is one again (then nothing was taken)."""
        now = self._monotonic()
        level, seen = self._kept.get(key, (self._burst, now))
        level = min(self._burst, level + max(0.0, now - seen) * self._per_second)
        wait = 0.0 if level >= 1 else (1 - level) / self._per_second
        self._kept[key] = (level if wait else level - 1, now)
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return wait
