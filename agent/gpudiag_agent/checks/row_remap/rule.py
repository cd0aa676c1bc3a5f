"""Row remapping, the self-repair of GPU memory (A100 and newer).

| what | finding | cleared by |
|---|---|---|
| failure flag | RemapFailed, Critical: NVIDIA's criterion for a replacement | another board |
| pending flag, of a row or (field 307) of a bank | RemapPending, Warning: work on it is safe | a reset |
| no spare rows in more than ``rowRemap.banksWithoutSpares`` (0) banks | SpareRowsExhausted, Warning | another board |
| few in more than ``rowRemap.banksLow`` (0) banks | SpareRowsLow, Info | another board |

Where a bank has no spare row left, the next faulty row cannot be remapped: an early warning.

The first that holds is the GPU's one finding. NVML cannot tell while MIG instances are active: then there is none.
Rows that were remapped are repaired: history, no finding. A read that fails once keeps the flags before it.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.memory import PATIENCE, LastKnown
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity


class RowRemap:
    """See the module."""

    name = Check.ROW_REMAP
    needs = Witness.NVML

    def __init__(self) -> None:
        self._pending = LastKnown(lambda gpu: gpu.remap_pending)
        self._bank_pending = LastKnown(lambda gpu: gpu.bank_remap_pending, patience=PATIENCE)
        self._failure = LastKnown(lambda gpu: gpu.remap_failure)
        self._exhausted = LastKnown(
            lambda gpu: gpu.remap_histogram.none if gpu.remap_histogram is not None else None, patience=PATIENCE
        )
        self._low = LastKnown(
            lambda gpu: gpu.remap_histogram.low if gpu.remap_histogram is not None else None, patience=PATIENCE
        )

    def observe(self, sample: Sample) -> None:
        """Remember the flags."""
        for memory in (self._pending, self._bank_pending, self._failure, self._exhausted, self._low):
            memory.observe(sample)

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs whose memory waits for a repair, or is beyond it."""
        limits = view.thresholds.row_remap
        for gpu in view.sample.gpus:
            if self._failure.get(gpu):
                yield _failed(gpu)
            elif self._pending.get(gpu):
                yield _pending(gpu, "row", "remapPending")
            elif self._bank_pending.get(gpu):
                yield _pending(gpu, "bank", "bankRemapPending")
            elif (banks := self._exhausted.get(gpu) or 0) > limits.banks_without_spares:
                yield _exhausted(gpu, banks, limits.banks_without_spares)
            elif (banks := self._low.get(gpu) or 0) > limits.banks_low:
                yield _low(gpu, banks, limits.banks_low)


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
        evidence=(evidence("remapFailure", "true", threshold="false"),),
    )


def _pending(gpu: GPUSample, what: str, flag: str) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.ROW_REMAP,
        reason="RemapPending",
        severity=Severity.WARNING,
        blame=Blame.HARDWARE,
        action=Action.RESET_GPU_WHEN_IDLE,
        message=f"{say(subject)}: a faulty memory {what} is set aside at the next reset; work on it is not affected. "
        "Reset it when it is idle.",
        subject=subject,
        evidence=(evidence(flag, "true", threshold="false"),),
    )


def _exhausted(gpu: GPUSample, banks: int, limit: int) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.ROW_REMAP,
        reason="SpareRowsExhausted",
        severity=Severity.WARNING,
        blame=Blame.HARDWARE,
        action=Action.RUN_DIAGNOSTICS,
        message=f"{say(subject)}: {banks} of its memory banks have no spare row left; the next faulty row there cannot "
        "be remapped. Plan its replacement.",
        subject=subject,
        evidence=(evidence("banksWithoutSpares", banks, threshold=limit, unit="banks"),),
    )


def _low(gpu: GPUSample, banks: int, limit: int) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.ROW_REMAP,
        reason="SpareRowsLow",
        severity=Severity.INFO,
        blame=Blame.HARDWARE,
        action=Action.NONE,
        message=f"{say(subject)}: {banks} of its memory banks have few spare rows left. Nothing to do yet.",
        subject=subject,
        evidence=(evidence("banksLow", banks, threshold=limit, unit="banks"),),
    )
