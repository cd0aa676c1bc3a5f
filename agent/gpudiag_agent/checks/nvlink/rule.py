"""State of NVLinks, against what they were and against the GPU's neighbours.

| what | finding | cleared by |
|---|---|---|
| a link to an NVSwitch that was up is down for 20 s and two looks | LinkDown, Critical | it is up; reboot |
| the same of a link to a GPU or CPU (bridge, direct link) | LinkDown, Warning | it is up; reboot |
| fewer links to switches up than on most GPUs of that model, for 5 minutes | FewerLinks, Critical | as many as they |
| no link up on a node with NVSwitches or a fabric, and several GPUs, for 5 minutes | NoActiveLinks, Warning | one is |

A link that was never up is no finding by itself: PCIe boards have connectors without a bridge (NVSentinel #1481), and a
node that is starting brings links up one after the other, hence the 5 minutes. MIG takes a GPU's links down: it is
not judged, and its baseline is forgotten. A single GPU needs no link. Links that cannot be read are as they were.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.memory import LastKnown
from gpudiag_agent.checks.nvlink.baseline import LinkBaseline
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

_DOWN_SECONDS = 20.0
_SETTLED_SECONDS = 300.0
_SHOWN = 8


class NVLink:
    """See the module.

    Args:
        baseline: links that have been up.
    """

    name = Check.NVLINK
    needs = Witness.NVML | Witness.PCI_BUS

    def __init__(self, baseline: LinkBaseline) -> None:
        self._baseline = baseline
        self._links = LastKnown(lambda gpu: gpu.nvlinks)
        self._down: dict[tuple[str, int], tuple[float, int]] = {}
        """(GPU, link) → when it was first seen down, and in how many looks."""
        self._fewer: dict[str, float] = {}
        """GPU → since when it has fewer links up than its neighbours, or none."""
        self._kinds: dict[tuple[str, int], str] = {}

    def observe(self, sample: Sample) -> None:
        """Remember which links are up, and since when others are not."""
        if sample.fault is not None:
            return
        present = {gpu.uuid for gpu in sample.gpus}
        self._down = {key: seen for key, seen in self._down.items() if key[0] in present}
        self._fewer = {uuid: since for uuid, since in self._fewer.items() if uuid in present}
        self._kinds = {key: kind for key, kind in self._kinds.items() if key[0] in present}
        for gpu in sample.gpus:
            if gpu.mig_current:
                self._baseline.forget(gpu.uuid)
            elif gpu.nvlinks is not None:
                self._follow(gpu, sample.taken_at)
        self._links.observe(sample)
        gpus = tuple(self._held(gpu) for gpu in sample.gpus)
        lacking = {gpu.uuid for gpu in gpus if _lacks(gpu, gpus)}
        self._fewer = {uuid: self._fewer.get(uuid, sample.taken_at) for uuid in lacking}

    def _follow(self, gpu: GPUSample, at: float) -> None:
        for link in gpu.nvlinks or ():
            key = (gpu.uuid, link.link)
            if link.remote_kind:
                self._kinds[key] = link.remote_kind
            if link.active:
                self._down.pop(key, None)
            elif link.active is False:
                since, looks = self._down.get(key, (at, 0))
                self._down[key] = (since, looks + 1)
        self._baseline.seen(gpu.uuid, {link.link for link in gpu.nvlinks or () if link.active})

    def _held(self, gpu: GPUSample) -> GPUSample:
        """The GPU, with its links as last read where they cannot be read."""
        return gpu if gpu.nvlinks is not None else msgspec.structs.replace(gpu, nvlinks=self._links.get(gpu))

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs with links that should be up."""
        gpus = tuple(self._held(gpu) for gpu in view.sample.gpus)
        for gpu in gpus:
            if gpu.nvlinks is None:
                continue
            down = self._lost(gpu, view.now)
            if down:
                yield self._link_down(gpu, down)
            elif view.now - self._fewer.get(gpu.uuid, view.now) >= _SETTLED_SECONDS:
                usual = _usual(gpu, gpus) or 0
                if _up(gpu) < usual:
                    yield _fewer_links(gpu, usual)
                elif _up(gpu) == 0 and (view.host.nvswitches or _in_a_fabric(gpu)):
                    yield _no_links(gpu)

    def _lost(self, gpu: GPUSample, now: float) -> list[int]:
        known = self._baseline.of(gpu.uuid)
        found = []
        for link in gpu.nvlinks or ():
            since, looks = self._down.get((gpu.uuid, link.link), (now, 0))
            if link.link in known and link.active is False and looks > 1 and now - since >= _DOWN_SECONDS:
                found.append(link.link)
        return found

    def _link_down(self, gpu: GPUSample, down: list[int]) -> Problem:
        subject = subject_of(gpu)
        names = ", ".join(map(str, down[:_SHOWN])) + (" …" if len(down) > _SHOWN else "")
        switched = any(self._kinds.get((gpu.uuid, link)) == "switch" for link in down)
        what = f"NVLink {names} is" if len(down) == 1 else f"NVLinks {names} are"
        return Problem(
            check=Check.NVLINK,
            reason="LinkDown",
            severity=Severity.CRITICAL if switched else Severity.WARNING,
            blame=Blame.HARDWARE,
            action=Action.DRAIN_AND_RESET_GPU if switched else Action.RESEAT_OR_CHECK_LINK,
            message=f"{say(subject)}: {what} down and had been up. Jobs over several GPUs fail or crawl.",
            subject=subject,
            evidence=(
                evidence("linksDown", names),
                evidence("linksActive", _up(gpu), threshold=len(self._baseline.of(gpu.uuid)), unit="links"),
            ),
        )


