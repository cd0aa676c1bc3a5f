"""MIG mode (``nvmlDeviceGetMigMode``). A setting, never a fault; faults of single instances are the XID check's.

| what | finding | cleared by |
|---|---|---|
| the pending mode is not the current one | MIGModePending, Info | a reset, or the old mode chosen again |

Until the reset the GPU works as it did. It waits for as long as anything holds the GPU, which is the usual reason. A
read that fails once keeps the modes before it.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.memory import LastKnown
from gpudiag_agent.sample import Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity


class MIG:
    """See the module."""

    name = Check.MIG
    needs = Witness.NVML

    def __init__(self) -> None:
        self._current = LastKnown(lambda gpu: gpu.mig_current)
        self._pending = LastKnown(lambda gpu: gpu.mig_pending)

    def observe(self, sample: Sample) -> None:
        """Remember the modes."""
        self._current.observe(sample)
        self._pending.observe(sample)

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs whose mode changes with the next reset."""
        for gpu in view.sample.gpus:
            current, pending = self._current.get(gpu), self._pending.get(gpu)
            if current is None or pending is None or current == pending:
                continue
            subject = subject_of(gpu)
            word = "on" if pending else "off"
            yield Problem(
                check=Check.MIG,
                reason="MIGModePending",
                severity=Severity.INFO,
                blame=Blame.ENVIRONMENT,
                action=Action.RESET_GPU_WHEN_IDLE,
                message=f"{say(subject)}: MIG will be switched {word} at the next reset, as somebody asked. Stop what "
                "uses the GPU, then reset it.",
                subject=subject,
                evidence=(evidence("migCurrent", "off" if pending else "on", threshold=word),),
            )
