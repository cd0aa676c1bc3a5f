"""Lines in their order → events with an identity and a time.

Two things need the line before: a lost GPU told in three separate lines, and a serial number that belongs to the
GPU named just above it. An event's id is the same after a restart that reads the same log again.
"""

import hashlib
from collections import deque

import msgspec

from gpudiag_agent.kernel_log.boot import Boot
from gpudiag_agent.kernel_log.parse import (
    DriverLoaded,
    IdentityLine,
    LostBegin,
    LostEnd,
    LostLine,
    SerialLine,
    XIDLine,
    parse,
)
from gpudiag_agent.kernel_log.record import Record

_REMEMBERED = 4096
"""Recent events of the driver whose repeats are recognised after a log file was rewritten."""
_LOST_SPAN = 8
"""Lines that may stand between the first and the last of a lost GPU's three."""


class KernelEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something the driver said, once."""

    id: str
    """``<boot id>/<sequence>``; for a line without a sequence number a hash of its text and its ordinal."""
    at: float
    """Unix time in seconds."""
    what: XIDLine | LostLine | IdentityLine | SerialLine | DriverLoaded


class Decoder:
    """Turns records into events, each exactly once.

    Args:
        boot: the boot whose log is read.
    """

    def __init__(self, boot: Boot) -> None:
        self._boot = boot
        self._ordinals: dict[str, int] = {}
        self._seen: deque[str] = deque(maxlen=_REMEMBERED)
        self._seen_set: set[str] = set()
        self._named: str | None = None
        self._losing: tuple[str, int] | None = None

    def feed(self, record: Record, now: float) -> KernelEvent | None:
        """Take the next record; ``now`` is when it arrived, in Unix seconds."""
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
        at = now if record.microseconds is None else self._boot.started_at + record.microseconds / 1e6
        # A boot time read before the node's clock was set would put an event into the future.
        return KernelEvent(id=identity, at=min(at, now), what=line)

    def _identity(self, record: Record) -> str:
        if record.sequence is not None:
            return f"{self._boot.id}/{record.sequence}"
        digest = hashlib.blake2b(record.text.encode(), digest_size=6).hexdigest()
        if len(self._ordinals) >= _REMEMBERED and digest not in self._ordinals:
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
