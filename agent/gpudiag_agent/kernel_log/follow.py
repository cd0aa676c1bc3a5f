"""Follows one open log until it ends: device, FIFO, or a file the way ``tail -F`` does. On the event loop.

Each reader here hands over whole portions between two waits, so what the intake holds is always consistent.
"""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from gpudiag_agent.clock import Clock
from gpudiag_agent.kernel_log.intake import FileMark, Intake
from gpudiag_agent.kernel_log.journal import ExportParser
from gpudiag_agent.kernel_log.record import LONGEST_RECORD

FILE_PERIOD = 0.1
"""Seconds between two looks at a file: half of the 0.2 s in which a line must reach the report."""
_BATCH = 200
"""Records taken before the event loop gets a turn, so that a full ring does not hold up HTTP."""
_CHUNK = 1 << 16
_TAIL = 64
"""Bytes by which a file is known again."""


class Form(Protocol):
    """What the bytes of a stream or file are."""

    @property
    def pending(self) -> int:
        """Bytes taken that are no complete line or entry yet."""
        ...

    def take(self, chunk: bytes) -> None:
        """Take the next bytes and pass on what they complete."""
        ...


class Lines:
    """Kernel lines or records, one a line. A line without an end is kept back, up to a bound."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._rest = b""
        self.pending = 0
        """See :class:`Form`."""

    def take(self, chunk: bytes) -> None:
        """See :class:`Form`."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        self.pending = len(rest) if lines else self.pending + len(chunk)
        # Never longer than a record: a writer that sends no newline must not fill the memory.
        self._rest = rest[:LONGEST_RECORD]
        self._intake.lines(lines)


class Export:
    """Entries in the journal's export format."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._parser = ExportParser()

    @property
    def pending(self) -> int:
        """See :class:`Form`."""
        return self._parser.pending

    def take(self, chunk: bytes) -> None:
        """See :class:`Form`."""
        self._intake.entries(self._parser.feed(chunk))


async def device(descriptor: int, intake: Intake, *, caught_up: Callable[[], None]) -> None:
    """Read ``/dev/kmsg`` for ever. One read gives one record.

    Raises:
        OSError: it broke, or is no kernel log.
    """
    intake.opened()
    while True:
        for _ in range(_BATCH):
            try:
                raw = os.read(descriptor, LONGEST_RECORD)
            except BlockingIOError:
                intake.device_read()
                caught_up()
                await readable(descriptor)
                break
            except BrokenPipeError:
                continue  # Overrun: the next read goes on at the oldest record left; the intake sees the jump.
            if not raw:  # Not a kernel log after all, for example /dev/null.
                raise OSError(errno.ENODATA, "it ends, so it is no kernel log")
            intake.device(raw)
        await asyncio.sleep(0)


async def stream(descriptor: int, form: Form, *, caught_up: Callable[[], None]) -> None:
    """Read a FIFO or pipe until its last writer leaves."""
    while True:
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            caught_up()
            await readable(descriptor)
            continue
        if not chunk:
            return
        form.take(chunk)
        await asyncio.sleep(0)


async def file(
    path: Path,
    descriptor: int,
    intake: Intake,
    form: Callable[[Intake], Form],
    *,
    clock: Clock,
    caught_up: Callable[[], None],
) -> None:
    """Read a file from where it was left, and on as it grows, until it is replaced."""
    here = os.fstat(descriptor)
    offset = _start(descriptor, here, intake.file)
    reading = form(intake)
    while True:
        chunk = os.pread(descriptor, _CHUNK, offset)
        if chunk:
            reading.take(chunk)
            offset += len(chunk)
            intake.file = _mark(descriptor, here, offset - reading.pending)
            await asyncio.sleep(0)
            continue
        caught_up()
        await clock.sleep(FILE_PERIOD)
        now = os.fstat(descriptor)
        if now.st_size < offset:
            offset, reading = 0, form(intake)  # Truncated: what is in it now is new.
        elif now.st_size == offset and _replaced(path, now):
            return


def _start(descriptor: int, here: os.stat_result, mark: FileMark | None) -> int:
    """Where to begin: behind what was read, where this is still that file; else at its start."""
    same = mark is not None and here.st_size >= mark.offset and _mark(descriptor, here, mark.offset) == mark
    return mark.offset if mark is not None and same else 0


def _mark(descriptor: int, here: os.stat_result, offset: int) -> FileMark:
    start = max(offset - _TAIL, 0)
    tail = os.pread(descriptor, offset - start, start)
    return FileMark(device=here.st_dev, inode=here.st_ino, offset=offset, tail=tail.hex())


async def readable(descriptor: int) -> None:
    """Wait until there is something to read."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


def _replaced(path: Path, here: os.stat_result) -> bool:
    try:
        there = path.stat()
    except OSError:
        return True
    return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)
