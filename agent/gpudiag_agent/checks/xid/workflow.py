"""NVIDIA's workflows as pure functions over the history: what a burst means beside the others.

| code | rule |
|---|---|
| 13, 31 | the application's, unless different jobs fail at one place and none of them fails elsewhere |
| engines (class Channel) | the same per GPU, from the third burst on |
| 45 | follows another XID (its own words, or one within a minute): that one speaks; alone: the application's |
| 74 | register bits, see ``nvlink4`` |
| 94, 95 | the driver's ``RST`` and ``D-RST`` |
| 144 to 150 | unit, sub-code and status, see ``nvlink5`` |
| 154 | the action it names |
| any critical code | back after two reboots: diagnostics; five bursts in a day: the vendor |

Days are the 24 hours before the burst that is judged, or before ``now``.
"""

from collections.abc import Iterable

import msgspec

from gpudiag_agent.checks.xid import catalogue, nvlink4, nvlink5
from gpudiag_agent.checks.xid.catalogue import NOTE, RESET, Verdict
from gpudiag_agent.checks.xid.history import KEPT, SPREAD, Burst, Bursts
from gpudiag_agent.kernel_log.details import Containment, LinkEvent, LinkRegisters, Recovery
from gpudiag_api.vocabulary import Action, Blame, Severity, XIDClass

DAY = 86400.0
CLEANUP_CODE = 45
RECOVERY_CODE = 154
_FOLLOWS = 60.0
"""Seconds within which an XID 45 of an older driver is the clean-up after another one."""
_AT_ONE_PLACE = frozenset({13, 31})
_ENGINE_BURSTS = 3
STORM = 5
"""Critical bursts of one GPU within a day."""
REBOOTS = 2
"""After as many reboots a fault that is back is not one that a reboot mends."""
_REPEATS_BY_NATURE = frozenset({94})
"""Contained memory errors: row remapping judges those (gpud takes them out of its escalation as well)."""


class Suspicion(msgspec.Struct, frozen=True, kw_only=True):
    """Something that only the history shows."""

    reason: str
    pci: str
    verdict: Verdict
    message: str
    since: float
    until: float
    count: int
    """Bursts behind it."""
    codes: tuple[int, ...]


def verdict(burst: Burst, bursts: Bursts) -> Verdict:
    """What a burst asks for, given what came before it and beside it."""
    match burst.detail:
        case Recovery():
            return catalogue.recovery(burst.detail.after)[1]
        case Containment(reset=reset, drain_reset=drain) if reset or drain:
            return RESET
        case LinkEvent():
            return nvlink5.verdict(burst.code, burst.detail, repeated=_repeated(burst, bursts))
        case LinkRegisters():
            return _registers(burst, burst.detail, bursts)
    own = catalogue.lookup(burst.code).verdict
    if burst.code == CLEANUP_CODE:
        cause = _cause(burst, bursts)
        if cause is not None:
            return Verdict(NOTE.severity, catalogue.lookup(cause).blame, NOTE.action)
    return own


def _repeated(burst: Burst, bursts: Bursts) -> bool:
    if burst.count > 1 and burst.last - burst.first > 1:
        return True
    return any(other is not burst and other.key == burst.key for other in _day_before(burst, bursts))


def _registers(burst: Burst, now: LinkRegisters, bursts: Bursts) -> Verdict:
    day = _day_before(burst, bursts)
    before = tuple(other.detail for other in day if other is not burst and isinstance(other.detail, LinkRegisters))
    if burst.count > 1:
        before += (now,)
    alone = not any(_is_critical(other) for other in day if other.code != burst.code)
    rules = nvlink4.matching(now, before=before, alone=alone)
    action = Action.covering([RESET.action, *(rule.action for rule in rules)])
    return Verdict(RESET.severity, RESET.blame, action)


def _cause(burst: Burst, bursts: Bursts) -> int | None:
    if burst.caused_by is not None:
        return burst.caused_by
    for other in bursts:
        beside = other.first <= burst.first + 5 and burst.first - other.last <= _FOLLOWS
        if other.pci == burst.pci and beside and other.code not in {CLEANUP_CODE, RECOVERY_CODE}:
            return other.code
    return None


def _day_before(burst: Burst, bursts: Bursts) -> list[Burst]:
    return [other for other in bursts if other.pci == burst.pci and 0 <= burst.last - other.last <= DAY]


def _is_critical(burst: Burst) -> bool:
    if isinstance(burst.detail, LinkEvent):
        row = nvlink5.decode(burst.code, burst.detail)
        return bool(burst.detail.fatal) if row is None else row.fatal and row.action == "RESET_GPU"
    if isinstance(burst.detail, Containment) and (burst.detail.reset or burst.detail.drain_reset):
        return True
    return catalogue.lookup(burst.code).severity is Severity.CRITICAL


def suspicions(bursts: Bursts, *, boot: str, now: float) -> list[Suspicion]:
    """Everything that only the history shows.

    Args:
        bursts: the history, of all boots.
        boot: the boot id of now.
        now: Unix seconds.
    """
    return [*_at_one_place(bursts, now), *_after_reboots(bursts, boot), *_storms(bursts, now)]


