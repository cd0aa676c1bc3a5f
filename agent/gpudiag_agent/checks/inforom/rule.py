"""The InfoROM, the board's own memory: its serial number, its settings, its history of errors.

| what | finding | cleared by |
|---|---|---|
| it is invalid, or a call answers CORRUPTED_INFOROM (14) | InfoROMCorrupted, Warning | found valid; another board |

Whether it is valid says ``nvmlDeviceValidateInforom``. Read rarely, because it is slow; in between, and where a read
fails, the last answer holds.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.sample import Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

NVML_ERROR_CORRUPTED_INFOROM = 14


class InfoROM:
    """See the module."""

    name = Check.INFOROM
    needs = Witness.NVML

    def __init__(self) -> None:
        self._corrupt: set[str] = set()

    def observe(self, sample: Sample) -> None:
        """Remember the last answer of every GPU."""
        if sample.fault is not None:
            return
        said = {gpu.uuid for gpu in sample.gpus if gpu.inforom_valid is False}
        unsaid = {gpu.uuid for gpu in sample.gpus if gpu.inforom_valid is None}
        self._corrupt = said | (self._corrupt & unsaid)

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs whose InfoROM is corrupt."""
        for gpu in view.sample.gpus:
            answered = any(error.code == NVML_ERROR_CORRUPTED_INFOROM for error in gpu.errors)
            if not answered and gpu.uuid not in self._corrupt:
                continue
            subject = subject_of(gpu)
            yield Problem(
                check=Check.INFOROM,
                reason="InfoROMCorrupted",
                severity=Severity.WARNING,
                blame=Blame.HARDWARE,
                action=Action.RESET_GPU_WHEN_IDLE,
                message=f"{say(subject)}: its InfoROM is corrupt, so its settings and its history of errors cannot be "
                "trusted. Reset it when it is idle; if that does not mend it, have it replaced.",
                subject=subject,
                evidence=(evidence("inforomValid", "false", threshold="true"),),
            )
