"""ECC mode (``nvmlDeviceGetEccMode``). A setting, never a fault.

| what | finding | cleared by |
|---|---|---|
| the pending mode is not the current one | ECCModePending, Info | a reset, or the old mode chosen again |
| off, on a board that has it on by default | ECCDisabled, Info | ECC switched on, and a reset |

A pending change outranks the mode: one finding per GPU. Workstation boards come with ECC off: nothing is said there.
A read that fails once keeps the modes before it.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.boards import is_workstation
from gpudiag_agent.checks.memory import LastKnown
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity


class ECCMode:
    """See the module."""

    name = Check.ECC_MODE
    needs = Witness.NVML

    def __init__(self) -> None:
        self._current = LastKnown(lambda gpu: gpu.ecc_current)
        self._pending = LastKnown(lambda gpu: gpu.ecc_pending)

    def observe(self, sample: Sample) -> None:
        """Remember the modes."""
        self._current.observe(sample)
        self._pending.observe(sample)

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs without ECC, and those whose mode changes with the next reset."""
        for gpu in view.sample.gpus:
            current, pending = self._current.get(gpu), self._pending.get(gpu)
            if current is None:
                continue
            if pending is not None and pending != current:
                yield _changing(gpu, on=bool(pending))
            elif not current and not is_workstation(gpu.model):
                yield _off(gpu)


def _changing(gpu: GPUSample, *, on: bool) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.ECC_MODE,
        reason="ECCModePending",
        severity=Severity.INFO,
        blame=Blame.ENVIRONMENT,
        action=Action.RESET_GPU_WHEN_IDLE,
        message=f"{say(subject)}: ECC will be switched {'on' if on else 'off'} at the next reset, as somebody asked. "
        "Reset it when it is idle.",
        subject=subject,
        evidence=(evidence("eccCurrent", _word(on=not on), threshold=_word(on=on)),),
    )


def _off(gpu: GPUSample) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.ECC_MODE,
        reason="ECCDisabled",
        severity=Severity.INFO,
        blame=Blame.ENVIRONMENT,
        action=Action.NONE,
        message=f"{say(subject)}: ECC is off, so memory errors go unseen and results may be wrong without a word. "
        "Unless that is wanted: nvidia-smi -e 1, then a reset.",
        subject=subject,
        evidence=(evidence("eccCurrent", _word(on=False), threshold=_word(on=True)),),
    )


def _word(*, on: bool) -> str:
    return "on" if on else "off"
