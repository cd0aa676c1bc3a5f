"""What the publisher keeps of each GPUNode that exists: enough to tell whether a write is needed. A few KB each."""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from pydantic import ValidationError

from gpudiag_api.kinds import GPUNodeStatus
from gpudiag_api.kinds.base import Condition
from gpudiag_operator.domain import NodeState
from gpudiag_operator.publish.meaning import Meaning, meaning
from gpudiag_operator.publish.recall import recall

COLLECTION = "/apis/gpudiag.dev/v1alpha1/gpunodes"


def path_of(name: str) -> str:
    """Path of the GPUNode of a node."""
    return f"{COLLECTION}/{name}"


class Stored(msgspec.Struct, kw_only=True):
    """One GPUNode as last seen or written."""

    uid: str
    resource_version: str = ""
    generation: int = 1
    observed_generation: int | None = None
    owner_uid: str = ""
    """Of the Node that owns it; empty: none does."""
    labels: Mapping[str, str] = {}
    """The mirrored ones only."""
    meaning: Meaning | None = None
    """Of its status; None: it has none."""
    transitions: tuple[tuple[str, str, str], ...] = ()
    """Type, status and lastTransitionTime of each condition."""
    written_at: float = float("-inf")
    """Monotonic seconds of the last write by this process."""

    @property
    def ours(self) -> bool:
        """Whether this process wrote it last, as far as it knows."""
        return self.written_at != float("-inf")

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The stored conditions, as far as the next ones depend on them."""
        return tuple(
            Condition(type=kind, status=status, reason="", last_transition_time=since)
            for kind, status, since in self.transitions
        )


def read(
    body: Mapping[str, Any], *, mirror: Collection[str], critical_xids: Collection[int]
) -> tuple[Stored, NodeState | None]:
    """Take what matters from a GPUNode, and the state its status was made from (None: it has no status).

    Raises:
        KeyError: not a Kubernetes object.
    """
    metadata = body["metadata"]
    owners = metadata.get("ownerReferences") or ()
    stored = Stored(
        uid=metadata["uid"],
        resource_version=str(metadata.get("resourceVersion", "")),
        generation=int(metadata.get("generation", 1)),
        owner_uid=next((one["uid"] for one in owners if is_node(one)), ""),
        labels={key: value for key, value in (metadata.get("labels") or {}).items() if key in mirror},
    )
    status = _status(body.get("status"))
    if status is None:
        return stored, None
    state = recall(metadata["name"], status)
    stored.observed_generation = status.observed_generation
    stored.meaning = meaning(state, critical_xids=critical_xids)
    stored.transitions = transitions(status)
    return stored, state


def transitions(status: GPUNodeStatus) -> tuple[tuple[str, str, str], ...]:
    """Type, status and time of each condition."""
    return tuple((one.type, one.status, one.last_transition_time) for one in status.conditions)


def is_node(owner: Mapping[str, Any]) -> bool:
    """Whether an ownerReference names a Node."""
    return owner.get("kind") == "Node" and owner.get("apiVersion") == "v1"


def _status(body: Mapping[str, Any] | None) -> GPUNodeStatus | None:
    """The stored status; one that was never written, or that this version cannot read, is none."""
    if not body or not body.get("conditions"):
        return None
    try:
        return GPUNodeStatus.model_validate(body)
    except ValidationError:
        return None
