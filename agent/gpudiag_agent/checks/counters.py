"""Error counters as increases over time, per GPU: what a check compares with a rate.

The number that a GPU gives is never judged: it may be years old. What counts is by how much it grew, and when.

- The first value is a baseline. It survives a restart of the agent (:meth:`Counters.dump`, :meth:`Counters.load`), so
  errors from the time in between are seen, spread evenly over that time: no minute looks worse than the average.
- A smaller value than before is a reset (GPU reset, driver reload, persistence mode off) or a counter rolled back,
  never an increase. What the counter shows after a reset happened since; it is counted only where that cannot be
  confused with a rollback: the value before is recent and at least twice as large.
- A driver reload that hides in a gap (the new value is larger) counts at most what really happened since.
- Another boot starts the volatile counters anew, and with them their findings; lifetime counters go on.

Windows and memory: increases are kept in slots of 10 s for 15 minutes, of 5 minutes for 6 hours, of 2 hours for 8
days; empty slots take no room. A window ends at the last time the counter was read, so a failed read neither raises
nor clears. Up to one slot is left out at its old end: a limit is never crossed by rounding.
"""

from array import array
from collections.abc import Mapping
from typing import Annotated

import msgspec

MINUTE, HOUR, DAY, WEEK = 60.0, 3600.0, 86_400.0, 604_800.0
TIERS = ((10, 90), (300, 72), (7200, 96))
"""(seconds per slot, slots). A window is read from the finest tier that reaches back far enough."""
RECENT = 180.0
"""Seconds: a value before a reset that is older says nothing about how long the counter took to get where it is."""
STALE = 8 * DAY
"""Seconds after which a counter that nobody saw again is forgotten."""
MAX_VALUE = 2**53
"""Values stop here: JSON holds no larger integer exactly, and no error counter gets there."""
MAX_SERIES = 64 * 64
"""Counters in all (64 GPUs of 64); more are not followed. At worst 4 KB each, usually a tenth of that."""


class _Tier:
    """Increases by slot, the oldest first."""

    __slots__ = ("increases", "slots")

    def __init__(self) -> None:
        self.slots = array("q")
        self.increases = array("q")

    def add(self, slot: int, increase: int, *, oldest: int) -> None:
        if self.slots and self.slots[-1] == slot:
            self.increases[-1] += increase
        else:
            self.slots.append(slot)
            self.increases.append(increase)
        while self.slots[0] < oldest:
            self.slots.pop(0)
            self.increases.pop(0)

    def after(self, slot: int) -> int:
        return sum(n for at, n in zip(self.slots, self.increases, strict=True) if at > slot)

    def worst(self, length: int, *, after: int) -> int:
        recent = [(at, n) for at, n in zip(self.slots, self.increases, strict=True) if at > after]
        worst = inside = begin = 0
        for slot, increase in recent:
            inside += increase
            while recent[begin][0] <= slot - length:
                inside -= recent[begin][1]
                begin += 1
            worst = max(worst, inside)
        return worst


class _Series:
    """One counter of one GPU."""

    __slots__ = ("at", "lifetime", "tiers", "value", "watched")

    def __init__(self, value: int, at: float, *, lifetime: bool) -> None:
        self.value = value
        self.at = at
        self.lifetime = lifetime
        self.watched = False
        """Whether there were two values to compare."""
        self.tiers = tuple(_Tier() for _ in TIERS)

    def move(self, value: int, at: float) -> None:
        if at < self.at - MINUTE:
            # A clock set far back: when it was can no longer be told.
            self.value, self.at, self.tiers = value, at, tuple(_Tier() for _ in TIERS)
            return
        began = self.at
        at = max(at, began)
        increase = self._increase(value, at - began)
        if increase:
            for tier, (width, count) in zip(self.tiers, TIERS, strict=True):
                _spread(tier, increase, began, at, width, count)
        self.value, self.at, self.watched = value, at, True

    def _increase(self, value: int, seconds: float) -> int:
        if value >= self.value:
            return value - self.value
        since_reset = not self.lifetime and seconds <= RECENT and 2 * value <= self.value
        return value if since_reset else 0


