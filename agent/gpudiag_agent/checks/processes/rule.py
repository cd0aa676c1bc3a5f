"""Memory and processes on a GPU that belong to nobody.

| finding | action | rule |
|---|---|---|
| OrphanedMemory, Info | ResetGPUWhenIdle | for 60 s and three samples: memory in use, no load, no process |
| OrphanedMemory, Warning | ResetGPUWhenIdle | the same for 15 minutes |
| ZombieProcess, Warning | CheckApplication | a process on the GPU has been a zombie for 60 s |
| ProcessWithoutPod, Info | CheckApplication | a compute process outside of every pod for 60 s, beside a kubelet |

Cleared by the next sample: orphaned memory when there is a process, any load or less memory; the others when the
process is gone from the GPU. The threshold is 2 GiB, or 5 % of the memory where that is more: what the driver keeps
for itself, a console or an idle daemon stays well below.

All of them need the node's own process ids: a container that sees only its own is shown an empty list. OrphanedMemory
leaves out GPUs with MIG (every instance keeps a reserve) and Grace superchips (their GPU memory is a NUMA node that
the kernel itself may use). Processes that serve all pods (MPS, the DCGM host engine) belong to none, and graphics
processes are somebody's screen. A zombie's memory is freed as soon as its last thread ends: one that stays on a GPU has
a thread stuck in the driver.
"""

from collections.abc import Iterable

import msgspec

from gpudiag_agent.attribution.model import Owner
from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity
from gpudiag_api.wire import Evidence

LASTS = 60.0
"""Seconds that something must last before it is worth a word."""
LASTS_LONG = 900.0
_FEWEST = 3
_MINIMUM_BYTES = 2 << 30
_MINIMUM_SHARE = 0.05
_SHARED = ("nvidia-cuda-mps", "nv-hostengine", "dcgm-exporter", "nvidia-persiste")
"""Beginnings of kernel process names, which end after 15 characters."""
_NAMED = 8
_GIB = 1 << 30


class _Unowned(msgspec.Struct, frozen=True):
    """A run of samples in which an idle GPU had no process."""

    since: float
    samples: int
    lowest: int
    """The least memory in use in any of them, in bytes."""


class Processes:
    """See the module."""

    name = Check.PROCESSES
    needs = Witness.NVML | Witness.PROCESSES

    def __init__(self) -> None:
        self._unowned: dict[str, _Unowned] = {}
        self._first_seen: dict[tuple[str, int], float] = {}
        """(GPU, pid) → Unix time since which every sample had it."""

    def observe(self, sample: Sample) -> None:
        """Move every run on. A driver that answers nothing, or a list that could not be read, leaves it as it was."""
        if sample.fault is not None:
            return
        unowned: dict[str, _Unowned] = {}
        seen: dict[tuple[str, int], float] = {}
        for gpu in sample.gpus:
            if gpu.incomplete and None in (gpu.processes, gpu.utilization_percent, gpu.memory_used_bytes):
                run = self._unowned.get(gpu.uuid)
                seen |= {key: at for key, at in self._first_seen.items() if key[0] == gpu.uuid}
            else:
                run = self._continued(gpu, sample.taken_at)
                for process in gpu.processes or ():
                    key = (gpu.uuid, process.pid)
                    seen[key] = min(self._first_seen.get(key, sample.taken_at), sample.taken_at)
            if run is not None:
                unowned[gpu.uuid] = run
        self._unowned, self._first_seen = unowned, seen

    def _continued(self, gpu: GPUSample, now: float) -> _Unowned | None:
        used = gpu.memory_used_bytes
        if gpu.processes is None or gpu.processes or used is None or not _judged(gpu):
            return None
        before = self._unowned.get(gpu.uuid)
        if before is None or before.since > now:  # The clock was set back.
            return _Unowned(now, 1, used)
        return _Unowned(before.since, before.samples + 1, min(before.lowest, used))

    def judge(self, view: View) -> Iterable[Problem]:
        """What belongs to nobody, where the node's processes can be seen."""
        if view.owners is None:
            return
        for gpu in view.sample.gpus:
            yield from self._memory(gpu, view.sample.taken_at)
            lasting = [
                owner
                for process in gpu.processes or ()
                if process.kind == "compute"
                and (owner := view.owners.get(process.pid)) is not None
                and view.sample.taken_at - self._first_seen.get((gpu.uuid, process.pid), view.now) >= LASTS
            ]
            yield from _zombies(gpu, lasting, view.now)
            if view.pods_seen:
                yield from _without_pod(gpu, lasting)

    def _memory(self, gpu: GPUSample, now: float) -> Iterable[Problem]:
        run = self._unowned.get(gpu.uuid)
        threshold = max(_MINIMUM_BYTES, int((gpu.memory_total_bytes or 0) * _MINIMUM_SHARE))
        if run is None or run.lowest < threshold or run.samples < _FEWEST or now - run.since < LASTS:
            return
        lasts = now - run.since
        subject = subject_of(gpu)
        gibibytes = f"{run.lowest / _GIB:.1f}"
        yield Problem(
            check=Check.PROCESSES,
            reason="OrphanedMemory",
            severity=Severity.WARNING if lasts >= LASTS_LONG else Severity.INFO,
            blame=Blame.DRIVER,
            action=Action.RESET_GPU_WHEN_IDLE,
            message=f"{say(subject)}: {gibibytes} GiB of its memory are in use and no process uses it.",
            subject=subject,
            evidence=(
                evidence("memoryUsed", gibibytes, threshold=f"{threshold / _GIB:.1f}", unit="GiB"),
                evidence("processes", 0),
                evidence("lasted", round(lasts), threshold=round(LASTS), unit="s"),
            ),
            since=run.since,
        )


def _judged(gpu: GPUSample) -> bool:
    """Whether "idle and nobody there" can be told of this GPU."""
    return gpu.mig_current is not True and gpu.c2c is None and gpu.utilization_percent == 0


def _zombies(gpu: GPUSample, lasting: Iterable[Owner], now: float) -> Iterable[Problem]:
    found = [owner for owner in lasting if owner.state == "Z" and now - owner.state_since >= LASTS]
    if found:
        subject = subject_of(gpu)
        yield Problem(
            check=Check.PROCESSES,
            reason="ZombieProcess",
            severity=Severity.WARNING,
            blame=Blame.UNKNOWN,
            action=Action.CHECK_APPLICATION,
            message=f"{say(subject)}: held by {_named(found)}, which ended and cannot be cleared away.",
            subject=subject,
            evidence=_evidence(found),
        )


def _without_pod(gpu: GPUSample, lasting: Iterable[Owner]) -> Iterable[Problem]:
    found = [
        owner
        for owner in lasting
        if owner.pod_uid is None and owner.state != "Z" and not owner.name.startswith(_SHARED)
    ]
    if found:
        subject = subject_of(gpu)
        yield Problem(
            check=Check.PROCESSES,
            reason="ProcessWithoutPod",
            severity=Severity.INFO,
            blame=Blame.APPLICATION,
            action=Action.CHECK_APPLICATION,
            message=f"{say(subject)}: used by {_named(found)}, which runs on the node outside of every pod.",
            subject=subject,
            evidence=_evidence(found),
        )


def _named(found: list[Owner]) -> str:
    first = found[0]
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"process {first.pid} ({first.name}){more}"


def _evidence(found: list[Owner]) -> tuple[Evidence, ...]:
    return tuple(evidence("process", f"{owner.pid} {owner.name} {owner.state}") for owner in found[:_NAMED])
