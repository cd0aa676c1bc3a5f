"""The GPUDiagnostics that exist, as last seen.

Fed from three sides that race: kopf's events, complete lists, and the answers to our own writes. The newest resource
version wins, and an object is told from its namesake of yesterday by its uid.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from gpudiag_api.kinds import GPUDiagnosticSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Key:
    """Namespace and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    """One GPUDiagnostic, its spec read, its status as stored."""

    key: Key
    uid: str
    generation: int
    resource_version: str
    created: str = ""
    """RFC 3339."""
    deleting: bool = False
    spec: GPUDiagnosticSpec = field(default_factory=GPUDiagnosticSpec)
    problem: str = ""
    """Why the spec could not be read; ``spec`` is then the default one."""
    status: Mapping[str, Any] = field(default_factory=dict)


def read(body: Mapping[str, Any]) -> Diagnostic:
    """Take what matters from an object.

    A spec that the CRD accepts and this operator does not know (an older operator, a newer CRD) is no error: it
    becomes ``problem``, for the status to say.

    Raises:
        KeyError: not a Kubernetes object: it has no name or uid.
    """
    metadata = body["metadata"]
    problem = ""
    try:
        spec = GPUDiagnosticSpec.model_validate(body.get("spec") or {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("spec", *first["loc"]))
        spec, problem = GPUDiagnosticSpec(), f"{where}: this version of the operator does not know {first['input']!r}"
    return Diagnostic(
        key=Key(metadata.get("namespace", ""), metadata["name"]),
        uid=metadata["uid"],
        generation=int(metadata.get("generation", 1)),
        resource_version=str(metadata.get("resourceVersion", "")),
        created=metadata.get("creationTimestamp") or "",
        deleting=bool(metadata.get("deletionTimestamp")),
        spec=spec,
        problem=problem[:1024],
        status=body.get("status") or {},
    )


def _older(left: str, right: str) -> bool:
    """Whether a resource version is known to be older (comparable for objects of one resource, KEP-5504)."""
    return left.isdecimal() and right.isdecimal() and int(left) < int(right)


class DiagnosticRegistry:
    """GPUDiagnostics by key.

    Args:
        listener: told the key after each change, removal included.
        most: how many are served in all.
        most_per_namespace: and in one namespace.
    """

    def __init__(self, listener: Callable[[Key], None], *, most: int, most_per_namespace: int) -> None:
        self._listener = listener
        self._most = most
        self._most_per_namespace = most_per_namespace
        self._known: dict[Key, Diagnostic] = {}
        self._excess: dict[Key, str] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Key) -> Diagnostic | None:
        """The object, None when there is none."""
        return self._known.get(key)

    def all_keys(self) -> Iterable[Key]:
        """Of everything known."""
        return tuple(self._known)

    def excess(self, key: Key) -> str | None:
        """Why this one is not served because of too many; None when it is."""
        return self._excess.get(key)

    def upsert(self, body: Mapping[str, Any]) -> None:
        """An object is new, changed, or merely seen again."""
        try:
            new = read(body)
        except KeyError as error:
            log.warning("a GPUDiagnostic without %s was ignored", error)
            return
        old = self._known.get(new.key)
        if old is not None and old.uid == new.uid and _older(new.resource_version, old.resource_version):
            return
        self._known[new.key] = new
        if old is None or old.uid != new.uid or old.deleting != new.deleting:
            self._count()
        if old is None or old.resource_version != new.resource_version:
            self._listener(new.key)

    def delete(self, key: Key, uid: str) -> None:
        """That very object is gone."""
        old = self._known.get(key)
        if old is not None and old.uid == uid:
            del self._known[key]
            self._count()
            self._listener(key)

    def retain(self, uids: Mapping[Key, str], *, among: Mapping[Key, str]) -> None:
        """A complete list: forget those that were known before it (``among``) and that it lacks."""
        for key, uid in among.items():
            if uids.get(key) != uid:
                self.delete(key, uid)

    def uids(self) -> Mapping[Key, str]:
        """What is known now, for a later ``retain``."""
        return {key: diagnostic.uid for key, diagnostic in self._known.items()}

    def _count(self) -> None:
        """Serve the oldest first: by the stored creation time, so that a restart decides alike."""
        before, self._excess = self._excess, {}
        taken: Counter[str] = Counter()
        living = [diagnostic for diagnostic in self._known.values() if not diagnostic.deleting]
        for diagnostic in sorted(living, key=lambda one: (one.created, one.key)):
            namespace = diagnostic.key.namespace
            if taken.total() >= self._most:
                self._excess[diagnostic.key] = f"{self._most} GPUDiagnostics are served already; delete some"
            elif taken[namespace] >= self._most_per_namespace:
                most = self._most_per_namespace
                self._excess[diagnostic.key] = (
                    f"{most} GPUDiagnostics of namespace {namespace} are served already; delete some"
                )
            else:
                taken[namespace] += 1
        for key in before.keys() ^ self._excess.keys():
            if key in self._known:
                self._listener(key)
