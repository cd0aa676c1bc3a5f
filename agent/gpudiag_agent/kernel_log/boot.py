"""This boot of the node: its id, when it began, and what time a kernel timestamp is."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from gpudiag_agent.state.bounds import Moment

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FASTEST_DRIFT = 5e-4
"""Seconds per second. NTP slews a clock by no more than this (adjtimex(2)), and crystals are ten times better."""


class Boot(msgspec.Struct, frozen=True):
    """One boot of the kernel."""

    id: str
    """The kernel's random boot id; empty where it cannot be read."""
    started_at: float
    """Unix time in seconds."""


def current(path: Path = _BOOT_ID) -> Boot:
    """The boot this process runs in."""
    try:
        boot_id = path.read_text(encoding="ascii").strip()[:36]
    except (OSError, UnicodeDecodeError):
        boot_id = ""
    return Boot(boot_id, time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))


def monotonic_zero() -> float:
    """Unix time at which CLOCK_MONOTONIC would have been 0, by what the wall clock says now.

    Asked anew for every record: a clock that NTP sets late puts even the first lines of a boot right.
    """
    return time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)


class Drift(msgspec.Struct, frozen=True):
    """How fast CLOCK_MONOTONIC runs against the kernel log's clock, as last seen."""

    rate: Annotated[float, msgspec.Meta(ge=-_FASTEST_DRIFT, le=_FASTEST_DRIFT)] = 0.0
    """Seconds gained per second."""
    measured_at: Moment | None = None
    """Seconds on the kernel log's clock. None: never."""


class KernelTimes:
    """Microseconds of the kernel log → Unix time.

    The log is stamped by ``local_clock()``: like CLOCK_MONOTONIC it stands still while the node is suspended, but NTP
    does not discipline it, so after a month the two are apart by seconds to minutes (what makes ``dmesg -T`` wrong).
    How far is seen when a record arrives as it is written: what it is older than its arrival is that distance plus
    the delay of reading. Delays only add, so the smallest distance is believed at once, a larger one no faster than
    clocks can drift.

    A record from before the last suspend comes out late by the time slept; GPU nodes do not sleep.

    Args:
        zero: Unix time at which the monotonic clock was 0.
    """

    def __init__(self, zero: Callable[[], float] = monotonic_zero) -> None:
        self._zero = zero
        self.drift = Drift()

    def at(self, microseconds: int, *, now: float, live: bool) -> float:
        """Unix time of a record, never after ``now``.

        Args:
            microseconds: of the record, since boot.
            now: Unix time at which it was read.
            live: whether it was read as it was written, not from what the log held already.
        """
        zero, stamp = self._zero(), microseconds / 1e6
        self._learn(stamp, now - zero - stamp, live=live)
        return min(now, zero + stamp * (1 + self.drift.rate))

    def _learn(self, stamp: float, distance: float, *, live: bool) -> None:
        if stamp <= 0:
            return
        known, measured_at = self.drift.rate * stamp, self.drift.measured_at
        if distance > known:
            if not live:
                return  # It is simply old.
            if measured_at is not None:
                distance = min(distance, known + max(stamp - measured_at, 0) * _FASTEST_DRIFT)
        rate = min(max(distance / stamp, -_FASTEST_DRIFT), _FASTEST_DRIFT)
        self.drift = Drift(rate, stamp if live else measured_at)
