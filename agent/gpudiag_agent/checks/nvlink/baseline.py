"""Which NVLinks of a GPU have been up: what a link that is down is compared with. Survives a restart of the agent."""

from typing import Annotated

import msgspec

MAX_GPUS = 64
_Links = Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, le=63)], ...], msgspec.Meta(max_length=64)]


class _Stored(msgspec.Struct, frozen=True):
    boot: str
    links: dict[str, _Links]


class LinkBaseline:
    """Links that were up in this boot, by GPU.

    Args:
        boot_id: of the kernel; what another boot saw does not count: links are configured anew.
    """

    def __init__(self, boot_id: str = "") -> None:
        self._boot = boot_id
        self._links: dict[str, set[int]] = {}

    def seen(self, uuid: str, links: set[int]) -> None:
        """Take links that are up now."""
        if links and (uuid in self._links or len(self._links) < MAX_GPUS):
            self._links.setdefault(uuid, set()).update(links)

    def forget(self, uuid: str) -> None:
        """What was up says nothing any more: the GPU was set up anew."""
        self._links.pop(uuid, None)

    def of(self, uuid: str) -> frozenset[int]:
        """Links that have been up."""
        return frozenset(self._links.get(uuid, ()))

    def dump(self) -> object:
        """All of it as builtins, for the state folder."""
        return {"boot": self._boot, "links": {uuid: sorted(links) for uuid, links in self._links.items()}}

    def load(self, stored: object) -> None:
        """Take what :meth:`dump` gave.

        Raises:
            msgspec.ValidationError: it is something else; nothing was taken.
        """
        found = msgspec.convert(stored, _Stored)
        if found.boot == self._boot:
            self._links = {uuid: set(links) for uuid, links in list(found.links.items())[:MAX_GPUS]}