def _at_one_place(bursts: Bursts, now: float) -> Iterable[Suspicion]:
    """Different jobs, one place: what they share is the hardware."""
    recent = [burst for burst in bursts if 0 <= now - burst.last <= DAY or burst.last > now]
    groups: dict[tuple[int, str, str], list[Burst]] = {}
    for burst in recent:
        if burst.code in _AT_ONE_PLACE and burst.place not in {None, SPREAD}:
            groups.setdefault((burst.code, burst.pci, burst.place or ""), []).append(burst)
        elif catalogue.lookup(burst.code).kind is XIDClass.CHANNEL:
            groups.setdefault((burst.code, burst.pci, ""), []).append(burst)
    for (code, pci, place), group in groups.items():
        elsewhere = {_job(b) for b in recent if b.code == code and (b.pci != pci or (place and b.place != place))}
        faithful = [burst for burst in group if _job(burst) not in elsewhere]
        jobs = {_job(burst) for burst in faithful}
        needed = 2 if place else _ENGINE_BURSTS
        if len(faithful) < needed or len({_process(burst) for burst in faithful}) < 2:
            continue
        # The same program under another pid may be one crash loop: said, and not held against the GPU.
        sure = len(jobs - {None}) > 1
        where = f"always at {place}" if place else "on no other GPU"
        yield Suspicion(
            reason=f"XID{code}Repeated",
            pci=pci,
            verdict=Verdict(
                Severity.WARNING if sure else Severity.INFO,
                Blame.HARDWARE if sure else Blame.UNKNOWN,
                Action.RUN_DIAGNOSTICS,
            ),
            message=f"XID {code} came {len(faithful)} times within a day from "
            f"{'different jobs' if sure else 'different processes'}, {where}: "
            f"{'the hardware is suspect' if sure else 'the hardware, or one program that is started again and again'}",
            since=min(burst.first for burst in faithful),
            until=max(burst.last for burst in faithful),
            count=len(faithful),
            codes=(code,),
        )


def _job(burst: Burst) -> str | None:
    return burst.job or burst.process_name


def _process(burst: Burst) -> tuple[str | None, int | None]:
    return (_job(burst), None if burst.job else burst.process_id)


def _after_reboots(bursts: Bursts, boot: str) -> Iterable[Suspicion]:
    """A critical fault of this boot that two earlier boots had as well."""
    present = [b for b in bursts if b.boot == boot and not b.cleared and _is_critical(b)]
    seen: set[tuple[str, int]] = set()
    for burst in present:
        if (burst.pci, burst.code) in seen or burst.code in _REPEATS_BY_NATURE:
            continue
        seen.add((burst.pci, burst.code))
        alike = [b for b in bursts if _same_board(b, burst) and b.code == burst.code and burst.last - b.last <= KEPT]
        boots = {b.boot for b in alike}
        if len(boots) <= REBOOTS:
            continue
        yield Suspicion(
            reason="FaultSurvivesReboots",
            pci=burst.pci,
            verdict=Verdict(Severity.CRITICAL, Blame.HARDWARE, Action.RUN_DIAGNOSTICS),
            message=f"XID {burst.code} is back after {len(boots) - 1} reboots: have the hardware inspected",
            since=burst.first,
            until=burst.last,
            count=len(boots),
            codes=(burst.code,),
        )


def _storms(bursts: Bursts, now: float) -> Iterable[Suspicion]:
    """Too many critical bursts of one GPU: resets do not mend it."""
    groups: dict[str, list[Burst]] = {}
    for burst in bursts:
        if now - burst.last <= DAY and _is_critical(burst) and burst.code not in _REPEATS_BY_NATURE:
            groups.setdefault(burst.pci, []).append(burst)
    for pci, all_of_gpu in groups.items():
        newest = max(all_of_gpu, key=lambda burst: burst.last)
        starts = _apart([burst for burst in all_of_gpu if _same_board(burst, newest)])
        if len(starts) < STORM:
            continue
        yield Suspicion(
            reason="RepeatedFaults",
            pci=pci,
            verdict=Verdict(Severity.WARNING, Blame.HARDWARE, Action.CONTACT_SUPPORT),
            message=f"critical XIDs came {len(starts)} times within a day: resets do not mend it",
            since=starts[0].first,
            until=newest.last,
            count=len(starts),
            codes=tuple(sorted({burst.code for burst in starts})),
        )


def _apart(bursts: list[Burst]) -> list[Burst]:
    """Bursts of different codes that came together are one: a fault often has several XIDs."""
    starts: list[Burst] = []
    last = float("-inf")
    for burst in sorted(bursts, key=lambda one: one.first):
        if burst.first - last >= 180:
            starts.append(burst)
        last = max(last, burst.last)
    return starts


def _same_board(one: Burst, other: Burst) -> bool:
    return one.pci == other.pci and (one.uuid is None or other.uuid is None or one.uuid == other.uuid)
