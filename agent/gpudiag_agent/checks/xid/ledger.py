"""Holds what the driver said: the XIDs as a history, the switches' errors, and the lines without a number.

Silence never clears a critical fault. What does:
- XID 154 "to 0x0", or the same seen as NVML field 230 going back to 0: the driver says that the GPU recovered;
- the kernel module was loaded again: every GPU was initialised anew (all but a GPU that fell off the bus);
- all of a GPU's counters began anew: somebody reset it;
- XID 162 takes back 163 (power smoothing works again); SXid 10005 takes back 10004 (a switch was too hot);
- a reboot: what earlier boots said counts for the repeat rules only.

An occurrence counts once, whoever tells of it: the kernel line and NVML's event within 5 s of each other are one, and
the line's words are kept. An event id counts once, also over a restart (``dump`` and ``load``).
"""

from typing import TypeVar

import msgspec

from gpudiag_agent.checks.base import Occurrence
from gpudiag_agent.checks.kernel.signals import KernelSignals
from gpudiag_agent.checks.xid import history, occurrences, state, workflow
from gpudiag_agent.checks.xid.history import Burst, Bursts
from gpudiag_agent.checks.xid.resets import ResetWatch
from gpudiag_agent.checks.xid.witnesses import Witnesses
from gpudiag_agent.kernel_log.decode import KernelEvent
from gpudiag_agent.kernel_log.details import Recovery
from gpudiag_agent.kernel_log.parse import DriverLoaded, IdentityLine, LostLine, SerialLine, XIDLine
from gpudiag_agent.kernel_log.sxid import SXIDDetail, SXIDLine
from gpudiag_agent.sample import Sample
from gpudiag_api.pci import slot

_MAX_ADDRESSES = 256
"""Bound for everything kept per address: a broken log must not fill the memory."""
_MAX_TOTALS = 1024

LOST_CODE = 79
_DISENGAGED, _REENGAGED = 163, 162
_HOT, _COOL = 10004, 10005

_Value = TypeVar("_Value")


