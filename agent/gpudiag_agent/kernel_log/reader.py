"""Reads the kernel log as it grows: ``/dev/kmsg``, a FIFO, or a file followed the way ``tail -F`` does.

On the event loop, without a thread: the device and the FIFO tell when there is something to read, a file is looked
at ten times a second. Nothing here touches NVML, so a hung driver cannot stop it.
"""

import asyncio
import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

from gpudiag_agent.clock import Clock
from gpudiag_agent.kernel_log.record import LONGEST_RECORD, Record, parse

_log = logging.getLogger(__name__)

_FILE_PERIOD = 0.1
"""Seconds between two looks at a file: half of the 0.2 s in which a line must reach the report."""
_RETRY = 2.0
"""Seconds until a log that could not be opened is tried again."""
_BATCH = 200
"""Records taken before the event loop gets a turn, so that a full ring does not hold up HTTP."""
_CHUNK = 1 << 16


class KernelLogReader:
    """Follows one kernel log for the life of the process.

    Args:
        path: the device, FIFO or file.
        clock: for the waits.
        on_record: called on the event loop for every kernel record, oldest first.
        on_change: called when the log becomes readable or unreadable.
    """

    def __init__(
        self, path: Path, *, clock: Clock, on_record: Callable[[Record], None], on_change: Callable[[], None]
    ) -> None:
        self._path = path
        self._clock = clock
        self._on_record = on_record
        self._on_change = on_change
        self._last_sequence: int | None = None
        self.problem: str | None = None
        """Why the log cannot be read, for people; None while it can."""
        self.lost_records = 0
        """Records of the device that were overwritten before they were read."""
        self.caught_up = asyncio.Event()
        """Set once what the log held at the start was read, or could not be."""

    async def run(self) -> None:
        """Read until cancelled. A log that cannot be opened, or breaks, is tried again for ever."""
        while True:
            try:
                descriptor = self._open()
            except OSError as error:
                self._set_problem(_explain(self._path, error))
            else:
                try:
                    await self._follow(descriptor)
                except OSError as error:
                    self._set_problem(_explain(self._path, error))
                finally:
                    os.close(descriptor)
            self.caught_up.set()
            await self._clock.sleep(_RETRY if self.problem else _FILE_PERIOD)

    def _open(self) -> int:
        mode = self._path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if stat.S_ISFIFO(mode):
            # Held open for writing as well, a FIFO never ends when its writers leave (Linux, fifo(7)).
            with contextlib.suppress(PermissionError):
                return os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        return os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    async def _follow(self, descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        self._set_problem(None)
        if stat.S_ISREG(mode):
            await self._follow_file(descriptor)
        elif stat.S_ISFIFO(mode):
            await self._follow_stream(descriptor)
        else:
            await self._follow_device(descriptor)

    async def _follow_device(self, descriptor: int) -> None:
        while True:
            for _ in range(_BATCH):
                try:
                    raw = os.read(descriptor, LONGEST_RECORD)
                except BlockingIOError:
                    self.caught_up.set()
                    await _readable(descriptor)
                    break
                except BrokenPipeError:
                    continue  # Overrun: the next read goes on at the oldest record left; _gap counts the rest.
                if not raw:  # Not a kernel log after all, for example /dev/null.
                    raise OSError(errno.ENODATA, "it ends, so it is no kernel log")
                self._device_record(raw)
            await asyncio.sleep(0)

    def _device_record(self, raw: bytes) -> None:
        sequence = _sequence(raw)
        if sequence is not None:
            if self._last_sequence is not None:
                if sequence <= self._last_sequence:
                    return  # The device was opened again and began with its oldest record.
                self._gap(sequence - self._last_sequence - 1)
            self._last_sequence = sequence
        self._deliver(raw)

    def _gap(self, missing: int) -> None:
        if missing:
            self.lost_records += missing
            _log.warning(
                "the kernel log overran: records were lost before they could be read", extra={"records": missing}
            )

    async def _follow_stream(self, descriptor: int) -> None:
        lines = _Lines()
        while True:
            try:
                chunk = os.read(descriptor, _CHUNK)
            except BlockingIOError:
                self.caught_up.set()
                await _readable(descriptor)
                continue
            if not chunk:
                return  # Every writer left, and we may not write ourselves: open it again.
            for line in lines.feed(chunk):
                self._deliver(line)
            await asyncio.sleep(0)

    async def _follow_file(self, descriptor: int) -> None:
        lines = _Lines()
        offset = 0
        while True:
            chunk = os.pread(descriptor, _CHUNK, offset)
            offset += len(chunk)
            for line in lines.feed(chunk):
                self._deliver(line)
            if chunk:
                await asyncio.sleep(0)
                continue
            self.caught_up.set()
            await self._clock.sleep(_FILE_PERIOD)
            here = os.fstat(descriptor)
            if here.st_size < offset:
                offset, lines = 0, _Lines()  # Truncated: what is in it now is new.
            elif here.st_size == offset and _replaced(self._path, here):
                return

    def _deliver(self, raw: bytes) -> None:
        record = parse(raw)
        if record is not None:
            self._on_record(record)

    def _set_problem(self, problem: str | None) -> None:
        if problem == self.problem:
            return
        self.problem = problem
        if problem:
            _log.warning("the kernel log cannot be read", extra={"reason": problem})
        self._on_change()


class _Lines:
    """Cuts a byte stream into lines; a line without an end is kept back, up to a bound."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        *lines, rest = (self._rest + chunk).split(b"\n")
        # Never longer than a record: a writer that sends no newline must not fill the memory.
        self._rest = rest[:LONGEST_RECORD]
        return lines


async def _readable(descriptor: int) -> None:
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


def _sequence(raw: bytes) -> int | None:
    fields = raw.split(b",", 2)
    return int(fields[1]) if len(fields) == 3 and fields[1].isdigit() else None


def _explain(path: Path, error: OSError) -> str:
    hint = {
        errno.EPERM: "the agent's container must be privileged to read it",
        errno.EACCES: "the agent's container must be privileged to read it",
        errno.ENOENT: "mount it from the node, or name another one with --kmsg",
    }.get(error.errno or 0, "XID errors cannot be seen")
    return f"{path} could not be read ({error.strerror or error}): {hint}"
