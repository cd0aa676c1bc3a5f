"""The kernel's lines as systemd's journal keeps them, in its export format (systemd, JOURNAL_EXPORT_FORMATS). Pure.

An entry is fields and an empty line. A field is ``NAME=value``, or, where the value holds a newline or is no text,
``NAME``, a newline, its length as 64 bits little-endian, the value, a newline. Fields whose name begins with ``_``
are journald's own: no process can set them.
"""

import re

import msgspec

from gpudiag_agent.kernel_log.record import LONGEST_RECORD, Record, clean

_WANTED = frozenset(
    {
        b"MESSAGE",
        b"MESSAGE_ID",
        b"SYSLOG_FACILITY",
        b"_BOOT_ID",
        b"_SOURCE_MONOTONIC_TIMESTAMP",
        b"_TRANSPORT",
        b"__CURSOR",
        b"__MONOTONIC_TIMESTAMP",
    }
)
_LONGEST_NAME = 64
"""Bytes of a field's name (sd-journal's own bound)."""
_LARGEST_FIELD = 768 << 20
"""Bytes: what journald accepts at most (DATA_SIZE_MAX). A larger length is no length but a stream out of step."""
MISSED = "e9bf28e6e834481bb6f48f548ad13606"
"""MESSAGE_ID by which journald says that the kernel's ring overran before it read it (sd-messages.h)."""
_MISSED_COUNT = re.compile(rb"Missed (\d{1,19}) kernel messages")


class Entry(msgspec.Struct, frozen=True):
    """The fields of one journal entry that this program reads."""

    fields: dict[bytes, bytes]

    @property
    def cursor(self) -> str | None:
        """Journald's name for the entry; None where it has none, or an absurd one."""
        cursor = self.fields.get(b"__CURSOR", b"")
        return cursor.decode("ascii") if cursor.isascii() and 0 < len(cursor) <= 512 else None

    @property
    def microseconds(self) -> int | None:
        """Since boot, by the kernel's own stamp, else by when journald got it."""
        for name in (b"_SOURCE_MONOTONIC_TIMESTAMP", b"__MONOTONIC_TIMESTAMP"):
            value = self.fields.get(name, b"")
            if value.isdigit() and len(value) <= 18:
                return int(value)
        return None

    @property
    def missed(self) -> int | None:
        """How many records journald itself came too late for; None: this entry says nothing of that."""
        if self.fields.get(b"MESSAGE_ID") != MISSED.encode() or self.fields.get(b"_TRANSPORT") != b"driver":
            return None
        count = _MISSED_COUNT.match(self.fields.get(b"MESSAGE", b""))
        return int(count[1]) if count else 0

    def is_of(self, boot_id: str) -> bool:
        """Whether it belongs to that boot (written with dashes); an unknown boot, an empty id, is any."""
        return not boot_id or self.fields.get(b"_BOOT_ID", b"") == boot_id.replace("-", "").encode()

    def record(self) -> Record | None:
        """The kernel's line; None for any other entry, also for what a process wrote to ``/dev/kmsg``."""
        fields = self.fields
        if fields.get(b"_TRANSPORT") != b"kernel" or fields.get(b"SYSLOG_FACILITY") != b"0":
            return None
        text = clean(fields.get(b"MESSAGE", b"")[:LONGEST_RECORD], escaped=False)
        return Record(text, microseconds=self.microseconds) if text.strip() else None


class ExportParser:
    """Bytes in any portions → entries. Keeps at most one entry of wanted fields, each cut at the longest record.

    Nothing it is fed makes it fail: what is no field is left out, and an absurd length loses the entry it stands in.
    """

    def __init__(self) -> None:
        self.pending = 0
        """Bytes taken since the last complete entry."""
        self._data = b""
        self._at = 0
        """Where in the data the next thing begins."""
        self._fields: dict[bytes, bytes] = {}
        self._name: bytes | None = None
        """Of the binary field whose length or value is being read."""
        self._left: int | None = None
        """Bytes of its value that are still to come."""
        self._value = b""
        self._overlong = False
        """Within a text line longer than is kept."""
        self._broken = False
        """Within an entry that is not understood."""

    def feed(self, chunk: bytes) -> list[Entry]:
        """Take the next bytes; gives the entries they complete."""
        entries: list[Entry] = []
        self._data += chunk
        self.pending += len(chunk)
        while self._line(entries) if self._name is None else self._binary(self._name):
            pass
        self._data, self._at = self._data[self._at :], 0
        return entries

    def _line(self, entries: list[Entry]) -> bool:
        """Take one line; whether there was one."""
        end = self._data.find(b"\n", self._at)
        if end < 0:
            self._bound()
            return False
        line, self._at = self._data[self._at : end], end + 1
        if self._overlong:
            self._overlong = False
        elif not line:
            self._complete(entries)
        elif b"=" in line:
            self._keep(*line.split(b"=", 1))
        elif len(line) <= _LONGEST_NAME and not self._broken:
            self._name = line
        else:
            self._broken = True
        return True

    def _bound(self) -> None:
        """Of a line without an end, use the head and drop the rest as it comes."""
        rest = self._data[self._at :]
        if self._overlong or len(rest) >= 2 * LONGEST_RECORD:
            if not self._overlong and b"=" in rest:
                self._keep(*rest.split(b"=", 1))
            self._overlong = True
            self._at = len(self._data)

    def _binary(self, name: bytes) -> bool:
        """Take the length, a part of the value or the newline after it; whether there was any of it."""
        there = len(self._data) - self._at
        if self._left is None:
            if there < 8:
                return False
            size = int.from_bytes(self._data[self._at : self._at + 8], "little")
            self._at += 8
            if size > _LARGEST_FIELD:
                # Out of step. The next empty line is where an entry may begin.
                self._broken, self._name = True, None
            else:
                self._left, self._value = size, b""
            return True
        if there == 0:
            return False
        if self._left == 0:
            self._keep(name, self._value)
            self._name, self._left, self._value = None, None, b""
            self._at += 1
            return True
        taken = min(self._left, there)
        self._value += self._data[self._at : self._at + min(taken, LONGEST_RECORD - len(self._value))]
        self._left -= taken
        self._at += taken
        return True

    def _keep(self, name: bytes, value: bytes) -> None:
        if name in _WANTED:
            self._fields.setdefault(name, value[:LONGEST_RECORD])

    def _complete(self, entries: list[Entry]) -> None:
        if self._fields and not self._broken:
            entries.append(Entry(self._fields))
        self._fields, self._broken = {}, False
        self.pending = len(self._data) - self._at
