"""What a node's state means, and what a change of it is worth (design, section 4.2).

Computed for each reading and compared with what is stored: only a change of meaning causes a write. Counts, times,
measured values and the agent's Pod are no meaning; they ride along with the next write.
"""

from collections.abc import Collection
from enum import IntEnum

import msgspec

from gpudiag_api.vocabulary import Blame, Health, Severity
from gpudiag_api.wire import XIDEvent
from gpudiag_operator.domain import NodeState
from gpudiag_operator.publish import limits

FindingKey = tuple[str, str, str, str]
"""Check, reason, place, severity."""

REACHABLE = "Reachable"


class Change(IntEnum):
    """What a change is worth, least first."""

    NONE = 0
    LIGHT = 1
    """Allocations, an application's XID: can wait."""
    FULL = 2
    WORSE = 3
    """Health worsens: waits for nothing but the rate limit."""


class Meaning(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a state whose change is worth a write. Hashable."""

    health: str
    reachability: str
    """``Reachable``, or why the node is not read."""
    breaker: str
    inventory: tuple[object, ...]
    capabilities: frozenset[str]
    findings: frozenset[FindingKey]
    xids: frozenset[str]
    """Ids of XIDs that are not the application's, and of those a diagnostic calls critical."""
    application_xids: frozenset[tuple[int, str, str]]
    """Code, GPU, Pod of an application's XIDs: repeats mean nothing new."""
    allocations: frozenset[tuple[str, str, str, str]]


def meaning(state: NodeState, *, critical_xids: Collection[int] = ()) -> Meaning:
    """What a state means.

    Args:
        state: of one node.
        critical_xids: codes that any GPUDiagnostic names in ``policy.xids.critical``: always meaning.
    """
    events = limits.xids(state)
    serious = {event.id for event in events if event.blame is not Blame.APPLICATION or event.code in critical_xids}
    return Meaning(
        health=str(state.health),
        reachability=REACHABLE if state.failure is None else str(state.failure.reason),
        breaker=str(state.breaker.state),
        inventory=_inventory(state),
        capabilities=frozenset(str(gap.reason) for gap in state.capabilities),
        findings=frozenset(finding.key for finding in limits.findings(state)),
        xids=frozenset(serious),
        application_xids=frozenset(_application_xid(event) for event in events if event.id not in serious),
        allocations=frozenset(
            (held.gpu_uuid, held.namespace, held.pod, held.container) for held in limits.allocations(state)
        ),
    )


def change(old: Meaning | None, new: Meaning) -> Change:
    """What the step from one meaning to the other is worth; ``old`` None: nothing is stored yet."""
    if old is None or worsened(old, new):
        return Change.WORSE
    if (
        old.health != new.health
        or old.reachability != new.reachability
        or old.breaker != new.breaker
        or old.findings != new.findings
        or old.capabilities != new.capabilities
        or old.inventory != new.inventory
        or new.xids - old.xids
    ):
        return Change.FULL
    if old.allocations != new.allocations or new.application_xids - old.application_xids:
        return Change.LIGHT
    return Change.NONE


def worsened(old: Meaning, new: Meaning) -> bool:
    """Whether health got worse: the node's, or by a Critical finding that was not there."""
    if _BADNESS.get(new.health, 0) > _BADNESS.get(old.health, 0):
        return True
    return any(key[3] == Severity.CRITICAL for key in new.findings - old.findings)


def badness(of: Meaning) -> int:
    """0 (Healthy) to 3 (Unhealthy)."""
    return _BADNESS.get(of.health, 0)


_BADNESS = {str(health): health.badness for health in Health}


def _inventory(state: NodeState) -> tuple[object, ...]:
    driver = state.driver
    gpus = tuple(
        (
            gpu.index,
            gpu.uuid,
            gpu.pci,
            gpu.model,
            gpu.serial,
            gpu.memory_bytes,
            gpu.mig_enabled,
            tuple(one.uuid for one in gpu.mig),
            str(gpu.health),
        )
        for gpu in state.gpus
    )
    return (driver.version, driver.cuda_version, gpus)


def _application_xid(event: XIDEvent) -> tuple[int, str, str]:
    where = event.subject.gpu_uuid or event.subject.pci or ""
    pod = f"{event.pod_namespace or ''}/{event.pod_name}" if event.pod_name else ""
    return (event.code, where, pod)
