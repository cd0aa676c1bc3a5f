"""The XIDs of this boot: identities with counts, never more than 64, and the evidence that clears them.

Silence never clears. What does:
- XID 154 "to 0x0", or the same seen as NVML field 230 going back to 0: the driver says that the GPU recovered;
- the kernel module was loaded again: every GPU was initialised anew (all but a GPU that fell off the bus);
- XID 162 takes back 163 (power smoothing works again);
- a reboot: the agent starts anew and reads that boot's log only.
"""

from typing import TypeVar

import msgspec

from gpudiag_agent.checks.base import Occurrence
from gpudiag_agent.checks.xid import catalogue
from gpudiag_agent.kernel_log.decode import KernelEvent
from gpudiag_agent.kernel_log.parse import DriverLoaded, IdentityLine, LostLine, SerialLine, XIDLine
from gpudiag_agent.sample import Sample
from gpudiag_api.pci import slot
from gpudiag_api.vocabulary import Capability

MAX_IDENTITIES = 64
"""As many as the wire carries."""
_MAX_ADDRESSES = 256
"""Bound for everything kept per address: a broken log must not fill the memory."""
_MAX_TOTALS = 1024

LOST_CODE = 79
RECOVERY_CODE = 154
_DISENGAGED, _REENGAGED = 163, 162

Key = tuple[str | int | None, ...]
_Value = TypeVar("_Value")


class XIDLedger:
    """What the kernel log has said about GPUs since boot."""

    def __init__(self) -> None:
        self._held: dict[Key, Occurrence] = {}
        self._recovery: dict[str, int] = {}
        self._driver_was_gone = False
        self.lost: dict[str, float] = {}
        """PCI address → Unix time of "fallen off the bus" without an XID."""
        self.uuids: dict[str, str] = {}
        """PCI address → UUID as the kernel itself says: a map that works when NVML is dead."""
        self.serials: dict[str, str] = {}
        self.totals: dict[tuple[str, int], int] = {}
        """(PCI address, code) → occurrences since boot; not bounded by the identities held."""

    def hear(self, event: KernelEvent) -> None:
        """Take one event of the kernel log."""
        what = event.what
        if isinstance(what, XIDLine):
            self._xid(event, what)
        elif isinstance(what, LostLine):
            _bounded(self.lost, what.pci, event.at)
        elif isinstance(what, IdentityLine):
            _bounded(self.uuids, what.pci, what.uuid)
        elif isinstance(what, SerialLine) and what.pci is not None:
            _bounded(self.serials, what.pci, what.serial)
        elif isinstance(what, DriverLoaded):
            self._driver_loaded(event.at)

    def observe(self, sample: Sample) -> None:
        """Look for evidence of recovery in a finished sample."""
        if sample.fault is not None:
            self._driver_was_gone |= sample.fault.reason is Capability.NO_DRIVER
            return
        if self._driver_was_gone:
            self._driver_was_gone = False
            self._driver_loaded(sample.taken_at)
        for gpu in sample.gpus:
            if gpu.recovery_action is None or not gpu.pci:
                continue
            if self._recovery.get(gpu.pci) and gpu.recovery_action == 0:
                self._clear(gpu.pci, sample.taken_at)
            _bounded(self._recovery, gpu.pci, gpu.recovery_action)

    @property
    def occurrences(self) -> tuple[Occurrence, ...]:
        """All identities held, newest first."""
        return tuple(sorted(self._held.values(), key=lambda held: (-held.last_seen, held.id)))

    def _xid(self, event: KernelEvent, line: XIDLine) -> None:
        total = (line.pci, line.code)
        if total in self.totals or len(self.totals) < _MAX_TOTALS:
            self.totals[total] = self.totals.get(total, 0) + 1
        verdict = catalogue.judge(
            line.code,
            recovery_action=line.recovery_action,
            reset_required=line.reset_required,
            link_fatal=line.link_fatal,
        )
        self._supersede(event, line)
        # Not the pid: a job that crashes and restarts is one story, not a new identity each time.
        where = (line.pci, line.gpu_instance, line.compute_instance)
        key = (line.code, *where, line.process_name, line.recovery_action, str(verdict.severity))
        held = self._held.get(key)
        if held is not None:
            self._held[key] = msgspec.structs.replace(
                held,
                last_seen=max(held.last_seen, event.at),
                count=held.count + 1,
                cleared=line.recovery_action == 0,
            )
            return
        self._held[key] = Occurrence(
            id=event.id,
            code=line.code,
            pci=line.pci,
            verdict=verdict,
            message=line.message,
            gpu_instance=line.gpu_instance,
            compute_instance=line.compute_instance,
            process_id=line.process_id,
            process_name=line.process_name,
            first_seen=event.at,
            last_seen=event.at,
            cleared=line.recovery_action == 0,
        )
        self._evict()

    def _supersede(self, event: KernelEvent, line: XIDLine) -> None:
        if line.code == _REENGAGED:
            self._clear(line.pci, event.at, code=_DISENGAGED)
        if line.recovery_action == 0:
            self._clear(line.pci, event.at)
        elif line.recovery_action is not None:  # The latest of the driver's demands counts.
            self._clear(line.pci, event.at, code=RECOVERY_CODE)

    def _clear(self, pci: str, at: float, *, code: int | None = None) -> None:
        for key, held in self._held.items():
            if slot(held.pci) == slot(pci) and held.last_seen <= at and code in {None, held.code}:
                self._held[key] = msgspec.structs.replace(held, cleared=True)
        if code is None and self.lost.get(pci, at + 1) <= at:
            del self.lost[pci]

    def _driver_loaded(self, at: float) -> None:
        self._recovery.clear()
        for key, held in self._held.items():
            if held.last_seen <= at and held.code != LOST_CODE:
                self._held[key] = msgspec.structs.replace(held, cleared=True)

    def _evict(self) -> None:
        """Beyond the bound, what is cleared or light goes first, then what is old."""
        if len(self._held) > MAX_IDENTITIES:
            del self._held[
                min(
                    self._held,
                    key=lambda key: (
                        not self._held[key].cleared,
                        self._held[key].verdict.severity.badness,
                        self._held[key].last_seen,
                    ),
                )
            ]


def _bounded(entries: dict[str, _Value], key: str, value: _Value) -> None:
    if key in entries or len(entries) < _MAX_ADDRESSES:
        entries[key] = value
