"""Chip-to-chip links between the GPU and the CPU of a Grace superchip (fields 170 to 172, 231 to 233).

| what | finding | cleared by |
|---|---|---|
| a link is down for 20 s and two looks, of a GPU of which one was up | LinkInactive, Critical | it is up |
| more than ``c2c.interruptsPerHour`` (0) error interrupts of a link | LinkErrors, Warning | an hour without |

A GPU of which no link was ever up is not judged: what the driver shows then is not a link. Replays are how the link
mends itself. XIDs 121 and 173 tell of the same errors in the driver's words.
"""

from collections.abc import Iterable

import msgspec

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.counters import HOUR, Counters
from gpudiag_agent.checks.memory import LastKnown
from gpudiag_agent.sample import C2CLinkSample, GPUSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

_DOWN_SECONDS = 20.0


class C2C:
    """See the module.

    Args:
        counters: shared by all checks.
    """

    name = Check.C2C
    needs = Witness.NVML

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._links = LastKnown(lambda gpu: gpu.c2c)
        self._up: set[str] = set()
        self._down: dict[tuple[str, int], tuple[float, int]] = {}

    def observe(self, sample: Sample) -> None:
        """Follow states and counters."""
        if sample.fault is not None:
            return
        self._links.observe(sample)
        present = {gpu.uuid for gpu in sample.gpus}
        self._up &= present
        self._down = {key: seen for key, seen in self._down.items() if key[0] in present}
        for gpu in sample.gpus:
            for link in gpu.c2c or ():
                self._follow(gpu.uuid, link, sample.taken_at)

    def _follow(self, uuid: str, link: C2CLinkSample, at: float) -> None:
        if link.active:
            self._up.add(uuid)
            self._down.pop((uuid, link.link), None)
        elif link.active is False:
            since, looks = self._down.get((uuid, link.link), (at, 0))
            self._down[uuid, link.link] = (since, looks + 1)
        self._counters.observe(uuid, {_key(link.link): link.errors.get("interrupt")}, at)

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs whose way to their CPU is broken or breaking."""
        for gpu in view.sample.gpus:
            for link in self._links.get(gpu) or ():
                since, looks = self._down.get((gpu.uuid, link.link), (view.now, 0))
                settled = looks > 1 and view.now - since >= _DOWN_SECONDS
                # One that cannot be read is as it was.
                down = link.active is False or (link.active is None and gpu.incomplete)
                if down and gpu.uuid in self._up and settled:
                    yield _inactive(gpu, link)
                errors = self._counters.increase(gpu.uuid, _key(link.link), HOUR) or 0
                if errors > view.thresholds.c2c.interrupts_per_hour:
                    yield _errors(gpu, link, errors, view.thresholds.c2c.interrupts_per_hour)


def _key(link: int) -> str:
    return f"c2c.{link}.interrupt"


def _inactive(gpu: GPUSample, link: C2CLinkSample) -> Problem:
    subject = msgspec.structs.replace(subject_of(gpu), link=f"c2c {link.link}")
    return Problem(
        check=Check.C2C,
        reason="LinkInactive",
        severity=Severity.CRITICAL,
        blame=Blame.HARDWARE,
        action=Action.RUN_DIAGNOSTICS,
        message=f"{say(subject)}: chip-to-chip link {link.link} to the CPU is down.",
        subject=subject,
        evidence=(evidence("active", 0, threshold=1),),
    )


def _errors(gpu: GPUSample, link: C2CLinkSample, errors: int, limit: int) -> Problem:
    subject = msgspec.structs.replace(subject_of(gpu), link=f"c2c {link.link}")
    return Problem(
        check=Check.C2C,
        reason="LinkErrors",
        severity=Severity.WARNING,
        blame=Blame.HARDWARE,
        action=Action.RUN_DIAGNOSTICS,
        message=f"{say(subject)}: chip-to-chip link {link.link} had {errors} error interrupts within an hour.",
        subject=subject,
        evidence=(evidence("errors", errors, threshold=limit, unit="1/h"),),
    )
