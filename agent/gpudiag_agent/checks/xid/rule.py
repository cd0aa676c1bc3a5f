"""XIDs as findings. What an XID means beside others is in ``workflow``, what clears it in ``ledger``.

| what | finding | severity | cleared by |
|---|---|---|---|
| critical codes | ``XID<code>`` | Critical | recovery, reset, driver loaded anew, reboot: never silence |
| codes that ask for attention | ``XID<code>``, ``UnclassifiedXID`` | Warning | the same; three days without a repeat |
| application's codes | ``XID<code>`` | Info: never degrades | one hour without a repeat |
| notes of the driver (92, 121 …), 45 after another XID | none: they stay in the list of XIDs | | |
| 63 | none where the GPU tells about repairs itself, else ``XID63`` | Warning | a reset; NVML tells again |
| 94 that asks for no reset | ``XID94`` | Warning | the GPU says that no repair waits, and an hour passed |
| 171, 172 within a minute of 48 | none: ``XID48`` says DRAM or SRAM | | |
| 79 | none here: GPULost speaks for it | | |
| 154, or NVML field 230 not 0 | ``RecoveryActionRequired`` | the driver's | 154 "to 0x0"; the field back at 0 |
| 13, 31, engines: different jobs, one place | ``XID<code>Repeated`` | Warning; Info if it may be one program | a day |
| critical, and in two earlier boots | ``FaultSurvivesReboots`` | Critical | as the code; 14 days |
| five critical bursts in a day | ``RepeatedFaults`` | Warning | fewer than five in the last day |

One finding per reason and subject (GPU, MIG instance or link): processes and repeats are counted in it. While the
driver demands something (154, field 230) that is the action of the GPU's other findings too, where they ask for a reset
or a reboot: the driver knows better.
"""

from collections.abc import Iterable, Iterator

import msgspec

from gpudiag_agent.checks.base import Occurrence, Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.memory import LastKnown
from gpudiag_agent.checks.xid import catalogue, workflow
from gpudiag_agent.checks.xid.ledger import LOST_CODE
from gpudiag_agent.checks.xid.workflow import RECOVERY_CODE, Suspicion
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity
from gpudiag_api.wire import Subject

APPLICATION_SPAN = 3600.0
"""Seconds that an application's XID stays a finding. It is never a fault of the GPU, so time may end it."""
WARNING_SPAN = 3 * 86400.0
"""Seconds that a Warning stays without a repeat: as long as gpud looks back."""
CONTAINED_SPAN = 3600.0

_REMAP_CODE, _DOUBLE_BIT_CODE, _CONTAINED_CODE = 63, 48, 94
_PLACES = {171: "DRAM", 172: "SRAM"}
_BESIDE = 60.0
_OVERRIDDEN = frozenset({Action.RESET_GPU_WHEN_IDLE, Action.DRAIN_AND_RESET_GPU, Action.REBOOT_NODE})
_RECOVERY_REASON = "RecoveryActionRequired"


class XIDRule:
    """See the module."""

    name = Check.XID
    needs = Witness.KERNEL_LOG

    def __init__(self) -> None:
        self._demands = LastKnown(lambda gpu: gpu.recovery_action)

    def observe(self, sample: Sample) -> None:
        """Remember what the driver demands: a field that cannot be read takes nothing back."""
        self._demands.observe(sample)

    def judge(self, view: View) -> Iterable[Problem]:
        """What the kernel log, and the driver's recovery action, say is wrong."""
        groups: dict[tuple[str, Subject], list[Occurrence]] = {}
        for held in view.xids:
            judged = _judged(held, view)
            if judged is not None:
                groups.setdefault((_reason(held), held.subject(view.by_pci.get(held.pci))), []).append(judged)
        problems = {key: _problem(key[0], together, key[1], view) for key, together in groups.items()}
        for problem in _asked_for((gpu, self._demands.get(gpu)) for gpu in view.sample.gpus):
            # The field is the state now; the line may be older.
            problems[problem.reason, _whole_gpu(problem.subject, view)] = problem
        for suspicion in workflow.suspicions(view.xid_history, boot=view.boot, now=view.now):
            found = _suspected(suspicion, view)
            problems[found.reason, found.subject] = found
        return _overridden(list(problems.values()))


def _judged(held: Occurrence, view: View) -> Occurrence | None:
    """The occurrence as it counts now, None where it is no finding."""
    if held.cleared or held.code == LOST_CODE:
        return None
    age = view.now - held.last_seen
    if held.code == _REMAP_CODE:
        return None if _tells_of_repairs(held, view) or age >= WARNING_SPAN else _as_reset_when_idle(held)
    if held.code in _PLACES and _beside(held, _DOUBLE_BIT_CODE, view):
        return None
    if held.verdict.severity is Severity.CRITICAL:
        return held
    if held.verdict.severity is Severity.WARNING:
        over = held.code == _CONTAINED_CODE and age >= CONTAINED_SPAN and _nothing_to_repair(held, view)
        return None if over or age >= WARNING_SPAN else held
    application = held.verdict.blame is Blame.APPLICATION and held.verdict.action is not Action.NONE
    return held if application and age < APPLICATION_SPAN else None


