"""The child as the agent sees it: a process that answers, may hang, and may refuse to die."""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from typing import Protocol

from gpudiag_agent.nvml import frames
from gpudiag_agent.sample import Sample


class Child(Protocol):
    """A process that reads NVML. Tests put one here whose kill has no effect."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    @property
    def ended(self) -> bool:
        """Whether it is known to have ended."""
        ...

    async def ready(self) -> None:
        """Wait until it can be asked.

        Raises:
            ChildDiedError: it ended first, or does not speak the protocol.
        """
        ...

    async def sample(self, *, full: bool) -> Sample:
        """Ask for one sample; waits for as long as the driver does.

        Args:
            full: also what lasts (``lasting``), which takes longer.

        Raises:
            ChildDiedError: the process ended, or does not speak the protocol.
        """
        ...

    def release(self) -> None:
        """Let it end by itself: it does once it is not in a call."""
        ...

    def kill(self) -> None:
        """Send SIGKILL. Does nothing to a process in state D, or to one that has ended."""
        ...

    async def wait(self) -> int:
        """Wait for the end; the exit code, negative for a signal."""
        ...


Spawn = Callable[[], Awaitable[Child]]


class ChildDiedError(Exception):
    """The child ended before it answered, or answered nonsense."""


class NVMLChild:
    """The real child, over pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def spawn(cls) -> "NVMLChild":
        """Start a child with this interpreter. Spawned, not forked: it inherits no locks and no sockets.

        Raises:
            OSError: the node would not start a process.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            # Without it the working directory comes first on the path, and a file there could pose as pynvml.
            "-P",
            "-m",
            "gpudiag_agent.nvml.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # A reader that pauses with a whole frame unread would never see the pipe end, nor the process.
            limit=frames.MAX_FRAME_BYTES,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """See ``Child``."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """See ``Child``."""
        return self._process.returncode is not None

    async def ready(self) -> None:
        """See ``Child``."""
        if await self._frame():
            raise ChildDiedError("it did not greet")

    async def sample(self, *, full: bool) -> Sample:
        """See ``Child``."""
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(frames.FULL if full else frames.QUICK)
            await stdin.drain()
            return frames.decode(await self._frame())
        except (ConnectionError, frames.FrameError) as error:
            raise ChildDiedError(str(error)) from error

    def release(self) -> None:
        """See ``Child``."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def kill(self) -> None:
        """See ``Child``."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def wait(self) -> int:
        """See ``Child``."""
        code = await self._process.wait()
        self.release()
        return code

    async def _frame(self) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        try:
            header = await stdout.readexactly(frames.HEADER_BYTES)
            return await stdout.readexactly(frames.body_length(header))
        except (asyncio.IncompleteReadError, ConnectionError, frames.FrameError) as error:
            raise ChildDiedError(str(error)) from error