def _up(gpu: GPUSample) -> int:
    return sum(1 for link in gpu.nvlinks or () if link.active)


def _usual(gpu: GPUSample, gpus: Iterable[GPUSample]) -> int | None:
    """How many links are up on most GPUs of its model that hang on switches; None: there is no majority."""
    counts = Counter(
        _up(other)
        for other in gpus
        if other.model == gpu.model and not other.mig_current and other.nvlinks and _switched(other)
    )
    number, times = next(iter(counts.most_common(1)), (0, 0))
    return number if times * 2 > counts.total() else None


def _switched(gpu: GPUSample) -> bool:
    kinds = {link.remote_kind for link in gpu.nvlinks or () if link.active}
    return kinds <= {"switch"} and (bool(kinds) or _up(gpu) == 0)


def _in_a_fabric(gpu: GPUSample) -> bool:
    """B200 and later show no NVSwitch on the PCI bus; their GPUs say that they belong to a fabric."""
    return bool(gpu.fabric and gpu.fabric.state) and "PCIe" not in gpu.model


def _lacks(gpu: GPUSample, gpus: tuple[GPUSample, ...]) -> bool:
    if gpu.nvlinks is None or gpu.mig_current or len(gpus) < 2:
        return False
    if _up(gpu) == 0:
        return True
    usual = _usual(gpu, gpus)
    return usual is not None and _switched(gpu) and _up(gpu) < usual


def _fewer_links(gpu: GPUSample, usual: int) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.NVLINK,
        reason="FewerLinks",
        severity=Severity.CRITICAL,
        blame=Blame.HARDWARE,
        action=Action.DRAIN_AND_RESET_GPU,
        message=f"{say(subject)}: {_up(gpu)} NVLinks are up, {usual} are on most GPUs of this node.",
        subject=subject,
        evidence=(evidence("linksActive", _up(gpu), threshold=usual, unit="links"),),
    )


def _no_links(gpu: GPUSample) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.NVLINK,
        reason="NoActiveLinks",
        severity=Severity.WARNING,
        blame=Blame.DRIVER,
        action=Action.RESTART_FABRIC_MANAGER,
        message=f"{say(subject)}: no NVLink is up, on a node with an NVSwitch fabric. Is the Fabric Manager running?",
        subject=subject,
        evidence=(evidence("linksActive", 0, threshold=len(gpu.nvlinks or ()), unit="links"),),
    )
