"""What the driver said over the last two weeks, as a value: bursts in a tuple, and functions that make new tuples.

A burst is one code of one GPU, process and place, repeated without a pause: within 15 s (XID 13), within 3 h (codes
that stay until a reset: 74, 79, 95, 109, 119), else within 3 minutes. NVIDIA's workflows count bursts, not lines.
"""

from collections.abc import Iterable
from typing import Annotated

import msgspec

from gpudiag_agent.checks.xid import catalogue
from gpudiag_agent.kernel_log.details import (
    Containment,
    Detail,
    LinkEvent,
    LinkRegisters,
    PageFault,
    Recovery,
    SMException,
)
from gpudiag_agent.state.bounds import Moment, Natural, Word

KEPT = 14 * 86400.0
"""Seconds for which bursts are remembered, over reboots."""
MAX_BURSTS = 384
MAX_MESSAGE = 400
SPREAD = "*"
"""The place of a burst that had several."""

_STICKY = frozenset({74, 79, 95, 109, 119})
_SPANS = {13: 15.0, **dict.fromkeys(_STICKY, 3 * 3600.0)}
_SPAN = 180.0


class Burst(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One code of one GPU, process and place, once or several times in a row."""

    id: str
    """Of its first event."""
    boot: str = ""
    """The kernel's boot id."""
    code: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
    pci: Word
    first: Moment
    """Unix time in seconds."""
    last: Moment
    count: Natural = 1
    message: str = ""
    """Of the first, at most 400 characters."""
    gpu_instance: Natural | None = None
    compute_instance: Natural | None = None
    process_id: Natural | None = None
    process_name: str | None = None
    job: str | None = None
    """The pod that the process belonged to, where that was known at the time."""
    uuid: Word | None = None
    """Of the GPU, where the kernel has named it: another board in the slot is another story."""
    caused_by: int | None = None
    place: str | None = None
    """Where on the GPU, for XIDs 13 and 31; :data:`SPREAD`: at several places."""
    mark: str = ""
    """What else tells it from others of the same code: the link, the recovery action, the reset it asks for."""
    detail: Detail | None = None
    cleared: bool = False
    """Evidence has come since the last event that the GPU recovered."""

    @property
    def key(self) -> tuple[str | int | None, ...]:
        """What it is, without when. Not the pid: a job that crashes and restarts is one story."""
        return (self.code, self.pci, self.gpu_instance, self.compute_instance, self.process_name, self.mark)

    @property
    def link(self) -> str | None:
        """The link that it is about, as a subject names it."""
        number = self.detail.link if isinstance(self.detail, LinkRegisters | LinkEvent) else None
        return None if number is None or number < 0 else f"nvlink {number}"


Bursts = tuple[Burst, ...]


def place_of(detail: Detail | None) -> str | None:
    """Where on the GPU it happened; None: not said."""
    return detail.place or None if isinstance(detail, SMException | PageFault) else None


def mark_of(detail: Detail | None) -> str:
    """What tells one error of a code from another one of it."""
    match detail:
        case Recovery():
            return f"to {detail.after}"
        case Containment():
            return f"{'reset' if detail.reset else ''}{'drain' if detail.drain_reset else ''}"
        case LinkRegisters():
            return f"link {detail.link}"
        case LinkEvent():
            return f"{detail.unit} link {detail.link} sub {detail.sub} status {detail.status}"
        case _:
            return ""


def add(bursts: Bursts, new: Burst) -> Bursts:
    """With one more event: it joins the burst it belongs to, or is one."""
    for position in range(len(bursts) - 1, -1, -1):
        old = bursts[position]
        if old.key == new.key and old.boot == new.boot and not old.cleared:
            if new.first - old.last < _SPANS.get(new.code, _SPAN):
                return (*bursts[:position], _joined(old, new), *bursts[position + 1 :])
            break
    return _bounded((*bursts, new))


def _joined(old: Burst, new: Burst) -> Burst:
    return msgspec.structs.replace(
        old,
        first=min(old.first, new.first),
        last=max(old.last, new.last),
        count=old.count + new.count,
        place=old.place if new.place in {None, old.place} else SPREAD if old.place else new.place,
        job=old.job or new.job,
        uuid=old.uuid or new.uuid,
        caused_by=new.caused_by if old.caused_by is None else old.caused_by,
        detail=new.detail if old.detail is None or isinstance(new.detail, LinkRegisters) else old.detail,
    )


def clear(
    bursts: Bursts, *, at: float, pci: str | None = None, codes: frozenset[int] = frozenset(), but: int | None = None
) -> Bursts:
    """With evidence of recovery.

    Args:
        bursts: the history.
        at: Unix time of the evidence; later events are not touched.
        pci: the GPU; None: all of them.
        codes: which codes; empty: all.
        but: a code that this evidence does not speak to.
    """
    return tuple(
        msgspec.structs.replace(burst, cleared=True)
        if not burst.cleared
        and burst.last <= at
        and pci in {None, burst.pci}
        and (not codes or burst.code in codes)
        and burst.code != but
        else burst
        for burst in bursts
    )


def prune(bursts: Bursts, now: float) -> Bursts:
    """Without what is older than two weeks."""
    return tuple(burst for burst in bursts if now - burst.last <= KEPT)


def _bounded(bursts: Bursts) -> Bursts:
    """Beyond the bound an eighth goes: old bursts of one kind become one, else what is cleared, light or old."""
    if len(bursts) <= MAX_BURSTS:
        return bursts
    surplus = len(bursts) - MAX_BURSTS * 7 // 8
    kept: list[Burst] = []
    first_of: dict[tuple[object, ...], int] = {}
    for burst in bursts[:-1]:
        key = (burst.boot, burst.cleared, *burst.key)
        position = first_of.setdefault(key, len(kept))
        if position < len(kept) and surplus:
            kept[position] = _joined(kept[position], burst)
            surplus -= 1
        else:
            kept.append(burst)
    kept.append(bursts[-1])
    if len(kept) <= MAX_BURSTS:
        return tuple(kept)
    lost = set(sorted(range(len(kept)), key=lambda position: _weight(kept[position]))[:surplus])
    return tuple(burst for position, burst in enumerate(kept) if position not in lost)


def _weight(burst: Burst) -> tuple[bool, int, float]:
    severity = catalogue.lookup(burst.code).severity
    return (not burst.cleared, severity.badness, burst.last)


def of_boot(bursts: Iterable[Burst], boot: str) -> Bursts:
    """Those of one boot."""
    return tuple(burst for burst in bursts if burst.boot == boot)
