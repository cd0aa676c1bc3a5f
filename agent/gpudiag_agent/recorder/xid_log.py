"""XID events behind a cursor: what ``GET /v1/xids`` answers from.

A repeat changes the count of an event that was told before, so the cursor counts changes rather than events: whoever
comes back with it gets every event that is new or has repeated since.
"""

from collections.abc import Iterable, Sequence

from gpudiag_api import wire
from gpudiag_api.wire import KernelLogGap, XIDEvent

MAX_EVENTS = 512


class XIDLog:
    """The events of this boot and the ones before it that are still known, in the order of their last change.

    Args:
        epoch: what tells this log from that of another life of the agent; part of the cursor.
    """

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch
        self._revision = 0
        self._events: dict[str, tuple[int, XIDEvent]] = {}

    def update(self, events: Iterable[XIDEvent]) -> None:
        """Take all events that are known now."""
        for event in sorted(events, key=lambda event: (event.last_seen, event.id)):
            held = self._events.get(event.id)
            if held is None or held[1].count != event.count:
                self._revision += 1
                self._events.pop(event.id, None)
                self._events[event.id] = (self._revision, event)
        while len(self._events) > MAX_EVENTS:
            del self._events[next(iter(self._events))]

    def answer(
        self, *, node_name: str, since: str = "", limit: int = 100, gaps: Sequence[KernelLogGap] = ()
    ) -> wire.XIDsAnswer:
        """The oldest changes after a cursor; a cursor of another life, or none: all there are.

        Args:
            node_name: of this node.
            since: the ``cursor`` of an earlier answer.
            limit: at most so many events.
            gaps: records of the kernel log that nobody read.
        """
        after = self._position(since)
        found = [entry for entry in self._events.values() if entry[0] > after][:limit]
        last = found[-1][0] if found else max(after, 0)
        return wire.XIDsAnswer(
            version=wire.WIRE_VERSION,
            node_name=node_name,
            events=tuple(event for _, event in found),
            cursor=f"{self._epoch}.{last}",
            gaps=tuple(gaps)[-16:],
        )

    def _position(self, cursor: str) -> int:
        epoch, _, revision = cursor.rpartition(".")
        known = epoch == self._epoch and revision.isascii() and revision.isdecimal() and len(revision) < 20
        return int(revision) if known else 0
