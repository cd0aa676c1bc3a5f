"""What operators wrote, in the order of etcd: who held the Lease when, and who wrote although it did not. Pure.

Resource versions of one API server are revisions of one etcd, so they order writes to different objects, whatever
delays there were on the way.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Write:
    """An accepted write. ``revision`` is that of the object after it."""

    revision: int
    writer: str
    what: str


@dataclass
class Ledger:
    """Filled by the proxies of one world."""

    writes: list[Write] = field(default_factory=list)
    holders: list[tuple[int, str]] = field(default_factory=list)
    """Since which revision who holds the Lease; '' nobody."""
    newest: int = 0
    """The newest revision that anybody was told of."""
    requests: Counter[str] = field(default_factory=Counter)
    """By method and path."""

    def saw(self, body: Mapping[str, Any]) -> int:
        """Note the revision of an answer."""
        said = str(body.get("metadata", {}).get("resourceVersion", ""))
        revision = int(said) if said.isdecimal() else 0
        self.newest = max(self.newest, revision)
        return revision

    def wrote(self, writer: str, what: str, body: Mapping[str, Any], *, known: int) -> None:
        """A write was accepted.

        Args:
            writer: the process.
            what: method and path.
            body: the answer.
            known: ``newest`` when the request came. A write that changed nothing gives an older revision, and is none.
        """
        revision = self.saw(body)
        if revision <= known:
            return
        if "/leases" in what:
            self.holders.append((revision, writer if body.get("spec", {}).get("holderIdentity") else ""))
        else:
            self.writes.append(Write(revision, writer, what))

    def holder(self, revision: int) -> str:
        """Who held the Lease at that revision."""
        past = [(since, who) for since, who in self.holders if since <= revision]
        return max(past)[1] if past else ""

    def intruders(self) -> list[str]:
        """Writes of processes that did not hold the Lease."""
        return [
            f"{write.writer} did {write.what} at revision {write.revision}, when the Lease was held by "
            f"{self.holder(write.revision) or 'nobody'}"
            for write in self.writes
            if self.holder(write.revision) != write.writer
        ]
