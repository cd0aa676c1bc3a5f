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
_MATTERS = re.compile(rb"NVRM|nvidia|libnccl")
"""One word of each family of lines that the parsers know; a test holds them to it."""

LONGEST_RECORD = 16384
"""Bytes. The kernel's longest record is about 9 KB with all its escapes."""


class Record(msgspec.Struct, frozen=True):
    """One line of the kernel log."""

    text: str
    """Unescaped; newlines within one record are kept, other control characters are blanks."""
    sequence: int | None = None
    """The kernel's number for it, never reused within a boot. None: the line had no head, or came from the journal."""
    microseconds: int | None = None
    """Since boot. None: the line had no head."""


def may_matter(raw: bytes) -> bool:
    """Whether a line, a chunk of lines or a message can hold anything that :func:`~.parse.parse` understands.

    A node writes thousands of lines about other things; this looks at them at a fraction of the cost of reading them.
    """
    return _MATTERS.search(raw) is not None


def parse(raw: bytes, *, plain: bool = True) -> Record | None:
    """Read one record.

    Args:
        raw: what one ``read()`` of the device gave, or one line of a file, with or without its newline.
        plain: whether a line without a head is kernel text. Not on the device: there the facility decides.

    Returns:
        The record; None for an empty one, and for one that a process wrote rather than the kernel.
    """
    # After the first newline come KEY=value details of the device, never text.
    line = raw[:LONGEST_RECORD].partition(b"\n")[0].rstrip(b"\r")
    head = _HEAD.match(line)
    if head is None:
        text = clean(line, escaped=True)
        # A detail line, " KEY=value", reaches a file as a line of its own.
        return None if not plain or not text.strip() or line.startswith(b" ") else Record(text)
    if int(head[1]) >> 3 != _KERNEL:
        return None
    return Record(clean(line[head.end() :], escaped=True), int(head[2]), int(head[3]))


def stamp(raw: bytes) -> tuple[int, int] | None:
    """Sequence number and microseconds of a record with a head, whoever wrote it; None without one."""
    fields = raw[:64].split(b",", 3)
    if len(fields) == 4 and fields[1].isdigit() and fields[2].isdigit():
        return int(fields[1]), int(fields[2])
    return None


def clean(text: bytes, *, escaped: bool) -> str:
    r"""Text for people and patterns: no control character but the newline; ``\x0a`` is one where ``escaped``."""
    if escaped and b"\\x" in text:
        text = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), text)
    return _CONTROL.sub(" ", text.decode(errors="replace"))
