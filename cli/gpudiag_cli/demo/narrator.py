"""How the demo speaks: numbered steps, what was done and how long it took, commands as a person would type them.

Nothing moves unless somebody watches: on a terminal a wait is one line that counts, elsewhere a line every few
seconds.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import TextIO, TypeVar

from gpudiag_cli.errors import CommandError

FIRST_SIGN_SECONDS = 2.0
"""No wait is silent for longer."""
_EVERY_SECONDS = 5.0
_POLL_SECONDS = 0.05
_WIDTH = 66

_T = TypeVar("_T")


class Narrator:
    """Writes to a stream, by default standard output; ``monotonic`` and ``sleep`` are for tests."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._stream = stream or sys.stdout
        self._monotonic = monotonic
        self._sleep = sleep
        self._started = monotonic()
        self._steps = 0
        self._gap = False
        """Whether the last line was empty."""
        self._terminal = self._stream.isatty()
        self._colour = self._terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    @property
    def elapsed(self) -> float:
        """Seconds since the first word."""
        return self._monotonic() - self._started

    def say(self, text: str = "") -> None:
        """Write lines as they are."""
        print(text, file=self._stream, flush=True)
        self._gap = not text

    def gap(self) -> None:
        """An empty line, unless there is one."""
        if not self._gap:
            self.say()

    def step(self, title: str) -> None:
        """Begin the next numbered step."""
        self._steps += 1
        self.gap()
        self.say(self._paint("1", f"{self._steps}. {title}"))

    def done(self, text: str, seconds: float | None = None) -> None:
        """Something worked, and took so long."""
        took = "" if seconds is None else f"{seconds:.1f} s"
        self.say(f"   {self._paint('32', '✓')} {text:<{_WIDTH}} {took:>7}".rstrip())

    def note(self, text: str) -> None:
        """Something to know."""
        self.say(f"     {text}")

    def command(self, text: str, output: str = "") -> None:
        """A command, and what it said."""
        self.gap()
        self.say(f"   {self._paint('2', '$')} {self._paint('1', text)}")
        for line in output.rstrip().splitlines():
            self.say(f"   {line}".rstrip())
        self.gap()

    def wait(
        self,
        what: str,
        look: Callable[[], _T | None],
        *,
        within: float,
        since: float | None = None,
        explain: Callable[[], str] = lambda: "",
    ) -> tuple[_T, float]:
        """Look until there is something to see.

        Args:
            what: what is waited for, as in "waiting for …".
            look: gives None as long as it is not there; called every 50 ms.
            within: seconds until giving up.
            since: when the time began that is told (monotonic seconds); default: now.
            explain: what to add when giving up: how things stand.

        Returns:
            What was seen, and the seconds it took.

        Raises:
            CommandError: it did not come.
        """
        started = self._monotonic()
        since = started if since is None else since
        next_sign = started + FIRST_SIGN_SECONDS
        shown = False
        try:
            while True:
                found = look()
                now = self._monotonic()
                if found is not None:
                    return found, now - since
                if now - started > within:
                    raise CommandError(f"Waited {within:.0f} s in vain for {what}. {explain()}".strip())
                if now >= next_sign:
                    self._sign(f"waiting for {what}: {now - started:.0f} s, at most {within:.0f} s")
                    shown = True
                    next_sign = now + (1.0 if self._terminal else _EVERY_SECONDS)
                self._sleep(_POLL_SECONDS)
        finally:
            if shown and self._terminal:
                self._stream.write("\r\x1b[K")

    def _sign(self, text: str) -> None:
        if self._terminal:
            self._stream.write(f"\r\x1b[K   … {text}")
            self._stream.flush()
        else:
            self.say(f"   … {text}")

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text