class XIDLedger:
    """What the driver has said about GPUs and switches.

    Args:
        boot: the kernel's boot id; empty: that of the first event.
    """

    def __init__(self, boot: str = "") -> None:
        self._boot = boot
        self._witnesses = Witnesses()
        self._resets = ResetWatch()
        self.history: Bursts = ()
        """XIDs of up to two weeks, over reboots."""
        self.switch_history: Bursts = ()
        """SXids, likewise; ``pci`` is the switch's, ``mark`` its link."""
        self.signals = KernelSignals()
        self.lost: dict[str, float] = {}
        """PCI address → Unix time of "fallen off the bus" without an XID."""
        self.uuids: dict[str, str] = {}
        """PCI address → UUID as the kernel itself says: a map that works when NVML is dead."""
        self.serials: dict[str, str] = {}
        self.totals: dict[tuple[str, int], int] = {}
        """(PCI address, code) → occurrences since the agent started; not bounded by the identities held."""

    @property
    def boot(self) -> str:
        """The boot id of now, as far as it is known."""
        return self._boot

    def hear(self, event: KernelEvent, *, job: str | None = None) -> None:
        """Take one event of the kernel log; ``job``: the pod of the process it names, where that is known."""
        what = event.what
        boot = event.id.rpartition("/")[0] or self._boot
        # Not the text: a file written by hand may use one number for several lines, of which each is a line.
        if not self._witnesses.first_time(f"{event.id} {type(what).__name__}{getattr(what, 'code', '')}"):
            return
        self._boot = boot
        if isinstance(what, XIDLine):
            self._xid(event, what, job)
        elif isinstance(what, SXIDLine):
            self._sxid(event, what)
        elif isinstance(what, LostLine):
            _bounded(self.lost, what.pci, event.at)
        elif isinstance(what, IdentityLine | SerialLine):
            self._named(what)
        elif isinstance(what, DriverLoaded):
            self._driver_loaded(event.at)
        elif not isinstance(what, SXIDDetail):  # Part of the error above it, which is counted.
            self.signals.hear(what, event.at)

    def hear_nvml(
        self,
        *,
        code: int,
        pci: str,
        at: float,
        uuid: str | None = None,
        gpu_instance: int | None = None,
        compute_instance: int | None = None,
        event_id: str = "",
    ) -> None:
        """Take an XID that NVML reports as an event. It knows the number and the instance, never the words.

        Args:
            code: the XID.
            pci: the GPU's address, in any form.
            at: Unix time of the event in seconds.
            uuid: the GPU's, where known.
            gpu_instance: of MIG; 0xFFFFFFFF is NVML's "the whole GPU".
            compute_instance: likewise.
            event_id: makes it count once however often it is given; empty: made of what is known.
        """
        address = slot(pci) + ".0"
        whole = 0xFFFFFFFF
        identity = event_id or f"{self._boot}/nvml-{code}-{address}-{at:.3f}"
        if not self._witnesses.first_time(identity):
            return
        burst = Burst(
            id=identity[:63],
            boot=self._boot,
            code=code,
            pci=address,
            first=at,
            last=at,
            uuid=uuid or self.uuids.get(address),
            gpu_instance=None if gpu_instance == whole else gpu_instance,
            compute_instance=None if compute_instance == whole else compute_instance,
        )
        if self._witnesses.told_by_kernel(address, code, at):
            return
        self._witnesses.nvml_told(burst)
        self._count(address, code)
        self._apply(burst)

    def observe(self, sample: Sample) -> None:
        """Look for evidence of recovery in a finished sample."""
        seen = self._resets.observe(sample)
        if seen.driver_loaded:
            self._driver_loaded(sample.taken_at)
        for pci in seen.recovered:
            self._clear(pci, sample.taken_at)
        for pci in seen.reset:
            self._clear(pci, sample.taken_at, but=LOST_CODE)
        self.signals.observe(sample)

    @property
    def occurrences(self) -> tuple[Occurrence, ...]:
        """The XIDs of this boot, newest first: at most 64, those that matter least are left out."""
        return occurrences.of(self.history, boot=self._boot)

    def dump(self) -> bytes:
        """All that must survive a restart of the agent, at most 256 KiB."""
        return state.dump(
            state.State(
                boot=self._boot,
                bursts=self.history,
                switches=self.switch_history,
                signals=self.signals.held,
                lost=self.lost,
                uuids=self.uuids,
                serials=self.serials,
                recovery=self._resets.demands,
                heard=self._witnesses.heard,
            )
        )

    def load(self, data: bytes, *, now: float) -> str | None:
        """Take what :meth:`dump` gave, before anything is heard.

        Args:
            data: any bytes; what cannot be used leaves the ledger empty.
            now: Unix seconds; what is older than two weeks is dropped.

        Returns:
            Why it could not be used, None where it was. The caller then reads the log from its beginning.
        """
        kept = state.load(data)
        if isinstance(kept, str):
            return kept
        self.history = history.prune(kept.bursts, now)
        self.switch_history = history.prune(kept.switches, now)
        self._witnesses.remember(kept.heard)
        if not self._boot:
            self._boot = kept.boot
        if kept.boot == self._boot:
            self.signals.remember(kept.signals)
            self.lost, self.uuids, self.serials = dict(kept.lost), dict(kept.uuids), dict(kept.serials)
            self._resets.remember(kept.recovery)
        return None

    def _named(self, what: IdentityLine | SerialLine) -> None:
        if isinstance(what, IdentityLine):
            _bounded(self.uuids, what.pci, what.uuid)
        elif what.pci is not None:
            _bounded(self.serials, what.pci, what.serial)

    def _xid(self, event: KernelEvent, line: XIDLine, job: str | None) -> None:
        earlier = self._witnesses.told_by_nvml(line.pci, line.code, event.at)
        if earlier is None:
            self._count(line.pci, line.code)
        else:
            self.history = _without_one(self.history, earlier)
        self._witnesses.kernel_told(line.pci, line.code, event.at)
        self._apply(
            Burst(
                id=earlier.id if earlier is not None else event.id,
                boot=self._boot,
                code=line.code,
                pci=line.pci,
                first=event.at,
                last=event.at,
                message=line.message[: history.MAX_MESSAGE],
                gpu_instance=line.gpu_instance,
                compute_instance=line.compute_instance,
                process_id=line.process_id,
                process_name=line.process_name,
                job=job,
                uuid=self.uuids.get(line.pci),
                caused_by=line.caused_by,
                place=history.place_of(line.detail),
                mark=history.mark_of(line.detail),
                detail=line.detail,
            )
        )

    def _apply(self, burst: Burst) -> None:
        demand = burst.detail.after if isinstance(burst.detail, Recovery) else None
        if burst.code == _REENGAGED:
            self._clear(burst.pci, burst.last, codes=frozenset({_DISENGAGED}))
        if demand == 0:
            self._clear(burst.pci, burst.last)
        elif demand is not None:  # The latest of the driver's demands counts.
            self._clear(burst.pci, burst.last, codes=frozenset({workflow.RECOVERY_CODE}))
        self.history = history.add(history.prune(self.history, burst.last), burst)
        if demand == 0:
            self._clear(burst.pci, burst.last, codes=frozenset({workflow.RECOVERY_CODE}))

    def _sxid(self, event: KernelEvent, line: SXIDLine) -> None:
        self._count(line.pci, line.code)
        if line.code == _COOL:
            self.switch_history = history.clear(self.switch_history, at=event.at, pci=line.pci, codes=frozenset({_HOT}))
        burst = Burst(
            id=event.id,
            boot=self._boot,
            code=line.code,
            pci=line.pci,
            first=event.at,
            last=event.at,
            message=line.message[: history.MAX_MESSAGE],
            mark=f"{'fatal' if line.fatal else 'non-fatal'} {'' if line.link is None else line.link}".strip(),
        )
        self.switch_history = history.add(history.prune(self.switch_history, event.at), burst)

    def _count(self, pci: str, code: int) -> None:
        if (pci, code) in self.totals or len(self.totals) < _MAX_TOTALS:
            self.totals[pci, code] = self.totals.get((pci, code), 0) + 1

    def _clear(self, pci: str, at: float, *, codes: frozenset[int] = frozenset(), but: int | None = None) -> None:
        self.history = history.clear(self.history, at=at, pci=pci, codes=codes, but=but)
        if not codes:
            self.signals.recovered(pci, at)
            if but is None and self.lost.get(pci, at + 1) <= at:
                del self.lost[pci]

    def _driver_loaded(self, at: float) -> None:
        self._resets.forget()
        self.history = history.clear(self.history, at=at, but=LOST_CODE)
        self.switch_history = history.clear(self.switch_history, at=at)
        self.signals.driver_loaded(at)


def _without_one(bursts: Bursts, told: Burst) -> Bursts:
    """Without the occurrence that NVML told of, now that the kernel's words for it are here."""
    rest = []
    for burst in bursts:
        if burst.boot == told.boot and burst.key == told.key and burst.first <= told.first <= burst.last:
            if burst.count > 1:
                rest.append(msgspec.structs.replace(burst, count=burst.count - 1))
            continue
        rest.append(burst)
    return tuple(rest)


def _bounded(entries: dict[str, _Value], key: str, value: _Value) -> None:
    if key in entries or len(entries) < _MAX_ADDRESSES:
        entries[key] = value
