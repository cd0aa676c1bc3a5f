"""Bodies of the publisher's writes.

Statuses go as merge patches without a precondition on the resource version: status has one writer, lists are
replaced whole (conditions are computed from the stored ones), and people who edit spec meanwhile must not make a
write fail. A uid sent along would be no precondition: the API server ignores metadata in a status patch (measured on
1.36). Whoever must know looks at the uid of the answer.
"""

from collections.abc import Mapping
from typing import Any

from gpudiag_api.kinds.base import Model
from gpudiag_operator.publish.stored import is_node


def status_patch(status: Model) -> dict[str, Any]:
    """The merge patch that makes the stored status this one: null removes what has no value any more."""
    return {"status": _with_nulls(status.model_dump(mode="json", by_alias=True))}


def _with_nulls(value: Mapping[str, Any]) -> dict[str, Any]:
    """Null where an object lacks a field: a merge patch reads it as removal. Lists hold whole objects: no nulls."""
    return {key: _with_nulls(item) if isinstance(item, dict) else _without_nulls(item) for key, item in value.items()}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def gpunode(name: str, *, node_uid: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """A new GPUNode, owned by its Node where that is known."""
    metadata: dict[str, Any] = {"name": name, "labels": dict(labels)}
    if node_uid:
        metadata["ownerReferences"] = [owner(name, node_uid)]
    return {"apiVersion": "gpudiag.dev/v1alpha1", "kind": "GPUNode", "metadata": metadata}


def owner(name: str, node_uid: str) -> dict[str, Any]:
    """The reference to the Node: enough for garbage collection, and no Node's deletion waits for it.

    Not a controller reference: the Node manages nothing of the GPUNode, and people's own objects may have another.
    """
    return {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid, "blockOwnerDeletion": False}


def metadata_patch(
    body: Mapping[str, Any], *, node_uid: str, labels: Mapping[str, str], mirror: frozenset[str]
) -> dict[str, Any]:
    """The merge patch that gives a stored GPUNode its owner and labels; what others set stays.

    Args:
        body: the object as just read: a merge patch replaces the list of owners whole.
        node_uid: of the Node; empty: unknown, owners stay.
        labels: the mirrored labels that it should have.
        mirror: keys of all mirrored labels; those that the Node lacks are removed.
    """
    metadata = body["metadata"]
    stored = metadata.get("labels") or {}
    patch: dict[str, Any] = {"labels": {key: labels.get(key) for key in mirror if stored.get(key) != labels.get(key)}}
    if node_uid:
        others = [one for one in metadata.get("ownerReferences") or () if not is_node(one)]
        patch["ownerReferences"] = [*others, owner(metadata["name"], node_uid)]
    return {"metadata": patch}
