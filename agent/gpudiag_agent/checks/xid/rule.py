"""XIDs of this boot as findings.

| what | finding | cleared by |
|---|---|---|
| Warning and Critical codes | ``XID<code>``; ``UnclassifiedXID`` for unknown codes | what the ledger states |
| application's codes | ``XID<code>``, Info: never degrades | one hour without a repeat |
| notes of the driver (63, 92, 121 …) | none: they stay in the list of XIDs | |
| 79 | none here: GPULost speaks for it | |
| 154, or NVML field 230 not 0 | ``RecoveryActionRequired``, the driver's action | 154 "to 0x0"; the field back at 0 |

One finding per reason and subject: processes and repeats are counted in it.
"""

from collections.abc import Iterable, Iterator

from gpudiag_agent.checks.base import Memoryless, Occurrence, Problem, View, evidence, say, subject_of
from gpudiag_agent.checks.xid import catalogue
from gpudiag_agent.checks.xid.ledger import LOST_CODE, RECOVERY_CODE
from gpudiag_agent.sample import GPUSample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity
from gpudiag_api.wire import Subject

APPLICATION_SPAN = 3600.0
"""Seconds that an application's XID stays a finding. It is never a fault of the GPU, so time may end it."""


class XIDRule(Memoryless):
    """See the module."""

    name = Check.XID

    def judge(self, view: View) -> Iterable[Problem]:
        """What the kernel log, and the driver's recovery action, say is wrong."""
        groups: dict[tuple[str, str, int | None, int | None], list[Occurrence]] = {}
        for held in view.xids:
            if _counts(held, view.now):
                key = (_reason(held), held.pci, held.gpu_instance, held.compute_instance)
                groups.setdefault(key, []).append(held)
        problems = {}
        for (reason, pci, *_), held_together in groups.items():
            problem = _problem(reason, held_together, held_together[0].subject(view.by_pci.get(pci)))
            problems[reason, problem.subject] = problem
        for problem in _asked_for(view.sample.gpus):
            # The field is the state now; the line may be older.
            problems[problem.reason, _whole_gpu(problem.subject, view)] = problem
        return problems.values()


def _counts(held: Occurrence, now: float) -> bool:
    if held.cleared or held.code == LOST_CODE:
        return False
    if held.verdict.severity is not Severity.INFO:
        return True
    return held.verdict.blame is Blame.APPLICATION and now - held.last_seen < APPLICATION_SPAN


def _reason(held: Occurrence) -> str:
    if held.code == RECOVERY_CODE:
        return "RecoveryActionRequired"
    return f"XID{held.code}" if held.code in catalogue.CATALOGUE else "UnclassifiedXID"


def _problem(reason: str, together: list[Occurrence], subject: Subject) -> Problem:
    newest = max(together, key=lambda held: held.last_seen)
    worst = max(together, key=lambda held: held.verdict.severity.badness)
    count = sum(held.count for held in together)
    entry = catalogue.lookup(newest.code)
    by = f" (process {newest.process_name or '?'}, pid {newest.process_id})" if newest.process_id else ""
    times = "" if count == 1 else f", {count} times"
    return Problem(
        check=Check.XID,
        reason=reason,
        severity=worst.verdict.severity,
        blame=worst.verdict.blame,
        action=Action.covering(held.verdict.action for held in together),
        message=f"{say(subject)}: XID {newest.code}, {entry.meaning}{times}{by}: {newest.message}",
        subject=subject,
        evidence=(evidence("xid", newest.code), evidence("count", count)),
        since=min(held.first_seen for held in together),
        until=newest.last_seen,
        count=count,
    )


def _asked_for(gpus: Iterable[GPUSample]) -> Iterator[Problem]:
    for gpu in gpus:
        if not gpu.recovery_action:
            continue
        words, verdict = catalogue.recovery(gpu.recovery_action)
        subject = subject_of(gpu)
        yield Problem(
            check=Check.XID,
            reason="RecoveryActionRequired",
            severity=verdict.severity,
            blame=verdict.blame,
            action=verdict.action,
            message=f"{say(subject)}: the driver asks for: {words} (NVML field 230).",
            subject=subject,
            evidence=(evidence("recoveryAction", gpu.recovery_action, threshold=0),),
        )


def _whole_gpu(subject: Subject, view: View) -> Subject:
    """The subject in the form that kernel lines give it, so that line and field meet."""
    known = view.by_pci.get(subject.pci or "")
    return known.subject if known else subject
