"""Persistence mode (``nvmlDeviceGetPersistenceMode``). A setting, never a fault.

| what | finding | cleared by |
|---|---|---|
| off in every look of :data:`LASTING` seconds | PersistenceModeOff, Info | one look with it on |

Off, the driver lets go of a GPU that nobody uses: the next job waits for seconds, settings are lost, and error counters
start anew with every look. Workstation boards come with it off: nothing is said there. At boot the daemon that switches
it on may come after the agent, hence the wait.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.boards import is_workstation
from gpudiag_agent.sample import Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

LASTING = 120.0
"""Seconds."""


class PersistenceMode:
    """See the module."""

    name = Check.PERSISTENCE_MODE
    needs = Witness.NVML

    def __init__(self) -> None:
        self._off: dict[str, tuple[float, float]] = {}
        """GPU → since when it is off, and when that was last read."""

    def observe(self, sample: Sample) -> None:
        """Remember since when it is off."""
        if sample.fault is not None:
            return
        off = {}
        for gpu in sample.gpus:
            before = self._off.get(gpu.uuid)
            if gpu.persistence_mode is False:
                since = before[0] if before is not None else sample.taken_at
                off[gpu.uuid] = (min(since, sample.taken_at), sample.taken_at)
            elif gpu.persistence_mode is None and before is not None and gpu.incomplete:
                off[gpu.uuid] = before
        self._off = off

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs that the driver lets go of."""
        for gpu in view.sample.gpus:
            since, read_at = self._off.get(gpu.uuid, (0.0, 0.0))
            if read_at - since < LASTING or is_workstation(gpu.model):
                continue
            subject = subject_of(gpu)
            yield Problem(
                check=Check.PERSISTENCE_MODE,
                reason="PersistenceModeOff",
                severity=Severity.INFO,
                blame=Blame.ENVIRONMENT,
                action=Action.NONE,
                message=f"{say(subject)}: persistence mode is off: jobs start slowly, and error counters start anew "
                "whenever nobody uses it. Run nvidia-persistenced.",
                subject=subject,
                evidence=(evidence("persistenceMode", "off", threshold="on"),),
            )
