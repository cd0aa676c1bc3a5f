"""Kubernetes Events that survive crashes: neither lost nor doubled.

An Event's name is a hash of what it is about, and it is created before the status that records the change. A
process that dies between the two finds the old status at its next start, decides the same again, and meets its own
Event under the same name: then the count is patched. No name depends on the operator's clock.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

from gpudiag_api.times import to_rfc3339
from gpudiag_operator.conditions import clip
from gpudiag_operator.kube.errors import ApiError

log = logging.getLogger(__name__)

COMPONENT = "gpudiag-operator"
_REFUSALS = 3
_FINAL = frozenset({401, 403, 404})
"""No right, or no place, to write Events: the next attempt will not fare better."""
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


@dataclass(slots=True)
class _Attempts:
    """How an Event fares."""

    made: bool = False
    """It was sent before, with what came of it unknown or bad."""
    refused: int = 0
    over: bool = False
    """The server has it, or will not have it."""


class Told:
    """Tells the Events of writes that may take several attempts, each of them once.

    An Event comes before its status; when the status then fails, the next attempt decides the same Events again. Those
    that the server has are not repeated, and one that was sent without a good answer is not counted twice.
    """

    def __init__(self) -> None:
        self._pending: dict[tuple[str, str], dict[str, _Attempts]] = {}
        """By object (namespace, name) and name of the Event."""
        self._said: set[str] = set()

    async def emit(self, api: Writer, ref: ObjectRef, event: EventSpec, *, now: float) -> bool:
        """See ``emit``; whether the server has it now.

        An Event that the server refuses is tried three times, with the object's own back-off in between: somebody's
        webhook may be away. Then it is left out, and said so once: it must not hold up the status.
        """
        attempts = self._pending.setdefault((ref.namespace, ref.name), {}).setdefault(
            event_name(ref, event), _Attempts()
        )
        if attempts.over:
            return False
        again, attempts.made = attempts.made, True
        try:
            await emit(api, ref, event, now=now, again=again)
        except ApiError as error:
            if error.retryable or error.conflict:
                raise
            attempts.refused += 1
            if error.status not in _FINAL and attempts.refused < _REFUSALS:
                raise
            self._say(error)
            attempts.over = True
            return False
        attempts.over = True
        return True

    def _say(self, error: ApiError) -> None:
        # A namespace that is being deleted takes none; its objects are as good as gone.
        if not error.not_found and error.reason not in self._said:
            self._said.add(error.reason)
            log.warning("Events cannot be written (said once): %s", error)

    def settled(self, name: str, namespace: str = "") -> None:
        """The status is written, or never will be."""
        self._pending.pop((namespace, name), None)
