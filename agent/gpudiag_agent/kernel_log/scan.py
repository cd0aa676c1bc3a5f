"""A log of any size → the XIDs and SXids in it, in their order. Constant memory; most lines are never looked at."""

import re
from collections.abc import Iterable, Iterator

import msgspec

from gpudiag_agent.kernel_log import fabric_manager, parse, prefix, record
from gpudiag_agent.kernel_log.fabric_manager import FabricManagerLine
from gpudiag_agent.kernel_log.parse import LostBegin, LostEnd, LostLine, XIDLine
from gpudiag_agent.kernel_log.sxid import SXIDLine

LONGEST_LINE = 16384
"""Bytes; the rest of a longer line is not read."""
CHUNK = 1 << 18

_NEEDLES = (b"Xid (", b"fallen off the bus", b"NVRM: The NVIDIA GPU ", b"detected NVSwitch ")
"""One of them is in every line that can matter."""
_RECORD = re.compile(rb"\d{1,6},\d{1,20},\d{1,20},[^;]{0,256};")
_LOST_SPAN = 8
"""Lines that may stand between the first and the last of a lost GPU's three."""

Found = XIDLine | SXIDLine | LostLine | FabricManagerLine


class Hit(msgspec.Struct, frozen=True):
    """One line of the log that means something."""

    number: int
    """Of the line, from 1."""
    what: Found


def read_line(raw: bytes) -> Found | LostBegin | LostEnd | None:
    """What one line says, with whatever stands before it; None: no XID, or not the kernel's."""
    raw = raw[:LONGEST_LINE]
    if raw[:1].isdigit() and _RECORD.match(raw):
        taken = record.parse(raw)
        text = "" if taken is None else taken.text
    else:
        text = prefix.strip(raw.decode(errors="replace").rstrip("\r\n").replace("\\x0a", "\n"))
    line = parse.parse(text) or fabric_manager.parse(text)
    return line if isinstance(line, Found | LostBegin | LostEnd) else None


def scan(chunks: Iterable[bytes]) -> Iterator[Hit]:
    """Read a log.

    Args:
        chunks: the bytes as they come, cut anywhere.
    """
    number = 0
    losing: tuple[str, int] | None = None
    for block in _whole_lines(chunks):
        if not any(needle in block for needle in _NEEDLES):
            number += block.count(b"\n")
            continue
        for raw in block.split(b"\n")[:-1]:
            number += 1
            if not any(needle in raw for needle in _NEEDLES):
                continue
            line = read_line(raw)
            if isinstance(line, LostBegin):
                losing = (line.pci, number)
                continue
            if isinstance(line, LostEnd):
                if losing is None or number - losing[1] > _LOST_SPAN:
                    continue
                line, losing = LostLine(losing[0]), None
            if line is not None:
                yield Hit(number, line)


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Blocks that end with a newline; a line that grows beyond the bound loses its rest."""
    tail, overlong = b"", False
    for chunk in chunks:
        fresh = chunk
        if overlong:
            _, newline, fresh = chunk.partition(b"\n")
            if not newline:
                continue
            overlong = False
        whole, newline, tail = (tail + fresh).rpartition(b"\n")
        if newline:
            yield whole + newline
        if len(tail) > LONGEST_LINE:
            yield tail[:LONGEST_LINE] + b"\n"
            tail, overlong = b"", True
    if tail:
        yield tail + b"\n"
