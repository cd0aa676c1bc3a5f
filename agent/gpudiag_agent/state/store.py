"""The agent's memory over restarts: sections that say when they changed, written a little later, off the event loop.

What cannot be read is an empty memory, and what cannot be written is a memory that ends with the process. Neither
stops the agent, nor is it a verdict about a GPU.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from gpudiag_agent.clock import Clock
from gpudiag_agent.state.folder import MAX_BYTES, Folder, UnusableError

_log = logging.getLogger(__name__)

SOON = 2.0
"""Seconds in which changes that a section tells of become one write."""
EVERY = 60.0
"""Seconds between two looks at what nobody told of; only what differs from the file is written."""
_LOOK = 1.0
_RETRY, _LONGEST_RETRY = 5.0, 300.0
"""Seconds after a failed write, doubling."""
_FORMAT = "gpudiag-agent-state"


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the memory, in a file of its own."""

    name: str
    """Of the file, without ``.json``: lower case, digits and dashes."""
    version: int = 1
    """Of what ``dump`` gives; a file of another version is not loaded."""
    dump: Callable[[], object]
    """All of it, as msgspec can encode it and nobody changes afterwards. On the event loop: quick."""
    load: Callable[[object], None]
    """Take up what ``dump`` gave in an earlier life, as JSON types. Once, before anything else happens. Any exception
    means: not understood, nothing was changed."""


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    format: str
    section: str
    version: int
    data: msgspec.Raw


class StateStore:
    """Keeps the sections' files.

    Args:
        directory: for the files; None: nothing is kept.
        clock: for the waits.
    """

    def __init__(self, directory: Path | None, *, clock: Clock) -> None:
        self._folder = Folder(directory) if directory is not None else None
        self._clock = clock
        self._sections: dict[str, Section] = {}
        self._due: dict[str, float] = {}
        self._written: dict[str, bytes] = {}
        self._writing: asyncio.Task[None] | None = None
        self._retry = _RETRY
        self._not_before = float("-inf")
        self.failed_writes = 0
        self.problem: str | None = None
        """Why the memory would not survive a restart now; None: it would, or nobody asked for it."""

    def register(self, section: Section) -> None:
        """Keep a section. Before :meth:`restore`."""
        self._sections[section.name] = section
        self._due[section.name] = self._clock.monotonic() + EVERY

    def mark(self, name: str) -> None:
        """A section changed: it is written soon, with whatever it holds by then. One that is not kept is ignored."""
        if name in self._due:
            self._due[name] = min(self._clock.monotonic() + SOON, self._due[name])

    async def restore(self) -> None:
        """Load what was kept. What is not understood is moved aside, and its section begins empty."""
        if self._folder is None:
            return
        for name, section in self._sections.items():
            try:
                content = await asyncio.to_thread(self._folder.read, _file(name))
                if content is not None:
                    section.load(_unwrap(content, section))
            except OSError as error:
                _log.warning(
                    "a part of the agent's memory cannot be read and begins empty",
                    extra={"file": str(self._folder.path / _file(name)), "reason": error.strerror or str(error)},
                )
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a file, the agent starts
                await self._set_aside(name, str(error))

    async def run(self) -> None:
        """Write what changed, until cancelled. For a store with a directory."""
        while True:
            await self._clock.sleep(_LOOK)
            now = self._clock.monotonic()
            if now >= self._not_before:
                await self._write([name for name, due in self._due.items() if due <= now])

    async def close(self) -> None:
        """Write what changed, now, and once."""
        if self._folder is not None:
            if self._writing is not None:
                await asyncio.wait({self._writing})
            await self._write(list(self._due))
            self._folder.close()

    async def _write(self, names: list[str]) -> None:
        for name in names:
            # Shielded: a thread cannot be cancelled, and close() must not write beside it.
            self._writing = asyncio.create_task(self._write_one(name))
            await asyncio.shield(self._writing)

    async def _write_one(self, name: str) -> None:
        assert self._folder is not None
        self._due[name] = self._clock.monotonic() + EVERY
        try:
            data = self._sections[name].dump()
            before = self._written.get(name)
            self._written[name] = await asyncio.to_thread(_save, self._folder, self._sections[name], data, before)
        except OSError as error:
            self._due[name] = self._clock.monotonic()
            self._failed(f"{self._folder.path}: {error.strerror or error}")
        except Exception as error:  # noqa: BLE001 - a bug in a section must not end the agent; it is counted and logged
            self._failed(f"{_file(name)}: {error}")
        else:
            if self.problem is not None:
                _log.info("the agent's memory is written again", extra={"directory": str(self._folder.path)})
            self.problem, self._retry = None, _RETRY

    def _failed(self, problem: str) -> None:
        self.failed_writes += 1
        self._not_before = self._clock.monotonic() + self._retry
        self._retry = min(2 * self._retry, _LONGEST_RETRY)
        if self.problem is None:
            _log.warning(
                "the agent's memory cannot be written: after a restart it begins where it was last written",
                extra={"reason": problem},
            )
        self.problem = problem

    async def _set_aside(self, name: str, reason: str) -> None:
        assert self._folder is not None
        where = str(self._folder.path / _file(name))
        try:
            where = str(await asyncio.to_thread(self._folder.set_aside, _file(name)))
        except OSError as error:
            reason += f"; and it cannot be moved aside: {error.strerror or error}"
        _log.warning(
            "a part of the agent's memory is not understood and begins empty",
            extra={"file": where, "reason": reason[:500]},
        )


def _file(name: str) -> str:
    return f"{name}.json"


def _save(folder: Folder, section: Section, data: object, before: bytes | None) -> bytes:
    """Write a section unless its file holds this already; gives a digest of what it holds now."""
    envelope = _Envelope(
        format=_FORMAT, section=section.name, version=section.version, data=msgspec.Raw(msgspec.json.encode(data))
    )
    content = msgspec.json.encode(envelope)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it would be {len(content)} bytes, more than {MAX_BYTES}")
    digest = hashlib.blake2b(content, digest_size=16).digest()
    if digest != before:
        folder.write(_file(section.name), content)
    return digest


def _unwrap(content: bytes, section: Section) -> object:
    try:
        envelope = msgspec.json.decode(content, type=_Envelope)
    except msgspec.MsgspecError as error:
        raise UnusableError(f"it is damaged: {error}") from None
    if (envelope.format, envelope.section) != (_FORMAT, section.name):
        raise UnusableError("another program wrote it")
    if envelope.version != section.version:
        raise UnusableError(f"another version of the agent wrote it ({envelope.version}, not {section.version})")
    return msgspec.json.decode(envelope.data)
