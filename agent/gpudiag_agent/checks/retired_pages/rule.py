"""Retired memory pages (V100, T4, P100; fields 29 to 31). From A100 on rows are remapped instead.

| what | finding | cleared by |
|---|---|---|
| ``retiredPages.total`` pages or more (63, as DCGM has it) | RetiredPageLimit, Critical | another board |
| many pages for double-bit errors, and growing | RetiredPagesGrowing, Critical | a week without such growth |
| a page waits for its retirement | RetirementPending, Warning: until then new work may get it | a reset |

Many: more than ``doubleBit`` (15). Growing: by more than ``doubleBitPerWeek`` (1) within a week, as DCGM has it.

The worst of a GPU is its one finding. The counts never fall and survive reboots, as does what is known of their growth.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.counters import WEEK, Counters
from gpudiag_agent.checks.memory import LastKnown
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_agent.thresholds import RetiredPageLimits
from gpudiag_api.vocabulary import Action, Blame, Check, Severity
from gpudiag_api.wire import Evidence

_DOUBLE_BIT = "retiredPages.doubleBit"


class RetiredPages:
    """See the module.

    Args:
        counters: shared by all checks.
    """

    name = Check.RETIRED_PAGES
    needs = Witness.NVML

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._single = LastKnown(lambda gpu: gpu.retired_pages_single_bit)
        self._double = LastKnown(lambda gpu: gpu.retired_pages_double_bit)
        self._pending = LastKnown(lambda gpu: gpu.retired_pages_pending)

    def observe(self, sample: Sample) -> None:
        """Remember the counts and follow the growth."""
        for memory in (self._single, self._double, self._pending):
            memory.observe(sample)
        for gpu in sample.gpus:
            pages = {_DOUBLE_BIT: gpu.retired_pages_double_bit}
            self._counters.observe(gpu.uuid, pages, sample.taken_at, lifetime=True)

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs that lose memory pages."""
        limits = view.thresholds.retired_pages
        for gpu in view.sample.gpus:
            problem = self._worst(gpu, limits)
            if problem is not None:
                yield problem

    def _worst(self, gpu: GPUSample, limits: RetiredPageLimits) -> Problem | None:
        double = int(self._double.get(gpu) or 0)
        total = double + int(self._single.get(gpu) or 0)
        grown = self._counters.increase(gpu.uuid, _DOUBLE_BIT, WEEK) or 0
        if total >= limits.total:
            words = f"{total} memory pages are retired, which is the limit; it qualifies for replacement"
            return _replace(gpu, "RetiredPageLimit", words, evidence("retiredPages", total, threshold=limits.total))
        if double > limits.double_bit and grown > limits.double_bit_per_week:
            words = f"{double} memory pages are retired for double-bit errors, {grown} of them within a week"
            return _replace(
                gpu,
                "RetiredPagesGrowing",
                words,
                evidence("retiredPagesDoubleBit", double, threshold=limits.double_bit),
                evidence("newPages", grown, threshold=limits.double_bit_per_week, unit="pages/week"),
            )
        return _pending(gpu) if self._pending.get(gpu) else None


def _replace(gpu: GPUSample, reason: str, words: str, *shown: Evidence) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.RETIRED_PAGES,
        reason=reason,
        severity=Severity.CRITICAL,
        blame=Blame.HARDWARE,
        action=Action.REPLACE_GPU,
        message=f"{say(subject)}: {words}.",
        subject=subject,
        evidence=shown,
    )


def _pending(gpu: GPUSample) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.RETIRED_PAGES,
        reason="RetirementPending",
        severity=Severity.WARNING,
        blame=Blame.HARDWARE,
        action=Action.DRAIN_AND_RESET_GPU,
        message=f"{say(subject)}: a faulty memory page is retired at the next reset; until then work may still get "
        "it. Drain and reset the GPU.",
        subject=subject,
        evidence=(evidence("retiredPagesPending", "true", threshold="false"),),
    )
