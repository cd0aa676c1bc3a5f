"""The child as the agent sees it: a process that answers, may hang, and may refuse to die."""

import asyncio
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

    async def sample(self) -> Sample:
        """Ask for one sample; waits for as long as the driver does.

        Raises:
            ChildDiedError: the process ended, or does not speak the protocol.
        """
        ...

    def kill(self) -> None:
        """Send SIGKILL. Does nothing to a process in state D, or to one that has ended."""
        ...

    async def wait(self) -> int:
        """Wait for the end; the exit code, negative for a signal."""
        ...


Spawn = Callable[[], Awaitable[Child]]


class ChildDiedError(Exception):
    """The child ended before it answered."""


class NVMLChild:
    """The real child, over pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def spawn(cls) -> "NVMLChild":
        """Start a child with this interpreter. Spawned, not forked: it inherits no locks and no sockets."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gpudiag_agent.nvml.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """See ``Child``."""
        return self._process.pid

    async def sample(self) -> Sample:
        """See ``Child``."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(b"?")
            await stdin.drain()
            header = await stdout.readexactly(frames.HEADER_BYTES)
            return frames.decode(await stdout.readexactly(frames.body_length(header)))
        except (asyncio.IncompleteReadError, ConnectionError, frames.FrameError) as error:
            raise ChildDiedError(str(error)) from error

    def kill(self) -> None:
        """See ``Child``."""
        if self._process.returncode is None:
            try:
                self._process.kill()
            except ProcessLookupError:
                return

    async def wait(self) -> int:
        """See ``Child``."""
        code = await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        return code
