"""Kubernetes Events that survive crashes: neither lost nor doubled.

An Event's name is a hash of what it is about, and it is created before the status that records the change. A
process that dies between the two finds the old status at its next start, decides the same again, and meets its own
Event under the same name: then the count is patched. No name depends on the operator's clock.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec

from gpudiag_api.times import to_rfc3339
from gpudiag_operator.conditions import clip
from gpudiag_operator.kube.errors import ApiError

COMPONENT = "gpudiag-operator"
_MESSAGE_LIMIT = 1024
_PREFIX_LIMIT = 200
_CLUSTER_NAMESPACE = "default"
"""Where the API server wants Events about cluster-scoped objects."""


class Writer(Protocol):
    """The part of ``kube.api.KubeAPI`` that publishing needs. Raises ApiError and ApiUnavailable."""

    async def get(self, path: str) -> dict[str, Any]:
        """Read one object."""
        ...

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST to a collection."""
        ...

    async def patch(self, path: str, body: Mapping[str, Any], *, resource_version: str | None = None) -> dict[str, Any]:
        """Merge-patch an object."""
        ...

    async def patch_status(
        self, path: str, body: Mapping[str, Any], *, resource_version: str | None = None
    ) -> dict[str, Any]:
        """Merge-patch the status subresource of an object."""
        ...


class ObjectRef(msgspec.Struct, frozen=True, kw_only=True):
    """What an Event is about."""

    kind: Literal["GPUNode", "GPUDiagnostic"]
    name: str
    uid: str
    namespace: str = ""
    """Empty for cluster-scoped objects."""
    api_version: str = "gpudiag.dev/v1alpha1"


class EventSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One Event to be."""

    reason: str
    """CamelCase, stable."""
    message: str
    type: Literal["Normal", "Warning"] = "Warning"
    subject: str = ""
    """What of the object it is about: the place of a finding, the verdicts of a change."""
    origin: str = ""
    """Tells this occurrence from a later one of the same; never the operator's clock. For a condition the stored
    transition time of the state that is left, for a finding its first sight, for an XID boot id and sequence."""


def event_name(ref: ObjectRef, event: EventSpec) -> str:
    """The Event's name: the same for the same occurrence, whoever computes it and whenever."""
    parts = (ref.uid, event.reason, event.subject, event.origin)
    digest = hashlib.blake2b(msgspec.json.encode(parts), digest_size=10).hexdigest()
    return f"{ref.name[:_PREFIX_LIMIT].rstrip('.-')}.{digest}"


def event_body(ref: ObjectRef, event: EventSpec, *, now: float) -> dict[str, Any]:
    """The Event as an object (v1)."""
    when = to_rfc3339(now)
    involved = {"apiVersion": ref.api_version, "kind": ref.kind, "name": ref.name, "uid": ref.uid}
    if ref.namespace:
        involved["namespace"] = ref.namespace
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": event_name(ref, event), "namespace": ref.namespace or _CLUSTER_NAMESPACE},
        "involvedObject": involved,
        "reason": event.reason,
        "message": clip(event.message, _MESSAGE_LIMIT),
        "type": event.type,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": "",
        "firstTimestamp": when,
        "lastTimestamp": when,
        "count": 1,
    }


async def emit(api: Writer, ref: ObjectRef, event: EventSpec, *, now: float, again: bool = False) -> None:
    """Create the Event, or count it once more where it exists.

    Args:
        api: where to.
        ref: what it is about.
        event: what happened.
        now: Unix seconds.
        again: this process tried before and got no good answer: an Event that exists is that one, and counted.

    Raises:
        ApiError: refused.
        ApiUnavailable: no answer; the same call may be made again.
    """
    body = event_body(ref, event, now=now)
    collection = f"/api/v1/namespaces/{body['metadata']['namespace']}/events"
    try:
        await api.create(collection, body)
    except ApiError as error:
        if not error.already_exists:
            raise
    else:
        return
    if again:
        return
    path = f"{collection}/{body['metadata']['name']}"
    try:
        stored = await api.get(path)
        seen = {"count": int(stored.get("count") or 1) + 1, "lastTimestamp": body["lastTimestamp"]}
        await api.patch(path, seen)
    except ApiError as error:
        # Events expire: one that went between the two calls was told long ago.
        if not error.not_found:
            raise


class Told:
    """Tells the Events of writes that may take several attempts, each of them once.

    An Event comes before its status; when the status then fails, the next attempt decides the same Events again. Those
    that the server has are not repeated, and one that was sent without a good answer is not counted twice.
    """

    def __init__(self) -> None:
        self._pending: dict[tuple[str, str], dict[str, bool]] = {}
        """By object (namespace, name) and name of the Event; True: the server has it."""

    async def emit(self, api: Writer, ref: ObjectRef, event: EventSpec, *, now: float) -> None:
        """See ``emit``."""
        told, name = self._pending.setdefault((ref.namespace, ref.name), {}), event_name(ref, event)
        if told.get(name):
            return
        again, told[name] = name in told, False
        await emit(api, ref, event, now=now, again=again)
        told[name] = True

    def settled(self, name: str, namespace: str = "") -> None:
        """The status is written, or never will be."""
        self._pending.pop((namespace, name), None)
