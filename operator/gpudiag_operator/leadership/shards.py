"""Which shard a node belongs to: rendezvous hashing. Pure.

Each node goes to the shard whose hash with it is the largest. With one shard more, only the nodes of the new one move
(1/N of them); with one less, only those of the one that is gone. The hash is of bytes, the same in every process and
version: Python's own ``hash`` is neither.
"""

import hashlib
from collections.abc import Mapping

from gpudiag_operator.discover.discovery import TargetListener
from gpudiag_operator.domain import Target


def shard_of(node: str, shards: int) -> int:
    """The shard of a node, 0 to ``shards`` - 1."""
    if shards == 1:
        return 0
    return max(range(shards), key=lambda shard: _weight(node, shard))


def _weight(node: str, shard: int) -> bytes:
    return hashlib.blake2b(f"{shard}/{node}".encode(), digest_size=8).digest()


class Share:
    """The shards that this process owns: of discovery's targets it passes on those (a TargetListener between).

    Args:
        collector: told the targets.
        shards: in all.
    """

    def __init__(self, collector: TargetListener, shards: int = 1) -> None:
        self._collector = collector
        self._shards = shards
        self._owned: set[int] = set()

    def owns(self, node: str) -> bool:
        """Whether this process reads that node."""
        return bool(self._owned) and shard_of(node, self._shards) in self._owned

    def take(self, shard: int, targets: Mapping[str, Target]) -> None:
        """Own one more shard: those of the present targets that are its are told, and from now on their changes."""
        self._owned.add(shard)
        for node, target in targets.items():
            if self.is_of(node, shard):
                self._collector.set_target(target)

    def is_of(self, node: str, shard: int) -> bool:
        """Whether a node belongs to a shard."""
        return shard_of(node, self._shards) == shard

    def set_target(self, target: Target) -> None:
        """See ``TargetListener``."""
        if self.owns(target.node):
            self._collector.set_target(target)

    def remove_target(self, node: str) -> None:
        """See ``TargetListener``."""
        if self.owns(node):
            self._collector.remove_target(node)
