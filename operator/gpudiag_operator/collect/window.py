"""Calls and failures of the last minute, in buckets: constant memory whatever the rate."""

BUCKETS = 12


class Window:
    """A rolling window of ``seconds``, exact to a twelfth of it. There is one per node, so it stays small."""

    __slots__ = ("_buckets", "_width")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / BUCKETS
        self._buckets: dict[int, tuple[int, int]] = {}

    def record(self, now: float, *, failed: bool) -> None:
        """Count one call at ``now`` (seconds of any clock that never goes back)."""
        number = int(now // self._width)
        if number not in self._buckets:
            self._drop(number)
        calls, failures = self._buckets.get(number, (0, 0))
        self._buckets[number] = (calls + 1, failures + failed)

    def totals(self, now: float) -> tuple[int, int]:
        """(calls, failures) of the window that ends now."""
        self._drop(int(now // self._width))
        calls = sum(bucket[0] for bucket in self._buckets.values())
        return calls, sum(bucket[1] for bucket in self._buckets.values())

    def clear(self) -> None:
        """Forget everything."""
        self._buckets.clear()

    def _drop(self, newest: int) -> None:
        for number in [number for number in self._buckets if number <= newest - BUCKETS]:
            del self._buckets[number]
