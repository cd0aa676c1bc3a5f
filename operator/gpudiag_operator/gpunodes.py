"""GPUNodes as they come from the API server: people's wishes in ``spec``, and what an earlier process wrote.

The reflector keeps of each only what discovery needs. The object itself is handed on once per version and then
forgotten: 5,000 of them are 20 MB of JSON.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gpudiag_operator.discover.projections import project_gpunode
from gpudiag_operator.kube.reflector import Listener


class Seen(msgspec.Struct, frozen=True):
    """What is kept of a GPUNode."""

    version: str
    has_gpus: bool


class _Meta(msgspec.Struct, rename="camel"):
    name: str
    resource_version: str = ""


class _Head(msgspec.Struct):
    metadata: _Meta


_head_decoder = msgspec.json.Decoder(_Head)
_object_decoder = msgspec.json.Decoder(dict[str, Any])


class GPUNodeFeed:
    """Projection and listener of the reflector of GPUNodes.

    Args:
        discovery: told whether a GPUNode lists GPUs.
        changed: told the whole object, new or changed.
        deleted: told the name of one that is gone.
    """

    def __init__(
        self,
        discovery: Listener[bool],
        *,
        changed: Callable[[str, Mapping[str, Any]], None],
        deleted: Callable[[str], None],
    ) -> None:
        self._discovery = discovery
        self._changed = changed
        self._deleted = deleted
        self._versions: dict[str, str] = {}
        self._bodies: dict[str, bytes] = {}

    def project(self, raw: msgspec.Raw) -> Seen:
        """The reflector's projection. Keeps the JSON until ``upsert`` takes it.

        Raises:
            msgspec.DecodeError: not a GPUNode.
        """
        head = _head_decoder.decode(raw).metadata
        seen = Seen(head.resource_version, project_gpunode(raw))
        if self._versions.get(head.name) != head.resource_version:
            self._bodies[head.name] = bytes(raw)
        return seen

    def upsert(self, name: str, item: Seen) -> None:
        """The reflector's listener: an object is new or changed."""
        self._versions[name] = item.version
        body = self._bodies.pop(name, None)
        if body is not None:
            self._changed(name, _object_decoder.decode(body))
        self._discovery.upsert(name, item.has_gpus)

    def delete(self, name: str) -> None:
        """The reflector's listener: an object is gone."""
        self._versions.pop(name, None)
        self._bodies.pop(name, None)
        self._deleted(name)
        self._discovery.delete(name)
