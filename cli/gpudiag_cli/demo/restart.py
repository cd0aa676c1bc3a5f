"""Starting programs again that ended on their own, as a kubelet would: at once, then less and less eagerly."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gpudiag_cli.demo.programs import Program

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
FORGIVEN_SECONDS = 60.0
"""A program that ran this long before it ended begins with the first wait again."""


@dataclass
class _Record:
    started: float
    wait: float = FIRST_WAIT_SECONDS
    again_at: float | None = None
    """When it is started again; None while it runs."""


class Keeper:
    """Keeps programs running; call :meth:`look` again and again."""

    def __init__(
        self,
        programs: Iterable[Program],
        *,
        say: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._monotonic = monotonic
        self._programs = [(program, _Record(monotonic())) for program in programs]

    def look(self) -> None:
        """Start what is due, and take note of what has ended."""
        for program, record in self._programs:
            if record.again_at is not None:
                if self._monotonic() >= record.again_at:
                    self._start(program, record)
            elif (status := program.ended) is not None:
                self._ended(program, record, status)

    def _ended(self, program: Program, record: _Record, status: int) -> None:
        now = self._monotonic()
        if now - record.started >= FORGIVEN_SECONDS:
            record.wait = FIRST_WAIT_SECONDS
        record.again_at = now + record.wait
        how = f"with status {status}" if status >= 0 else f"by signal {-status}"
        self._say(f"{program.name} ended {how}; it is started again in {record.wait:.0f} s. Its log: {program.log}")
        record.wait = min(record.wait * 2, LONGEST_WAIT_SECONDS)

    def _start(self, program: Program, record: _Record) -> None:
        program.start()
        record.started, record.again_at = self._monotonic(), None
