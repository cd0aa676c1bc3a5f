"""What waits to be written: one entry per object, by time it may be written, then by how much it matters."""

import heapq

Rank = tuple[int, ...]
"""Smaller goes first."""


class Backlog:
    """A queue of names. An object has one entry; putting it again replaces that and keeps its place among equals."""

    def __init__(self) -> None:
        self._current: dict[str, tuple[int, int, Rank, float]] = {}
        """Name → version, place, rank, due."""
        self._waiting: list[tuple[float, str, int]] = []
        """By due time: due, name, version."""
        self._ready: list[tuple[Rank, int, str, int]] = []
        """Due ones by rank: rank, place, name, version."""
        self._versions = 0

    def __len__(self) -> int:
        return len(self._current)

    def put(self, name: str, *, rank: Rank, due: float) -> None:
        """Add or replace an entry; ``due`` on the caller's clock."""
        before = self._current.get(name)
        if before is not None and before[2:] == (rank, due):
            return
        self._versions += 1
        place = before[1] if before is not None else self._versions
        self._current[name] = (self._versions, place, rank, due)
        heapq.heappush(self._waiting, (due, name, self._versions))

    def discard(self, name: str) -> None:
        """Forget an entry, if there is one."""
        self._current.pop(name, None)

    def peek(self, now: float) -> str | None:
        """The most urgent entry that is due; None when none is."""
        while self._waiting and self._waiting[0][0] <= now:
            _, name, version = heapq.heappop(self._waiting)
            entry = self._current.get(name)
            if entry is not None and entry[0] == version:
                heapq.heappush(self._ready, (entry[2], entry[1], name, version))
        while self._ready:
            _, _, name, version = self._ready[0]
            entry = self._current.get(name)
            if entry is not None and entry[0] == version:
                return name
            heapq.heappop(self._ready)
        return None

    def next_due(self) -> float | None:
        """When the next entry that is not due yet will be; None when there is none."""
        while self._waiting:
            due, name, version = self._waiting[0]
            entry = self._current.get(name)
            if entry is not None and entry[0] == version:
                return due
            heapq.heappop(self._waiting)
        return None