def _spread(tier: _Tier, increase: int, began: float, ended: float, width: int, count: int) -> None:
    """Share an increase among the slots of the time in which it happened; its sum stays the same."""
    last = int(ended // width)
    first = min(int(began // width) + 1, last) if ended > began else last
    oldest = last - count + 1
    steps = last - first + 1
    for slot in range(max(first, oldest), last + 1):
        done, before = slot - first + 1, slot - first
        share = increase * done // steps - increase * before // steps
        if share:
            tier.add(slot, share, oldest=oldest)


_Whole = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class Stored(msgspec.Struct, frozen=True):
    """One counter as it is kept over a restart."""

    gpu: str
    name: str
    value: _Whole
    at: float
    lifetime: bool
    watched: bool
    tiers: tuple[tuple[tuple[_Whole, _Whole], ...], ...]
    """Per tier: (slot, increase)."""


class StoredCounters(msgspec.Struct, frozen=True):
    """What :meth:`Counters.dump` gives."""

    boot_id: str
    series: tuple[Stored, ...]


class Counters:
    """Every counter of every GPU; one instance is shared by the checks.

    Args:
        boot_id: of the running kernel; volatile counters that another boot left are not taken over.
    """

    def __init__(self, boot_id: str = "") -> None:
        self._boot_id = boot_id
        self._series: dict[tuple[str, str], _Series] = {}

    def observe(self, gpu_uuid: str, values: Mapping[str, int | None], at: float, *, lifetime: bool = False) -> None:
        """Take values that a sample gave; None (not read) changes nothing, the same sample twice is no news.

        Args:
            gpu_uuid: whose; empty (it would not say): ignored.
            values: counter by name, for example ``pcie.replays``. Names are the checks' own; one check, one prefix.
            at: Unix time in seconds of the sample.
            lifetime: the counters outlive a reboot (aggregate ECC, retired pages): a smaller value counts nothing.
        """
        for name, value in values.items():
            if value is None or value < 0 or not gpu_uuid:
                continue
            value = min(value, MAX_VALUE)  # noqa: PLW2901
            series = self._series.get((gpu_uuid, name))
            if series is not None:
                series.move(value, at)
            elif self._room(at):
                self._series[gpu_uuid, name] = _Series(value, at, lifetime=lifetime)

    def increase(self, gpu_uuid: str, name: str, window_seconds: float) -> int | None:
        """By how much a counter grew in the window that ends with its last value.

        A history shorter than the window gives what is known of it, which is no more than what happened: a limit may
        be compared at once. Windows: at least a minute, at most 8 days.

        Returns:
            Errors, never negative; None: fewer than two values so far.
        """
        series = self._series.get((gpu_uuid, name))
        if series is None or not series.watched:
            return None
        index = _tier_for(window_seconds)
        width = TIERS[index][0]
        return series.tiers[index].after(int((series.at - window_seconds) // width))

    def per_hour(self, gpu_uuid: str, name: str, window_seconds: float = HOUR) -> float | None:
        """The average rate in that window; a short history is not extrapolated. None: as :meth:`increase`."""
        increase = self.increase(gpu_uuid, name, window_seconds)
        return None if increase is None else increase * HOUR / window_seconds

    def worst(self, gpu_uuid: str, name: str, window_seconds: float, *, within_seconds: float) -> int | None:
        """The largest increase in any window that lies in the last ``within_seconds``: hysteresis without memory.

        A finding that stands while this is above its limit is raised at once, does not flap around the limit, clears
        by time, and survives a restart of the agent. ``within`` is at most 15 minutes for windows of minutes, 6 hours
        for windows of an hour, 8 days for longer ones.
        """
        series = self._series.get((gpu_uuid, name))
        if series is None or not series.watched:
            return None
        index = _tier_for(within_seconds)
        if not series.tiers[index].slots:  # As nearly always; a node has a thousand of them.
            return 0
        width = TIERS[index][0]
        return series.tiers[index].worst(
            max(1, int(window_seconds // width)), after=int((series.at - within_seconds) // width)
        )

    def dump(self) -> object:
        """Everything, as JSON or MessagePack can hold it."""
        series = tuple(
            Stored(
                gpu,
                name,
                held.value,
                held.at,
                held.lifetime,
                held.watched,
                tuple(tuple(zip(tier.slots, tier.increases, strict=True)) for tier in held.tiers),
            )
            for (gpu, name), held in self._series.items()
        )
        return msgspec.to_builtins(StoredCounters(self._boot_id, series))

    def load(self, stored: object) -> None:
        """Go on from what :meth:`dump` gave, in place of what is here.

        Raises:
            msgspec.ValidationError: it did not give that. Nothing is changed then.
        """
        data = msgspec.convert(stored, StoredCounters)
        same_boot = data.boot_id == self._boot_id
        self._series = {
            (one.gpu, one.name): _restored(one) for one in data.series[:MAX_SERIES] if same_boot or one.lifetime
        }

    def _room(self, at: float) -> bool:
        if len(self._series) >= MAX_SERIES:
            self._series = {key: held for key, held in self._series.items() if at - held.at < STALE}
        return len(self._series) < MAX_SERIES


def _tier_for(seconds: float) -> int:
    for index, (width, count) in enumerate(TIERS):
        if seconds <= width * count:
            return index
    return len(TIERS) - 1


def _restored(one: Stored) -> _Series:
    series = _Series(one.value, one.at, lifetime=one.lifetime)
    series.watched = one.watched
    for tier, slots, (_, count) in zip(series.tiers, one.tiers, TIERS, strict=False):
        for slot, increase in slots[-count:]:
            tier.slots.append(slot)
            tier.increases.append(increase)
    return series