def _gpu_at(pci: str, view: View) -> GPUSample | None:
    return next((gpu for gpu in view.sample.gpus if gpu.pci == pci), None)


def _tells_of_repairs(held: Occurrence, view: View) -> bool:
    gpu = _gpu_at(held.pci, view)
    return gpu is not None and (gpu.remap_pending is not None or gpu.retired_pages_pending is not None)


def _nothing_to_repair(held: Occurrence, view: View) -> bool:
    gpu = _gpu_at(held.pci, view)
    return gpu is not None and gpu.remap_pending is False and not gpu.remap_failure


def _as_reset_when_idle(held: Occurrence) -> Occurrence:
    verdict = catalogue.Verdict(Severity.WARNING, Blame.HARDWARE, Action.RESET_GPU_WHEN_IDLE)
    return msgspec.structs.replace(held, verdict=verdict)


def _beside(held: Occurrence, code: int, view: View) -> bool:
    return any(
        other.code == code and other.pci == held.pci and abs(other.last_seen - held.last_seen) <= _BESIDE
        for other in view.xids
    )


def _reason(held: Occurrence) -> str:
    if held.code == RECOVERY_CODE:
        return _RECOVERY_REASON
    return f"XID{held.code}" if held.code in catalogue.entries() else "UnclassifiedXID"


def _problem(reason: str, together: list[Occurrence], subject: Subject, view: View) -> Problem:
    newest = max(together, key=lambda held: held.last_seen)
    worst = max(together, key=lambda held: held.verdict.severity.badness)
    count = sum(held.count for held in together)
    by = f" (process {newest.process_name or '?'}, pid {newest.process_id})" if newest.process_id else ""
    times = "" if count == 1 else f", {count} times"
    more = [evidence("link", newest.link)] if newest.link else []
    places = [
        place
        for code, place in _PLACES.items()
        if any(o.code == code and _beside(newest, code, view) for o in view.xids)
    ]
    if newest.code == _DOUBLE_BIT_CODE and places:
        more.append(evidence("memory", places[0]))
    words = catalogue.lookup(newest.code).meaning
    return Problem(
        check=Check.XID,
        reason=reason,
        severity=worst.verdict.severity,
        blame=worst.verdict.blame,
        action=Action.covering(held.verdict.action for held in together),
        message=f"{say(subject)}: XID {newest.code}, {words}{times}{by}: {newest.message}",
        subject=subject,
        evidence=(evidence("xid", newest.code), evidence("count", count), *more),
        since=min(held.first_seen for held in together),
        until=newest.last_seen,
        count=count,
    )


def _suspected(suspicion: Suspicion, view: View) -> Problem:
    known = view.by_pci.get(suspicion.pci)
    subject = known.subject if known else Subject(pci=suspicion.pci)
    return Problem(
        check=Check.XID,
        reason=suspicion.reason,
        severity=suspicion.verdict.severity,
        blame=suspicion.verdict.blame,
        action=suspicion.verdict.action,
        message=f"{say(subject)}: {suspicion.message}.",
        subject=subject,
        evidence=(
            evidence("xids", ", ".join(str(code) for code in suspicion.codes)),
            evidence("bursts", suspicion.count),
        ),
        since=suspicion.since,
        until=suspicion.until,
        count=suspicion.count,
    )


def _asked_for(demands: Iterable[tuple[GPUSample, int | None]]) -> Iterator[Problem]:
    for gpu, demand in demands:
        if not demand:
            continue
        words, verdict = catalogue.recovery(demand)
        subject = subject_of(gpu)
        yield Problem(
            check=Check.XID,
            reason=_RECOVERY_REASON,
            severity=verdict.severity,
            blame=verdict.blame,
            action=verdict.action,
            message=f"{say(subject)}: the driver asks for: {words} (NVML field 230).",
            subject=subject,
            evidence=(evidence("recoveryAction", demand, threshold=0),),
        )


def _overridden(problems: list[Problem]) -> list[Problem]:
    """With the driver's demand in place of what the catalogue would ask for."""
    demands = {one.subject.pci: one.action for one in problems if one.reason == _RECOVERY_REASON}
    return [
        msgspec.structs.replace(one, action=demands[one.subject.pci])
        if one.subject.pci in demands and one.reason != _RECOVERY_REASON and one.action in _OVERRIDDEN
        else one
        for one in problems
    ]


def _whole_gpu(subject: Subject, view: View) -> Subject:
    """The subject in the form that kernel lines give it, so that line and field meet."""
    known = view.by_pci.get(subject.pci or "")
    return known.subject if known else subject
