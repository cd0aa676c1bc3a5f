"""The PCIe link against what GPU and slot can do together (``nvmlDeviceGetMaxPcieLinkWidth``, ``…Generation``).

| what | finding | cleared by |
|---|---|---|
| fewer lanes than possible | LinkWidthReduced, Warning | one look with all lanes |
| a lower generation than possible, under load, lasting | LinkGenerationReduced, Warning | one look at full speed |

Lanes do not change at idle, so they are judged always. The generation drops at idle to save power (rtx6kpro #88, nvtop
#6): it is judged only under load, which is P0, not called idle by the driver, and :data:`BUSY` percent utilisation or
more where that is known. Idle neither raises nor clears. ``pcieLink.lowestWidth`` and ``lowestGeneration`` accept less,
for slots that are narrower than their GPUs. A read that fails keeps what was known.
"""

from collections.abc import Iterable

import msgspec

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.memory import PATIENCE, LastKnown
from gpudiag_agent.sample import GPUSample, PCIeSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

LASTING = 30.0
"""Seconds under load. A link that was asleep takes a moment to come up, and to be read again."""
_FEWEST = 3
BUSY = 20
"""Percent."""
_IDLE = 0x1
"""Clock event reason (nvml.h, ``nvmlClocksEventReasonGpuIdle``)."""


class _Slow(msgspec.Struct, frozen=True):
    """A generation that was too low under load."""

    generation: int
    possible: int
    since: float
    at: float
    looks: int

    @property
    def lasting(self) -> bool:
        return self.looks >= _FEWEST and self.at - self.since >= LASTING


class PCIeLink:
    """See the module."""

    name = Check.PCIE_LINK
    needs = Witness.NVML

    def __init__(self) -> None:
        self._width = LastKnown(lambda gpu: _link(gpu).width, patience=PATIENCE)
        self._width_max = LastKnown(lambda gpu: _link(gpu).width_max, patience=PATIENCE)
        self._slow: dict[str, _Slow] = {}

    def observe(self, sample: Sample) -> None:
        """Remember widths, and since when links are slow under load."""
        if sample.fault is not None:
            return
        self._width.observe(sample)
        self._width_max.observe(sample)
        followed = ((gpu.uuid, _follow(self._slow.get(gpu.uuid), gpu, sample.taken_at)) for gpu in sample.gpus)
        self._slow = {uuid: slow for uuid, slow in followed if slow is not None}

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs whose link is narrower or slower than it could be."""
        limits = view.thresholds.pcie_link
        for gpu in view.sample.gpus:
            width, possible = self._width.get(gpu), self._width_max.get(gpu)
            lanes = min(possible or 0, limits.lowest_width or possible or 0)
            if width and width < lanes:
                yield _narrow(gpu, width, lanes)
            slow = self._slow.get(gpu.uuid)
            if slow is None or not slow.lasting:
                continue
            wanted = min(slow.possible, limits.lowest_generation or slow.possible)
            if slow.generation < wanted:
                yield _slowed(gpu, slow.generation, wanted)


def _link(gpu: GPUSample) -> PCIeSample:
    return gpu.pcie or PCIeSample()


def _follow(before: _Slow | None, gpu: GPUSample, at: float) -> _Slow | None:
    link = _link(gpu)
    if not link.generation or not link.generation_max or not _loaded(gpu):
        # A link is still slow at the moment in which its GPU wakes: short jobs must not add up to a finding.
        return before if before is not None and (before.lasting or gpu.incomplete) else None
    if link.generation >= link.generation_max:
        return None
    since, looks = (before.since, before.looks) if before is not None else (at, 0)
    return _Slow(link.generation, link.generation_max, min(since, at), at, looks + 1)


def _loaded(gpu: GPUSample) -> bool:
    busy = gpu.utilization_percent is None or gpu.utilization_percent >= BUSY
    return gpu.performance_state == 0 and busy and not (gpu.clock_event_reasons or 0) & _IDLE


def _narrow(gpu: GPUSample, width: int, lanes: int) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.PCIE_LINK,
        reason="LinkWidthReduced",
        severity=Severity.WARNING,
        blame=Blame.HARDWARE,
        action=Action.RESEAT_OR_CHECK_LINK,
        message=f"{say(subject)}: its PCIe link runs on {width} of {lanes} lanes. Reseat the GPU, or check riser and "
        "slot; a slot that is made for fewer lanes is told by pcieLink.lowestWidth.",
        subject=subject,
        evidence=(evidence("pcieWidth", width, threshold=lanes, unit="lanes"),),
    )


def _slowed(gpu: GPUSample, generation: int, wanted: int) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.PCIE_LINK,
        reason="LinkGenerationReduced",
        severity=Severity.WARNING,
        blame=Blame.HARDWARE,
        action=Action.RESEAT_OR_CHECK_LINK,
        message=f"{say(subject)}: its PCIe link runs at generation {generation} under load, generation {wanted} is "
        "possible. Reseat the GPU, or check riser, slot and BIOS setting.",
        subject=subject,
        evidence=(evidence("pcieGeneration", generation, threshold=wanted),),
    )
