"""One Pod's view of a node: the GPUs that it holds and what concerns them. Pure.

The operator has no right to read Pods (it would be one for all namespaces); what the kubelet handed out, which agents
tell, is enough to know where a Pod's GPUs are.
"""

import msgspec

from gpudiag_api.vocabulary import Health
from gpudiag_api.wire import GPU, Subject
from gpudiag_operator.assess.node import judged
from gpudiag_operator.domain import NodeState


def holds(state: NodeState, namespace: str, pod: str) -> bool:
    """Whether the Pod holds a GPU of the node."""
    return any(held.namespace == namespace and held.pod == pod for held in state.allocations)


def narrowed(state: NodeState, namespace: str, pod: str) -> NodeState:
    """The node as the Pod has it: its GPUs, their findings and XIDs, and what is wrong with the node as a whole."""
    mine = tuple(held for held in state.allocations if held.namespace == namespace and held.pod == pod)
    uuids = {held.gpu_uuid for held in mine}
    gpus = tuple(gpu for gpu in state.gpus if gpu.uuid in uuids or any(one.uuid in uuids for one in gpu.mig))
    kept = msgspec.structs.replace(
        state,
        gpus=gpus,
        findings=tuple(finding for finding in state.findings if _concerns(finding.subject, gpus)),
        xids=tuple(event for event in state.xids if _concerns(event.subject, gpus)),
        allocations=mine,
    )
    if state.failure is not None:
        return kept
    # What the node says of itself may be about the others' GPUs.
    return judged(msgspec.structs.replace(kept, health=Health.HEALTHY))


def _concerns(subject: Subject, gpus: tuple[GPU, ...]) -> bool:
    if subject.gpu_uuid is None and subject.pci is None:
        return True
    return any(subject.gpu_uuid == gpu.uuid or (bool(gpu.pci) and subject.pci == gpu.pci) for gpu in gpus)
