"""Uncorrectable errors in on-chip memory (A100 and newer; ``nvmlDeviceGetSramEccErrorStatus``).

| what | finding | cleared by |
|---|---|---|
| the GPU's own threshold flag | SRAMThresholdExceeded, Critical: NVIDIA's criterion for a replacement | another board |

Counts below the threshold are history over the life of the board: evidence, never a finding. A read that fails keeps
the flag; three without an answer in a row forget it.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.memory import PATIENCE, LastKnown
from gpudiag_agent.sample import Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity


class SRAMECC:
    """See the module."""

    name = Check.SRAM_ECC
    needs = Witness.NVML

    def __init__(self) -> None:
        self._exceeded = LastKnown(lambda gpu: gpu.sram_threshold_exceeded, patience=PATIENCE)

    def observe(self, sample: Sample) -> None:
        """Remember the flags."""
        self._exceeded.observe(sample)

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs that have had too many errors to be trusted again."""
        for gpu in view.sample.gpus:
            if not self._exceeded.get(gpu):
                continue
            subject = subject_of(gpu)
            places = (evidence(place, count, unit="errors") for place, count in gpu.sram_uncorrected.items() if count)
            yield Problem(
                check=Check.SRAM_ECC,
                reason="SRAMThresholdExceeded",
                severity=Severity.CRITICAL,
                blame=Blame.HARDWARE,
                action=Action.REPLACE_GPU,
                message=f"{say(subject)}: it has had more uncorrectable SRAM errors than NVIDIA allows; it qualifies "
                "for replacement. A reset does not help.",
                subject=subject,
                evidence=(evidence("sramThresholdExceeded", "true", threshold="false"), *places),
            )
