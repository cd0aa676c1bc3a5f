"""The child process that reads the node's journal: its files have no reader without systemd's own library."""

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from gpudiag_agent.kernel_log.follow import Export
from gpudiag_agent.kernel_log.intake import Intake
from gpudiag_agent.kernel_log.journal import MISSED

PROGRAM = "journalctl"
_CHUNK = 1 << 16
_QUIET = 0.3
"""Seconds without output after some, or without any, after which the journal counts as read up to now."""
_KILL = 1.0
"""Seconds to wait for a killed child; one in D state is left behind."""
_LONGEST_COMPLAINT = 500


async def follow(folder: Path, intake: Intake, *, caught_up: Callable[[], None], opened: Callable[[], None]) -> None:
    """Read this boot's kernel lines from a journal until the child ends, which it should not.

    The child dies with the agent, however that ends: journalctl leaves when its output has no reader.

    Args:
        folder: with journal files, such as ``/var/log/journal``.
        intake: takes the entries.
        caught_up: called when what the journal held was read.
        opened: called with the first sign that it can be read.

    Raises:
        OSError: there is no journalctl, no journal, or it ended.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise OSError(errno.ENOENT, f"there is no {PROGRAM} to read it with")
    if not any(os.access(path, os.R_OK) for path in _journals(folder)):
        # journalctl would wait for the first one without a word, and nobody would know that nothing is seen.
        raise OSError(errno.ENOENT, "it holds no journal that can be read")
    cursor = intake.journal_cursor
    process = await asyncio.create_subprocess_exec(
        *_command(program, folder, intake.boot_id, cursor),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_CHUNK,
    )
    try:
        heard = await _read(process, intake, caught_up=caught_up, opened=opened)
        if cursor is not None and not heard:
            intake.forget_journal_cursor()
        raise OSError(errno.EPIPE, await _complaint(process))
    finally:
        await _end(process)


def _journals(folder: Path) -> list[Path]:
    return [*folder.glob("*.journal"), *folder.glob("*/*.journal")]


def _command(program: str, folder: Path, boot_id: str, cursor: str | None) -> list[str]:
    command = [program, "--directory", str(folder), "--output", "export", "--follow", "--no-tail", "--quiet"]
    # With --follow alone journalctl picks the last boot that the folder knows, which may be the one before this.
    command += ["--merge", "--no-pager"]
    if cursor is not None:
        command += [f"--after-cursor={cursor}"]
    boot = [f"_BOOT_ID={boot_id.replace('-', '')}"] if boot_id else []
    return [*command, *boot, "_TRANSPORT=kernel", "+", *boot, f"MESSAGE_ID={MISSED}"]


async def _read(
    process: asyncio.subprocess.Process, intake: Intake, *, caught_up: Callable[[], None], opened: Callable[[], None]
) -> bool:
    """Take everything until the output ends; whether there was any."""
    assert process.stdout is not None
    export, heard = Export(intake), False
    while True:
        try:
            async with asyncio.timeout(_QUIET):
                chunk = await process.stdout.read(_CHUNK)
        except TimeoutError:
            opened()
            caught_up()
            chunk = await process.stdout.read(_CHUNK)
        if not chunk:
            return heard
        if not heard:
            opened()
        heard = True
        export.take(chunk)


async def _complaint(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_QUIET):
            said = await process.stderr.read(_LONGEST_COMPLAINT)
    words = " ".join(said.decode(errors="replace").split()).rstrip(".")
    return f"{PROGRAM} ended: {words}" if words else f"{PROGRAM} ended"


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_KILL):
            await process.wait()
    # Python 3.11 leaves the pipes of a child that was killed while nobody read them to the garbage collector.
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()
