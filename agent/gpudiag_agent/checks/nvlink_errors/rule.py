"""NVLink errors, by rate. What the counters hold from before is never judged (EKS node agent #261: false fatals).

| what, per link | finding | cleared by |
|---|---|---|
| up to NVLink 4: more than ``nvlinkErrors.recoveriesPerHour`` (1) | RecoveryErrors, Warning | an hour without |
| more than ``replaysPerHour`` (100) | ReplayErrors, Warning | no such hour for two hours |
| more than ``crcPerSecond`` (100, as DCGM has it) over a minute | CRCErrors, Warning | no such minute for 15 minutes |
| NVLink 5: more than ``faultsPerHour`` (0) | LinkFaults, Warning | an hour without |
| more than ``effectiveErrorsPerHour`` (100) | SignalErrors, Warning | no such hour for two hours |

Faults are recoveries that failed, malformed packets, overruns and broken link integrity; effective errors are those
that correction left. A reboot or a driver reload clears them all. Symbol errors and recoveries that succeed are how a
fast link works, errors that the other side received are the other side's. One finding per GPU and reason names the
worst link.
"""

from collections.abc import Iterable, Iterator

import msgspec

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.counters import HOUR, MINUTE, Counters
from gpudiag_agent.checks.memory import LastKnown
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_agent.thresholds import NVLinkErrorLimits
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

_FAULTS = ("recovery_failed", "malformed", "buffer_overrun", "link_integrity")
_FOLLOWED = ("recovery", "replay", "crc_flit", "crc_data", *_FAULTS, "effective")
_CALM = 15 * MINUTE
_MAX_LINKS = 18
"""Links of one GPU that are followed: as many as an NVLink 5 GPU has."""


class _Rule(msgspec.Struct, frozen=True):
    reason: str
    names: tuple[str, ...]
    window: float
    within: float
    limit: str
    factor: int
    unit: str
    words: str


_RULES = (
    _Rule("RecoveryErrors", ("recovery",), HOUR, HOUR, "recoveries_per_hour", 1, "1/h", "recovered from errors"),
    _Rule("ReplayErrors", ("replay",), HOUR, 2 * HOUR, "replays_per_hour", 1, "1/h", "sent packets again"),
    _Rule("CRCErrors", ("crc_flit", "crc_data"), MINUTE, _CALM, "crc_per_second", 60, "1/min", "had checksum errors"),
    _Rule("LinkFaults", _FAULTS, HOUR, HOUR, "faults_per_hour", 1, "1/h", "had faults that it cannot mend"),
    _Rule(
        "SignalErrors", ("effective",), HOUR, 2 * HOUR, "effective_errors_per_hour", 1, "1/h",
        "had errors that correction left",
    ),
)  # fmt: skip


class NVLinkErrors:
    """See the module.

    Args:
        counters: shared by all checks.
    """

    name = Check.NVLINK_ERRORS
    needs = Witness.NVML

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._links = LastKnown(lambda gpu: gpu.nvlinks)

    def observe(self, sample: Sample) -> None:
        """Follow the counters."""
        self._links.observe(sample)
        for gpu in sample.gpus:
            for link in (gpu.nvlinks or ())[:_MAX_LINKS]:
                values: dict[str, int | None] = {
                    _key(link.link, name): link.errors[name] for name in _FOLLOWED if name in link.errors
                }
                if values:
                    self._counters.observe(gpu.uuid, values, sample.taken_at)

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs whose links make errors now."""
        for gpu in view.sample.gpus:
            for rule in _RULES if self._links.get(gpu) else ():
                yield from self._judge(gpu, rule, view.thresholds.nvlink_errors)

    def _judge(self, gpu: GPUSample, rule: _Rule, limits: NVLinkErrorLimits) -> Iterator[Problem]:
        limit = getattr(limits, rule.limit) * rule.factor
        found = {link.link: self._grown(gpu, link.link, rule) for link in (self._links.get(gpu) or ())[:_MAX_LINKS]}
        bad = {link: count for link, count in found.items() if count > limit}
        if bad:
            worst = max(bad, key=lambda link: bad[link])
            yield _problem(gpu, rule, worst, bad[worst], limit, others=len(bad) - 1)

    def _grown(self, gpu: GPUSample, link: int, rule: _Rule) -> int:
        return sum(
            self._counters.worst(gpu.uuid, _key(link, name), rule.window, within_seconds=rule.within) or 0
            for name in rule.names
        )


def _key(link: int, name: str) -> str:
    return f"nvlink.{link}.{name}"


def _problem(gpu: GPUSample, rule: _Rule, link: int, count: int, limit: int, *, others: int) -> Problem:
    subject = subject_of(gpu)
    more = f", and {others} more of its links" if others else ""
    span = "a minute" if rule.window == MINUTE else "an hour"
    return Problem(
        check=Check.NVLINK_ERRORS,
        reason=rule.reason,
        severity=Severity.WARNING,
        blame=Blame.HARDWARE,
        action=Action.RESEAT_OR_CHECK_LINK,
        message=f"{say(subject)}: NVLink {link} {rule.words} {count} times within {span}{more}.",
        subject=subject,
        evidence=(evidence("link", link), evidence("errors", count, threshold=limit, unit=rule.unit)),
    )
