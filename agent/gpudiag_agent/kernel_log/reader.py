"""Which kernel log is read: the first that can be, tried again for ever.

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
from gpudiag_agent.kernel_log import follow, journalctl
from gpudiag_agent.kernel_log.follow import Export, Form, Lines
from gpudiag_agent.kernel_log.intake import Intake

_log = logging.getLogger(__name__)

_RETRY = 2.0
"""Seconds until logs that could not be opened are tried again."""
_LONGEST_RETRY = 60.0
"""The wait doubles up to this where each try starts a child process for the journal."""
_UNPRIVILEGED = "the agent's container must be privileged to read it"


class KernelLogReader:
    """Follows the kernel log for the life of the process.

    Args:
        kmsg: the device, or a FIFO or file of its records; None: only the journal.
        journal: read where that cannot be: a folder of journal files, or a FIFO or file in the export format.
        intake: takes what is read.
        clock: for the waits.
        on_change: called when the log becomes readable or unreadable.
    """

    def __init__(
        self,
        kmsg: Path | None,
        *,
        journal: Path | None = None,
        intake: Intake,
        clock: Clock,
        on_change: Callable[[], None],
    ) -> None:
        self._kmsg = kmsg
        self._journal = journal
        self._intake = intake
        self._clock = clock
        self._on_change = on_change
        self._told: Path | None = None
        """The log that was last said to be read."""
        self.problem: str | None = None
        """Why no log can be read, for people: what was tried and what to do. None while one can."""
        self.caught_up = asyncio.Event()
        """Set once what the log held at the start was read, or could not be."""

    async def run(self) -> None:
        """Read until cancelled."""
        in_vain = 0
        while True:
            began = self._clock.monotonic()
            problems = await self._try_all()
            if problems:
                self._set_problem("; ".join(problems))
            self.caught_up.set()
            lasted = self._clock.monotonic() - began > _LONGEST_RETRY
            in_vain = 0 if lasted or self._journal is None else min(in_vain + 1, 5)
            pause = min(_RETRY * 2**in_vain, _LONGEST_RETRY)
            await self._clock.sleep(pause if problems else follow.FILE_PERIOD)

    async def _try_all(self) -> list[str]:
        """Follow the first log that can be read until it ends; gives why each of them could not, or no longer."""
        problems = []
        if self._kmsg is not None:
            self._intake.turn("device")
            try:
                await self._follow(self._kmsg, Lines)
            except OSError as error:
                problems.append(_kmsg_problem(self._kmsg, error, fallback=self._journal is not None))
            else:
                return []
        if self._journal is not None:
            self._intake.turn("journal")
            try:
                await self._follow_journal(self._journal)
            except OSError as error:
                problems.append(_journal_problem(self._journal, error))
            else:
                return []
        return problems

    async def _follow_journal(self, path: Path) -> None:
        if not _is_folder(path):
            await self._follow(path, Export)
            return
        await journalctl.follow(path, self._intake, caught_up=self.caught_up.set, opened=lambda: self._opened(path))

    async def _follow(self, path: Path, form: Callable[[Intake], Form]) -> None:
        descriptor = _open(path)
        try:
            mode = os.fstat(descriptor).st_mode
            caught_up = self.caught_up.set
            self._opened(path)
            if stat.S_ISREG(mode):
                await follow.file(path, descriptor, self._intake, form, clock=self._clock, caught_up=caught_up)
            elif stat.S_ISFIFO(mode):
                await follow.stream(descriptor, form(self._intake), caught_up=caught_up)
            else:
                await follow.device(descriptor, self._intake, caught_up=caught_up)
        finally:
            os.close(descriptor)

    def _opened(self, path: Path) -> None:
        if path != self._told:
            _log.info("reading the kernel log", extra={"from": str(path)})
        self._told = path
        self._set_problem(None)

    def _set_problem(self, problem: str | None) -> None:
        if problem == self.problem:
            return
        self.problem = problem
        if problem:
            _log.warning("the kernel log cannot be read", extra={"reason": problem})
        self._on_change()


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(path.stat().st_mode)


def _open(path: Path) -> int:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISFIFO(mode):
        # Held open for writing as well, a FIFO never ends when its writers leave (Linux, fifo(7)).
        with contextlib.suppress(PermissionError):
            return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _kmsg_problem(path: Path, error: OSError, *, fallback: bool) -> str:
    hint = {
        errno.EPERM: _UNPRIVILEGED,
        errno.EACCES: _UNPRIVILEGED,
        errno.ENOENT: "mount it from the node, or name another one with --kmsg",
    }.get(error.errno or 0, "XID errors cannot be seen")
    if not fallback and hint is _UNPRIVILEGED:
        hint += ", or name the node's journal with --journal"
    return f"{path} could not be read ({error.strerror or error}): {hint}"


def _journal_problem(path: Path, error: OSError) -> str:
    hint = "mount the node's journal there, or name it with --journal"
    if error.errno == errno.EPIPE:
        hint = "it is tried again"
    return f"nor the journal in {path} ({error.strerror or error}): {hint}"
