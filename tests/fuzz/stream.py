"""A gigabyte of hostile kernel log on standard output: ``python -m tests.fuzz.stream 1073741824``.

Lines of the driver with parts cut out, lines without an end, records of other programs, bytes that are no text.
"""

import random
import sys
from collections.abc import Iterator

from tests.fuzz.targets import seeds

CHUNK = 1 << 20


def chunks(size: int, *, seed: int = 0) -> Iterator[bytes]:
    """So many bytes, the same again for the same seed."""
    chance = random.Random(seed)
    lines = [line for one in seeds("kernel_log") for line in one.split(b"\n") if line]
    pool = []
    for _ in range(8):
        parts: list[bytes] = []
        for _ in range(5000):
            line = bytearray(chance.choice(lines))
            at = chance.randrange(len(line))
            line[at : at + chance.randrange(8)] = chance.randbytes(chance.randrange(8))
            parts.append(bytes(line))
        parts.append(chance.randbytes(CHUNK // 4).replace(b"\n", b"x"))  # A line that does not end.
        pool.append(b"\n".join(parts)[:CHUNK].ljust(CHUNK, b"\n"))
    left = size
    while left > 0:
        yield (block := chance.choice(pool)[: min(CHUNK, left)])
        left -= len(block)


if __name__ == "__main__":
    for chunk in chunks(int(sys.argv[1])):
        sys.stdout.buffer.write(chunk)
