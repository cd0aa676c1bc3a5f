"""All that must survive a restart together: the cursor, and what the records before it led to.

One value, stored by one rename. Were they two, a kill between the two writes would lose an event or count it twice.
"""

from collections.abc import Callable
from typing import Annotated, Protocol

import msgspec

from gpudiag_agent.kernel_log.decode import Decoder, Midway
from gpudiag_agent.kernel_log.intake import MAX_GAPS, Gap, Intake, Position


class History(Protocol):
    """What remembers kernel events."""

    def dump(self) -> bytes:
        """All of it, as JSON."""
        ...

    def load(self, data: bytes, *, now: float) -> str | None:
        """Take up what :meth:`dump` gave, maybe in an earlier boot, at Unix time ``now``.

        Returns:
            Why it cannot be used, None where it was. Then nothing was changed.
        """
        ...


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    boot_id: str
    position: Position
    midway: Midway
    gaps: Annotated[tuple[Gap, ...], msgspec.Meta(max_length=MAX_GAPS)] = ()
    history: msgspec.Raw


class KernelLogMemory:
    """What :class:`~gpudiag_agent.state.store.Section` keeps of the kernel log: of one boot, but for history and gaps.

    Args:
        intake: has the cursor and the gaps.
        decoder: has what it knows of the lines before the next.
        history: has what all events led to.
        now: Unix time in seconds.
    """

    def __init__(self, *, intake: Intake, decoder: Decoder, history: History, now: Callable[[], float]) -> None:
        self._intake = intake
        self._decoder = decoder
        self._history = history
        self._now = now

    def dump(self) -> object:
        """Everything of this moment, in one value."""
        return _Stored(
            boot_id=self._intake.boot_id,
            position=self._intake.position,
            midway=self._decoder.midway,
            gaps=tuple(self._intake.gaps),
            history=msgspec.Raw(self._history.dump()),
        )

    def load(self, data: object) -> None:
        """Take up what was kept, before anything is read.

        In another boot only history and gaps are taken up, and the log is read from its beginning. The same where
        the boot's id cannot be read: two boots could not be told apart.

        Raises:
            ValueError, msgspec.ValidationError: it is not understood. Nothing was changed.
        """
        # Back to JSON: each part checks its own.
        stored = msgspec.json.decode(msgspec.json.encode(data), type=_Stored)
        # First, as it may refuse: a cursor without the history before it would hide those events for ever.
        refused = self._history.load(bytes(stored.history), now=self._now())
        if refused is not None:
            raise ValueError(refused)
        self._intake.gaps.extend(stored.gaps)
        if stored.boot_id and stored.boot_id == self._intake.boot_id:
            self._intake.resume(stored.position)
            self._decoder.resume(stored.midway)
