"""A gigabyte of hostile kernel log on standard output: ``python -m tests.fuzz.stream 1073741824 [kernel_log|journal]``.

First a line that does not end within an eighth of it; then lines or journal entries of the driver and of other
programs, with parts cut out, and bytes that are no text.
"""

import random
import sys
from collections.abc import Iterator

from tests.fuzz.targets import seeds

CHUNK = 1 << 20
KINDS = {"kernel_log": b"\n", "journal": b"\n\n"}
"""Each with what ends a line or an entry."""
_ENDLESS = b"MESSAGE=3,1,1,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=1, "


def chunks(size: int, *, kind: str = "kernel_log", seed: int = 0) -> Iterator[bytes]:
    """So many bytes, the same again for the same seed."""
    end = KINDS[kind]
    pool = list(_pool(random.Random(seed), kind, end))
    endless = size // 8
    yield _ENDLESS
    for _ in range(endless // CHUNK):
        yield b"x" * CHUNK
    yield end
    left = size - len(_ENDLESS) - endless // CHUNK * CHUNK - len(end)
    chance = random.Random(seed)
    while left > 0:
        yield (block := chance.choice(pool)[: min(CHUNK, left)])
        left -= len(block)


def _pool(chance: random.Random, kind: str, end: bytes) -> Iterator[bytes]:
    """One block of the driver's, four of other programs', 27 of noise: what matters is what takes time to read."""
    lines = [line for one in seeds(kind) for line in one.split(end) if line]
    yield _block(end, [_bent(chance, lines) for _ in range(10_000)])
    for _ in range(4):
        others = [line.replace(b"NVRM", b"sshd").replace(b"nvidia", b"systemd") for line in lines]
        yield _block(end, [_bent(chance, others) for _ in range(10_000)])
    for _ in range(27):
        yield _block(end, [chance.randbytes(chance.randrange(1, 1 << 17)) for _ in range(32)])


def _bent(chance: random.Random, lines: list[bytes]) -> bytes:
    line = bytearray(chance.choice(lines))
    at = chance.randrange(len(line))
    line[at : at + chance.randrange(8)] = chance.randbytes(chance.randrange(8))
    return bytes(line)


def _block(end: bytes, parts: list[bytes]) -> bytes:
    return end.join(parts)[:CHUNK].ljust(CHUNK, b"\n")


if __name__ == "__main__":
    for chunk in chunks(int(sys.argv[1]), kind=sys.argv[2] if len(sys.argv) > 2 else "kernel_log"):
        sys.stdout.buffer.write(chunk)
