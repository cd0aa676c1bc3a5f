"""Row remapping, the self-repair of GPU memory (A100 and newer).

| what | finding | cleared by |
|---|---|---|
| failure flag | RemapFailed, Critical: NVIDIA's criterion for a replacement | the flag is gone: another board |
| pending flag | RemapPending, Warning: new and running work is safe, the remap happens at the next reset | a reset |

Failure outranks pending: one finding per GPU. NVML cannot tell while MIG instances are active: then there is none.
A read that fails once keeps the flags before it.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, evidence, say, subject_of
from gpudiag_agent.checks.memory import LastKnown
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity


class RowRemap:
    """See the module."""

    name = Check.ROW_REMAP

    def __init__(self) -> None:
        self._pending = LastKnown(lambda gpu: gpu.remap_pending)
        self._failure = LastKnown(lambda gpu: gpu.remap_failure)

    def observe(self, sample: Sample) -> None:
        """Remember the flags."""
        self._pending.observe(sample)
        self._failure.observe(sample)

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs whose memory waits for a repair, or is beyond it."""
        for gpu in view.sample.gpus:
            if self._failure.get(gpu):
                yield _failed(gpu)
            elif self._pending.get(gpu):
                yield _pending(gpu)


def _failed(gpu: GPUSample) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.ROW_REMAP,
        reason="RemapFailed",
        severity=Severity.CRITICAL,
        blame=Blame.HARDWARE,
        action=Action.REPLACE_GPU,
        message=f"{say(subject)}: a faulty memory row could not be remapped; the GPU qualifies for replacement.",
        subject=subject,
        evidence=(evidence("remapFailure", "true"),),
    )


def _pending(gpu: GPUSample) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.ROW_REMAP,
        reason="RemapPending",
        severity=Severity.WARNING,
        blame=Blame.HARDWARE,
        action=Action.RESET_GPU_WHEN_IDLE,
        message=f"{say(subject)}: a faulty memory row is set aside at the next reset; work on it is not affected. "
        "Reset it when it is idle.",
        subject=subject,
        evidence=(evidence("remapPending", "true"),),
    )
