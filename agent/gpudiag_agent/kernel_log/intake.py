"""What was read → records, each exactly once: the cursor, and the gaps where somebody overwrote what nobody read. Pure.

A record is handed on before the cursor passes it, in one step of the event loop. Whoever stores the cursor together
with what the records led to, and restores both, has counted each record once, whenever the process was killed.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Annotated, Literal

import msgspec

from gpudiag_agent.kernel_log import record as kmsg
from gpudiag_agent.kernel_log.journal import Entry
from gpudiag_agent.kernel_log.record import Record, may_matter

_log = logging.getLogger(__name__)

MAX_GAPS = 16
"""The newest are kept; the wire carries as many."""

Kind = Literal["device", "journal"]
_Natural = Annotated[int, msgspec.Meta(ge=0)]


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Records of the kernel log that nobody read."""

    boot_id: str
    after: int | None = None
    """Sequence number of the last record read before it; None in the journal, which has no such numbers."""
    before: int | None = None
    """Sequence number of the first record read after it."""
    lost: int | None = None
    """How many; None where that is not known."""
    at: float
    """Unix time at which it was noticed."""


class FileMark(msgspec.Struct, frozen=True, kw_only=True):
    """How far a log file was read, and by what to know that it is still the same file."""

    device: int
    inode: int
    offset: _Natural
    """Bytes up to the last complete line or entry."""
    tail: str
    """The last bytes before that offset, hexadecimal."""


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """The cursor: what was read last within one boot, in each kind of log that was read."""

    sequence: _Natural | None = None
    """Of ``/dev/kmsg``."""
    journal: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    """Journald's cursor."""
    file: FileMark | None = None
    microseconds: _Natural | None = None
    """The newest record's: where to go on in a log of another kind."""


class Intake:
    """Takes what the followers read and passes on what is new.

    Args:
        boot_id: of this boot.
        now: Unix time, for gaps.
        on_record: called for every kernel record that may matter, oldest first.
        on_gap: called when records turn out to be lost.
    """

    def __init__(
        self,
        *,
        boot_id: str = "",
        now: Callable[[], float],
        on_record: Callable[[Record], None],
        on_gap: Callable[[], None] = lambda: None,
    ) -> None:
        self.boot_id = boot_id
        self._now = now
        self._on_record = on_record
        self._on_gap = on_gap
        self._sequence: int | None = None
        self._journal: str | None = None
        self._microseconds: int | None = None
        self._before: int | None = None
        """Microseconds up to which another kind of log was read already."""
        self._kind: Kind | None = None
        """What was read last in this life of the process."""
        self._elsewhere = False
        """Whether the other kind was read since this one was: its own cursor lags behind."""
        self._newest_seen: int | None = None
        self.file: FileMark | None = None
        self.gaps: deque[Gap] = deque(maxlen=MAX_GAPS)
        self.lost_records = 0
        """Records that were overwritten before they were read, in this life of the process."""
        self.failures = 0
        """Records that could not be judged: each a bug, logged, and left behind."""

    @property
    def position(self) -> Position:
        """Where to go on after a restart in this boot."""
        return Position(sequence=self._sequence, journal=self._journal, file=self.file, microseconds=self._microseconds)

    def resume(self, position: Position) -> None:
        """Go on there. Before anything is read."""
        self._sequence, self._journal, self.file = position.sequence, position.journal, position.file
        self._microseconds = self._before = position.microseconds

    def turn(self, kind: Kind) -> None:
        """A log of that kind is about to be read: it goes on where one of the other kind was left, if that was read."""
        self._elsewhere = self._kind not in {None, kind}
        if self._elsewhere:
            self._before = self._microseconds

    @property
    def journal_cursor(self) -> str | None:
        """Where journald is to go on; None: at the beginning of this boot."""
        return self._journal

    def forget_journal_cursor(self) -> None:
        """Journald does not know it; the time of the newest record says what is new."""
        self._journal, self._before = None, self._microseconds

    def opened(self) -> None:
        """The device was opened: it begins with its oldest record."""
        self._newest_seen = None

    def device(self, raw: bytes) -> None:
        """Take one record of ``/dev/kmsg``."""
        stamp = kmsg.stamp(raw)
        if stamp is None:
            return
        sequence, microseconds = stamp
        self._newest_seen = sequence
        known = self._before is not None and microseconds <= self._before
        if self._sequence is None:
            if known:
                return  # Read in the journal already.
        elif sequence <= self._sequence:
            return
        elif known and self._elsewhere:
            self._sequence = sequence
            return
        elif sequence > self._sequence + 1:
            self._gap(after=self._sequence, before=sequence, lost=sequence - self._sequence - 1)
        if may_matter(raw):
            self._deliver(kmsg.parse(raw, plain=False))
        self._sequence, self._microseconds, self._kind = sequence, microseconds, "device"

    def device_read(self) -> None:
        """The device has nothing more for now.

        A cursor beyond the newest record is of another log: a virtual machine was set back to a snapshot with this
        boot's id. Kept, it would hide every record up to that number.
        """
        if self._sequence is not None and self._newest_seen is not None and self._newest_seen < self._sequence:
            _log.warning(
                "the kernel log ends before the stored cursor: reading goes on at its end",
                extra={"cursor": self._sequence, "newest": self._newest_seen},
            )
            self._gap(before=self._newest_seen + 1)
            self._sequence = self._newest_seen

    def lines(self, lines: Iterable[bytes]) -> None:
        """Take lines of a file or FIFO that the user named: records, or plain kernel text."""
        for line in lines:
            if may_matter(line):
                self._deliver(kmsg.parse(line))

    def entries(self, entries: Iterable[Entry]) -> None:
        """Take entries of the journal."""
        for entry in entries:
            self._entry(entry)

    def _entry(self, entry: Entry) -> None:
        if not entry.is_of(self.boot_id):
            return
        microseconds = entry.microseconds
        known = self._before is not None and (self._journal is None or self._elsewhere)
        if known and microseconds is not None and microseconds <= (self._before or 0):
            return  # Read in /dev/kmsg already.
        if entry.missed is not None:
            self._gap(lost=entry.missed or None)
        elif may_matter(entry.fields.get(b"MESSAGE", b"")):
            self._deliver(entry.record())
        self._journal, self._kind = entry.cursor or self._journal, "journal"
        if microseconds is not None:
            self._microseconds = microseconds

    def _deliver(self, record: Record | None) -> None:
        if record is None:
            return
        try:
            self._on_record(record)
        except Exception:  # noqa: BLE001 - a line that nobody can judge must not be met again after every restart
            self.failures += 1
            _log.exception("a line of the kernel log could not be judged", extra={"line": record.text[:256]})

    def _gap(self, *, after: int | None = None, before: int | None = None, lost: int | None = None) -> None:
        self.lost_records += lost or 0
        self.gaps.append(Gap(boot_id=self.boot_id, after=after, before=before, lost=lost, at=self._now()))
        _log.warning("the kernel log overran: records were lost before they could be read", extra={"records": lost})
        self._on_gap()
