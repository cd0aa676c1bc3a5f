"""Application clocks below their default (``nvmlDeviceGetApplicationsClock``). A setting, never a fault.

| what | finding | cleared by |
|---|---|---|
| the SM clock set for applications is below the default | ApplicationClocksLowered, Info | the default clock |

Clocks that are low because the GPU is idle, at its power cap or synchronised with others are how GPUs work. Clocks that
hardware holds down are judged by Throttling. Clocks set above the default are silent, as are GPUs without the setting.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.memory import PATIENCE, LastKnown
from gpudiag_agent.sample import Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity


class Clocks:
    """See the module."""

    name = Check.CLOCKS
    needs = Witness.NVML

    def __init__(self) -> None:
        self._set = LastKnown(lambda gpu: gpu.application_clock_mhz, patience=PATIENCE)
        self._default = LastKnown(lambda gpu: gpu.application_clock_default_mhz, patience=PATIENCE)

    def observe(self, sample: Sample) -> None:
        """Remember the clocks."""
        self._set.observe(sample)
        self._default.observe(sample)

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs that somebody made slower."""
        for gpu in view.sample.gpus:
            chosen, default = self._set.get(gpu), self._default.get(gpu)
            if not chosen or not default or chosen >= default:
                continue
            subject = subject_of(gpu)
            yield Problem(
                check=Check.CLOCKS,
                reason="ApplicationClocksLowered",
                severity=Severity.INFO,
                blame=Blame.ENVIRONMENT,
                action=Action.NONE,
                message=f"{say(subject)}: somebody set its application clock to {chosen} MHz, its default is "
                f"{default} MHz. nvidia-smi -rac restores it.",
                subject=subject,
                evidence=(evidence("applicationClock", chosen, threshold=default, unit="MHz"),),
            )
