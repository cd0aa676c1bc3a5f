"""Uncorrectable ECC errors.

Finding UncorrectableErrors: the *volatile* uncorrected counter is above 0. It counts since the driver was loaded or
the GPU was reset, so either clears it, as does turning ECC off. The aggregate counter, over the life of the board,
is history and never a finding. A read that fails once keeps the count before it.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.memory import LastKnown
from gpudiag_agent.sample import Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity


class ECCUncorrectable:
    """See the module."""

    name = Check.ECC_UNCORRECTABLE
    needs = Witness.NVML

    def __init__(self) -> None:
        self._errors = LastKnown(lambda gpu: gpu.ecc_uncorrected_volatile)

    def observe(self, sample: Sample) -> None:
        """Remember the counters."""
        self._errors.observe(sample)

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs with errors since the driver was loaded."""
        for gpu in view.sample.gpus:
            errors = self._errors.get(gpu)
            if not errors:
                continue
            subject = subject_of(gpu)
            yield Problem(
                check=Check.ECC_UNCORRECTABLE,
                reason="UncorrectableErrors",
                severity=Severity.CRITICAL,
                blame=Blame.HARDWARE,
                action=Action.DRAIN_AND_RESET_GPU,
                message=f"{say(subject)}: {errors} uncorrectable memory errors since the driver was loaded: "
                "results computed on it may be wrong. Drain and reset it.",
                subject=subject,
                evidence=(evidence("eccUncorrectedVolatile", errors, threshold=0, unit="errors"),),
            )
