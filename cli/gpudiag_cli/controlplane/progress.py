"""Telling people what takes so long: lines with the elapsed time, and a sign of life while nothing happens."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from gpudiag_cli.controlplane.process import Child

# Together a minute: look-ups at package registries have been seen to fail for half of one.
RETRY_WAITS = (5.0, 10.0, 20.0, 25.0)


class Progress:
    """Prints `[ 1:05] text` to standard error; `stream` and `heartbeat` (seconds) are for tests."""

    def __init__(self, stream: TextIO | None = None, heartbeat: float = 10.0) -> None:
        self._stream = stream
        self._heartbeat = heartbeat
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line."""
        clock = duration(time.monotonic() - self._started)
        # Looked up at each call: pytest exchanges sys.stderr.
        print(f"[{clock:>5}] {text}", file=self._stream or sys.stderr, flush=True)

    def watch(self, child: Child, doing: str) -> int:
        """Wait for a child with a line every few seconds; gives its exit status. The child never survives this."""
        started = time.monotonic()
        try:
            while True:
                try:
                    return child.process.wait(self._heartbeat)
                except subprocess.TimeoutExpired:
                    self.say(f"{doing}: still at it, {duration(time.monotonic() - started)} so far")
        finally:
            child.stop(grace=2)


def retry(attempt: Callable[[], int], what: str, progress: Progress, sleep: Callable[[float], None]) -> bool:
    """Repeat an attempt (0 is success) that depends on a registry; gives whether it worked in the end."""
    for wait in RETRY_WAITS:
        if attempt() == 0:
            return True
        progress.say(f"{what} failed; registries sometimes do for half a minute. Trying again in {wait:.0f} s")
        sleep(wait)
    return attempt() == 0


def duration(seconds: float) -> str:
    """Minutes and seconds, for example "2:07"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def fresh_log(folder: Path, name: str) -> Path:
    """An empty log file for one attempt, so that an error quotes that attempt only."""
    log = folder / f"{name}.log"
    log.write_bytes(b"")
    return log
