"""XIDs as NVML reports them, for nodes whose kernel log cannot be read. Opt-in: it has a price.

Whoever waits for events keeps the library initialised, and with it every ``/dev/nvidia*`` open: a GPU reset and a
change of MIG mode are refused while the agent runs. An event has a number and no words, and what happened before the
agent listened is lost. Together with the kernel log an XID still counts once (``checks.xid.ledger``).
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable
from typing import NoReturn

import msgspec

from gpudiag_agent.clock import Clock
from gpudiag_agent.nvml.event import NVMLEvent

_log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_MAX_LINE = 4096
_FAREWELL_SECONDS = 2.0


_decoder = msgspec.json.Decoder(NVMLEvent)


class NVMLEvents:
    """Listens in a process of its own, started anew with a growing pause when it ends.

    Args:
        on_event: told of each event, in the loop.
        clock: for the pauses.
    """

    def __init__(self, *, on_event: Callable[[NVMLEvent], None], clock: Clock) -> None:
        self._on_event = on_event
        self._clock = clock
        self.listening = asyncio.Event()
        """Set while events are heard."""

    async def run(self) -> NoReturn:
        """Listen until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            if await self._listen():
                pause = _FIRST_PAUSE
            self.listening.clear()
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _listen(self) -> bool:
        """Listen until the process ends; whether it ever listened."""
        heard = False
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "gpudiag_agent.nvml.events_child",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_MAX_LINE,
            )
        except OSError as error:
            _log.warning("the process that waits for NVML's events could not be started", extra={"error": str(error)})
            return False
        try:
            assert process.stdout is not None
            while line := await process.stdout.readline():
                heard = True
                self._line(line)
        except ValueError:  # A line that never ends.
            _log.warning("the process that waits for NVML's events speaks nonsense and is ended")
        finally:
            await _end(process)
        return heard

    def _line(self, line: bytes) -> None:
        if line == b"\n":
            self.listening.set()
            return
        try:
            event = _decoder.decode(line)
        except msgspec.DecodeError:
            _log.warning("an event of NVML could not be read")
            return
        self._on_event(event)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let it go, then end it. One that hangs in the kernel is left behind; it dies with its driver call."""
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), _FAREWELL_SECONDS)
