"""Weighing findings: which GPU each is about, which is the worst, how many GPUs are in which state."""

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gpudiag_api.vocabulary import Health, Severity
from gpudiag_api.wire import GPU, Finding, Subject

NODE = -1
"""In place of a GPU's position: the finding is about the node, or about a GPU that the inventory lacks."""

_XID_REASON = re.compile(r"XID([0-9]{1,5})")


class Counts(msgspec.Struct, frozen=True, gc=False):
    """GPUs of one node by health. GPUs that fell off the bus count: the node should have them."""

    total: int = 0
    healthy: int = 0
    degraded: int = 0
    unhealthy: int = 0
    unknown: int = 0


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings without duplicates of meaning: heaviest, then most disruptive, then by place and name."""
    unique: dict[tuple[str, str, str, str], Finding] = {}
    for finding in findings:
        unique.setdefault(finding.key, finding)
    if len(unique) < 2:
        return tuple(unique.values())
    return tuple(sorted(unique.values(), key=_order))


def _order(finding: Finding) -> tuple[int, int, int, str, str, str]:
    index = finding.subject.gpu_index
    check, reason, where, _ = finding.key
    return (
        -finding.severity.badness,
        -finding.action.disruption,
        NODE if index is None else index,
        check,
        reason,
        where,
    )


class Places(msgspec.Struct, frozen=True):
    """Finds the GPU that a subject names, by its position in the inventory."""

    by_id: Mapping[str, int]
    by_index: Mapping[int, int]

    @classmethod
    def of(cls, gpus: Sequence[GPU]) -> "Places":
        """Places of these GPUs."""
        by_id: dict[str, int] = {}
        for at, gpu in enumerate(gpus):
            by_id[gpu.uuid] = at
            by_id[gpu.pci] = at
        by_id.pop("", None)
        return cls(by_id, {gpu.index: at for at, gpu in enumerate(gpus)})

    def find(self, subject: Subject) -> int:
        """Position of the GPU, or ``NODE``. An identity that is not there wins over an index that was given anew."""
        named = [name for name in (subject.gpu_uuid, subject.pci) if name]
        for name in named:
            at = self.by_id.get(name)
            if at is not None:
                return at
        if named or subject.gpu_index is None:
            return NODE
        return self.by_index.get(subject.gpu_index, NODE)


def by_gpu(gpus: Sequence[GPU], findings: Iterable[Finding]) -> dict[int, list[Finding]]:
    """Findings by position of their GPU, those of the node under ``NODE``; only positions that have any."""
    found: dict[int, list[Finding]] = {}
    places: Places | None = None
    for finding in findings:
        places = places or Places.of(gpus)
        found.setdefault(places.find(finding.subject), []).append(finding)
    return found


def critical_beyond(gpus: Sequence[GPU], findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Critical findings that fit no GPU of the inventory: about the node, or about a GPU that it lost."""
    critical = Severity.CRITICAL
    known = {gpu.uuid for gpu in gpus}
    places: Places | None = None
    found = []
    for finding in findings:
        if finding.severity is critical and finding.subject.gpu_uuid not in known:
            places = places or Places.of(gpus)
            if places.find(finding.subject) == NODE:
                found.append(finding)
    return tuple(found)


def health_from(findings: Iterable[Finding], floor: Health = Health.HEALTHY) -> Health:
    """The worst of ``floor`` and what the findings make of their GPU."""
    worst = floor
    for finding in findings:
        made = finding.severity.health
        if made.badness > worst.badness:
            worst = made
    return worst


def count(healths: Iterable[Health], of_node: Iterable[Finding] = ()) -> Counts:
    """Count GPUs.

    Args:
        healths: of the GPUs in the inventory.
        of_node: findings that fit no GPU of the inventory. A Critical one that names a GPU is about a lost GPU.
    """
    numbers = dict.fromkeys(Health, 0)
    for health in healths:
        numbers[health] += 1
    lost = {
        finding.subject.pci or finding.subject.gpu_uuid for finding in of_node if finding.severity is Severity.CRITICAL
    }
    lost.discard(None)
    return Counts(
        total=sum(numbers.values()) + len(lost),
        healthy=numbers[Health.HEALTHY],
        degraded=numbers[Health.DEGRADED],
        unhealthy=numbers[Health.UNHEALTHY] + len(lost),
        unknown=numbers[Health.UNKNOWN],
    )


def xid_code(finding: Finding) -> int | None:
    """The XID code that a finding of the check XID is about; None when it is about none."""
    if finding.check != "XID":
        return None
    for item in finding.evidence:
        if item.name == "xid" and item.value.isdecimal():
            return int(item.value)
    match = _XID_REASON.fullmatch(finding.reason)
    return int(match[1]) if match else None
