"""Kernel lines without an XID, held until evidence clears them. No clock, no I/O.

| line | cleared by |
|---|---|
| RmInitAdapter failed, rm_init_adapter failed | the GPU answers NVML in a later sample; driver loaded anew; reboot |
| Rate limiting GSP RPC | recovery (XID 154, field 230, a reset of the GPU); driver loaded anew; reboot |
| API mismatch; nvidia-peermem; a crash within NCCL | driver loaded anew; reboot; the rules end them by time |
| probe routine not called or failed; NVLink training | driver loaded anew; reboot |
"""

from collections.abc import Callable, Iterable

import msgspec

from gpudiag_agent.kernel_log.signals import (
    AdapterInitLine,
    MismatchLine,
    NotProbedLine,
    PeerMemoryLine,
    RateLimitLine,
    SegfaultLine,
    Signal,
    TrainingLine,
)
from gpudiag_agent.sample import Sample
from gpudiag_agent.state.bounds import Moment, Natural

MAX_HELD = 64
_TOGETHER = 5.0
"""Seconds within which the driver's two lines about one failed initialisation are one failure."""


class HeldSignal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One kind of line about one GPU or the node."""

    line: Signal
    """The first that was heard, with the words of later ones where it had none."""
    first: Moment
    last: Moment
    count: Natural = 1

    @property
    def pci(self) -> str | None:
        """The GPU that it is about; None: the node."""
        return self.line.pci if isinstance(self.line, AdapterInitLine | RateLimitLine) else None


class KernelSignals:
    """What is held, at most 64 kinds and GPUs."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], HeldSignal] = {}

    @property
    def held(self) -> tuple[HeldSignal, ...]:
        """All of them, oldest first."""
        return tuple(self._held.values())

    def remember(self, held: Iterable[HeldSignal]) -> None:
        """Take what an earlier life of the agent had heard in this boot."""
        for one in tuple(held)[:MAX_HELD]:
            self._held[_key(one.line)] = one

    def hear(self, line: Signal, at: float) -> None:
        """Take one line."""
        key = _key(line)
        old = self._held.get(key)
        if old is None:
            if len(self._held) >= MAX_HELD:
                del self._held[next(iter(self._held))]
            self._held[key] = HeldSignal(line=line, first=at, last=at)
            return
        second = isinstance(line, AdapterInitLine) and not line.status and at - old.last <= _TOGETHER
        self._held[key] = HeldSignal(
            line=old.line if second else line,
            first=old.first,
            last=max(old.last, at),
            count=old.count + (0 if second else 1),
        )

    def observe(self, sample: Sample) -> None:
        """A GPU that answers was initialised after all."""
        for gpu in sample.gpus:
            held = self._held.get((AdapterInitLine.__name__, gpu.pci))
            if held is not None and not gpu.errors and held.last < sample.taken_at:
                del self._held[AdapterInitLine.__name__, gpu.pci]

    def recovered(self, pci: str, at: float) -> None:
        """A GPU was reset, or the driver says that it recovered."""
        self._drop(lambda held: held.pci == pci and held.last <= at)

    def driver_loaded(self, at: float) -> None:
        """The kernel module was loaded anew: what is still wrong is said again."""
        self._drop(lambda held: held.last < at)

    def _drop(self, over: Callable[[HeldSignal], bool]) -> None:
        self._held = {key: held for key, held in self._held.items() if not over(held)}


def _key(line: Signal) -> tuple[str, str]:
    match line:
        case AdapterInitLine() | RateLimitLine():
            return (type(line).__name__, line.pci)
        case MismatchLine():
            return (type(line).__name__, line.client)
        case SegfaultLine():
            return (type(line).__name__, line.process_name)
        case NotProbedLine() | TrainingLine() | PeerMemoryLine():
            return (type(line).__name__, "")
