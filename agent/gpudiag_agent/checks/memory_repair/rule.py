"""Repairs of memory channels and TPCs, and memory beyond repair (flags of newer GPUs; newer drivers only).

| flag | finding | cleared by |
|---|---|---|
| unrepairable memory (``nvmlDeviceGetUnrepairableMemoryFlag_v1``) | UnrepairableMemory, Critical | another board |
| channel repair pending (``nvmlDeviceGetRepairStatus``) | ChannelRepairPending, Warning | a reset |
| TPC repair pending (``nvmlDeviceGetRepairStatus``) | TPCRepairPending, Warning | a reset |

The first that holds is the GPU's one finding. A read that fails keeps the flags; three without an answer in a row
forget them.
"""

from collections.abc import Iterable

import msgspec

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.memory import PATIENCE, LastKnown
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity


class _Rule(msgspec.Struct, frozen=True):
    reason: str
    flag: str
    severity: Severity
    action: Action
    words: str


_RULES = (
    _Rule(
        "UnrepairableMemory", "unrepairableMemory", Severity.CRITICAL, Action.REPLACE_GPU,
        "it has memory that cannot be repaired; it qualifies for replacement",
    ),
    _Rule(
        "ChannelRepairPending", "channelRepairPending", Severity.WARNING, Action.RESET_GPU_WHEN_IDLE,
        "a memory channel is repaired at the next reset. Reset it when it is idle",
    ),
    _Rule(
        "TPCRepairPending", "tpcRepairPending", Severity.WARNING, Action.RESET_GPU_WHEN_IDLE,
        "a faulty TPC is repaired at the next reset. Reset it when it is idle",
    ),
)  # fmt: skip


class MemoryRepair:
    """See the module."""

    name = Check.MEMORY_REPAIR
    needs = Witness.NVML

    def __init__(self) -> None:
        self._flags = {
            "UnrepairableMemory": LastKnown(lambda gpu: gpu.unrepairable_memory, patience=PATIENCE),
            "ChannelRepairPending": LastKnown(lambda gpu: gpu.channel_repair_pending, patience=PATIENCE),
            "TPCRepairPending": LastKnown(lambda gpu: gpu.tpc_repair_pending, patience=PATIENCE),
        }

    def observe(self, sample: Sample) -> None:
        """Remember the flags."""
        for flag in self._flags.values():
            flag.observe(sample)

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs that wait for a repair, or are beyond it."""
        for gpu in view.sample.gpus:
            rule = next((rule for rule in _RULES if self._flags[rule.reason].get(gpu)), None)
            if rule is not None:
                yield _problem(gpu, rule)


def _problem(gpu: GPUSample, rule: _Rule) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.MEMORY_REPAIR,
        reason=rule.reason,
        severity=rule.severity,
        blame=Blame.HARDWARE,
        action=rule.action,
        message=f"{say(subject)}: {rule.words}.",
        subject=subject,
        evidence=(evidence(rule.flag, "true", threshold="false"),),
    )
