"""What of a node's state fits into a GPUNode.

Meaning is computed from the same choice, so nothing that is not stored can look new after a restart.
"""

import msgspec

from gpudiag_api.vocabulary import Blame
from gpudiag_api.wire import Allocation, Finding, XIDEvent
from gpudiag_operator.domain import NodeState

FINDINGS = 64
XIDS = 20
ALLOCATIONS = 128


def fitted(state: NodeState) -> NodeState:
    """The state without what a GPUNode has no room for.

    Assessment needs only what GPUNode.status holds (design, section 6): one process and an aggregator that reads
    GPUNodes judge the same.
    """
    kept = findings(state), xids(state), allocations(state)
    if kept == (state.findings, state.xids, state.allocations):
        return state
    return msgspec.structs.replace(
        state,
        findings=kept[0],
        findings_truncated=state.findings_truncated or len(state.findings) > FINDINGS,
        xids=kept[1],
        allocations=kept[2],
    )


def findings(state: NodeState) -> tuple[Finding, ...]:
    """The worst findings."""
    return state.findings[:FINDINGS]


def xids(state: NodeState) -> tuple[XIDEvent, ...]:
    """XIDs, newest first. An application's never push out the hardware's."""
    if len(state.xids) <= XIDS:
        return state.xids
    serious = [event for event in state.xids if event.blame is not Blame.APPLICATION][:XIDS]
    rest = [event for event in state.xids if event.blame is Blame.APPLICATION][: XIDS - len(serious)]
    chosen = {event.id for event in (*serious, *rest)}
    return tuple(event for event in state.xids if event.id in chosen)


def allocations(state: NodeState) -> tuple[Allocation, ...]:
    """Allocations in a fixed order."""
    if len(state.allocations) < 2:
        return state.allocations
    return tuple(sorted(state.allocations, key=lambda held: (held.gpu_uuid, held.namespace, held.pod, held.container)))[
        :ALLOCATIONS
    ]
