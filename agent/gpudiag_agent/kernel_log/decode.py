"""Lines in their order → events with an identity and a time.

Two things need the line before: a lost GPU told in three separate lines, and a serial number that belongs to the
GPU named just above it. An event's id is the same after a restart that reads the same log again.
"""

import hashlib
from collections import deque
from typing import Annotated

import msgspec

from gpudiag_agent.kernel_log.boot import Boot, Drift, KernelTimes
from gpudiag_agent.kernel_log.parse import (
    IdentityLine,
    LostBegin,
    LostEnd,
    LostLine,
    Said,
    SerialLine,
    parse,
)
from gpudiag_agent.kernel_log.record import Record

_REMEMBERED = 4096
"""Recent events of the driver whose repeats are recognised after a log file was rewritten."""
_LOST_SPAN = 8
"""Lines of the driver that may stand between the first and the last of a lost GPU's three."""
_REPEATED = 1024
"""Lines without a number whose repeats are told apart."""


class KernelEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something the driver said, once."""

    id: str
    """``<boot id>/<sequence>``; in the journal ``<microseconds, hexadecimal>.<hash of the text>`` after the slash, for
    a plain line the hash and its ordinal."""
    at: float
    """Unix time in seconds."""
    what: Said


class Midway(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the decoder knows of the lines before the next one."""

    named: str | None = None
    losing: tuple[str, int] | None = None
    ordinals: Annotated[dict[str, int], msgspec.Meta(max_length=_REPEATED)] = {}
    drift: Drift = Drift()


class Decoder:
    """Turns records into events, each exactly once.

    Args:
        boot: the boot whose log is read.
        times: of its records; by default those of a clock that never drifts nor steps.
    """

    def __init__(self, boot: Boot, *, times: KernelTimes | None = None) -> None:
        self._boot = boot
        self._times = times or KernelTimes(lambda: boot.started_at)
        self._ordinals: dict[str, int] = {}
        self._seen: deque[str] = deque(maxlen=_REMEMBERED)
        self._seen_set: set[str] = set()
        self._named: str | None = None
        self._losing: tuple[str, int] | None = None

    @property
    def midway(self) -> Midway:
        """What a restart between two lines must not forget."""
        return Midway(named=self._named, losing=self._losing, ordinals=dict(self._ordinals), drift=self._times.drift)

    def resume(self, midway: Midway) -> None:
        """Go on from there. Before the first record."""
        self._named, self._losing, self._ordinals = midway.named, midway.losing, dict(midway.ordinals)
        self._times.drift = midway.drift

    def feed(self, record: Record, now: float, *, live: bool = False) -> KernelEvent | None:
        """Take the next record.

        Args:
            record: of this boot.
            now: when it was read, in Unix seconds.
            live: whether it was read as it was written, not from what the log held already.
        """
        at = now
        if record.microseconds is not None:
            at = self._times.at(record.microseconds, now=now, live=live)
        line = parse(record.text)
        if self._losing is not None:
            address, left = self._losing
            self._losing = (address, left - 1) if left else None
        if line is None:
            return None
        if isinstance(line, LostBegin):
            self._losing = (line.pci, _LOST_SPAN)
            return None
        if isinstance(line, LostEnd):
            if self._losing is None:
                return None
            line, self._losing = LostLine(self._losing[0]), None
        if isinstance(line, SerialLine) and line.pci is None:
            if self._named is None:
                return None
            line = SerialLine(line.serial, self._named)
        self._named = line.pci if isinstance(line, IdentityLine) else None
        identity = self._identity(record)
        if not self._first_time(identity, record):
            return None
        return KernelEvent(id=identity, at=at, what=line)

    def _identity(self, record: Record) -> str:
        if record.sequence is not None:
            return f"{self._boot.id}/{record.sequence}"
        digest = hashlib.blake2b(record.text.encode(), digest_size=6).hexdigest()
        if record.microseconds is not None:
            return f"{self._boot.id}/{record.microseconds:x}.{digest}"
        if len(self._ordinals) >= _REPEATED and digest not in self._ordinals:
            self._ordinals.pop(next(iter(self._ordinals)))
        ordinal = self._ordinals[digest] = self._ordinals.get(digest, 0) + 1
        return f"{self._boot.id}/{digest}.{ordinal}"

    def _first_time(self, identity: str, record: Record) -> bool:
        if record.sequence is None:
            return True
        # The text is part of it: a hand-written file may use one number twice for different lines.
        key = f"{identity} {hashlib.blake2b(record.text.encode(), digest_size=8).hexdigest()}"
        if key in self._seen_set:
            return False
        if len(self._seen) == self._seen.maxlen:
            self._seen_set.discard(self._seen[0])
        self._seen.append(key)
        self._seen_set.add(key)
        return True
