"""Who told of an XID already: event ids, and the two witnesses, kernel log and NVML, of one occurrence."""

from collections import deque
from collections.abc import Iterable

import msgspec

from gpudiag_agent.checks.xid.history import Burst

TOGETHER = 5.0
"""Seconds within which a kernel line and an NVML event of one GPU and code are the same occurrence."""
_REMEMBERED = 1024
_WAITING = 64


class _Told(msgspec.Struct):
    pci: str
    code: int
    at: float
    burst: Burst | None = None
    """What NVML told; None: the kernel's line."""


class Witnesses:
    """Remembers the last 1024 event ids, and the last 64 occurrences that had one witness only."""

    def __init__(self) -> None:
        self._ids: deque[str] = deque(maxlen=_REMEMBERED)
        self._known: set[str] = set()
        self._waiting: deque[_Told] = deque(maxlen=_WAITING)

    @property
    def heard(self) -> tuple[str, ...]:
        """The event ids, oldest first."""
        return tuple(self._ids)

    def remember(self, ids: Iterable[str]) -> None:
        """Take the ids that an earlier life of the agent had heard."""
        for identity in ids:
            self.first_time(identity)

    def first_time(self, identity: str) -> bool:
        """Whether an event id is new; from now on it is not."""
        identity = identity[:96]
        if identity in self._known:
            return False
        if len(self._ids) == self._ids.maxlen:
            self._known.discard(self._ids[0])
        self._ids.append(identity)
        self._known.add(identity)
        return True

    def kernel_told(self, pci: str, code: int, at: float) -> None:
        """The kernel told of an occurrence; NVML may still do."""
        self._waiting.append(_Told(pci, code, at))

    def nvml_told(self, burst: Burst) -> None:
        """NVML told of an occurrence; the kernel may still do."""
        self._waiting.append(_Told(burst.pci, burst.code, burst.first, burst))

    def told_by_kernel(self, pci: str, code: int, at: float) -> bool:
        """Whether the kernel told of this one before; each line answers for one event."""
        return self._take(pci, code, at, nvml=False) is not None

    def told_by_nvml(self, pci: str, code: int, at: float) -> Burst | None:
        """What NVML told of this one before; each event answers for one line."""
        told = self._take(pci, code, at, nvml=True)
        return told.burst if told else None

    def _take(self, pci: str, code: int, at: float, *, nvml: bool) -> _Told | None:
        for told in self._waiting:
            same = told.pci == pci and told.code == code and (told.burst is not None) is nvml
            if same and abs(told.at - at) <= TOGETHER:
                self._waiting.remove(told)
                return told
        return None
