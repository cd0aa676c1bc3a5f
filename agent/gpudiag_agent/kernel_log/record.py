r"""Records of ``/dev/kmsg``: ``PRIO,SEQ,MICROSECONDS,FLAGS;TEXT`` (Linux, Documentation/ABI/testing/dev-kmsg).

A line without that head is kernel text that arrived just now: the form of a log file, or of an injected test line.
"""

import re

import msgspec

_HEAD = re.compile(rb"(\d{1,6}),(\d{1,20}),(\d{1,20}),[^;]{0,256};")
_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\u2028\u2029]")
_KERNEL = 0
"""Facility of the kernel. No process can write it (ABI document), so everything else may be forged."""

LONGEST_RECORD = 16384
"""Bytes. The kernel's longest record is about 9 KB with all its escapes."""


class Record(msgspec.Struct, frozen=True):
    """One line of the kernel log."""

    text: str
    """Unescaped; newlines within one record are kept, other control characters are blanks."""
    sequence: int | None = None
    """The kernel's number for it, never reused within a boot. None: the line had no head."""
    microseconds: int | None = None
    """Since boot. None: the line had no head."""


def parse(raw: bytes) -> Record | None:
    """Read one record.

    Args:
        raw: what one ``read()`` of the device gave, or one line of a file, with or without its newline.

    Returns:
        The record; None for an empty one, and for one that a process wrote rather than the kernel.
    """
    # After the first newline come KEY=value details of the device, never text.
    line = raw[:LONGEST_RECORD].partition(b"\n")[0].rstrip(b"\r")
    head = _HEAD.match(line)
    if head is None:
        text = _clean(line)
        # A detail line, " KEY=value", reaches a file as a line of its own.
        return None if not text.strip() or line.startswith(b" ") else Record(text)
    if int(head[1]) >> 3 != _KERNEL:
        return None
    return Record(_clean(line[head.end() :]), int(head[2]), int(head[3]))


def _clean(line: bytes) -> str:
    unescaped = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), line)
    return _CONTROL.sub(" ", unescaped.decode(errors="replace"))
