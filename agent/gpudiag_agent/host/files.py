"""Small files of sysfs and procfs, read within bounds. What cannot be read is None, whatever the reason."""

import os
from pathlib import Path

_CHUNK = 65536


def read(path: Path, limit: int = 4096) -> str | None:
    """The beginning of a file, at most ``limit`` bytes of it; a FIFO is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    found = b""
    try:
        # procfs gives a page at a time.
        while part := os.read(descriptor, min(_CHUNK, limit - len(found))):
            found += part
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return found.decode("utf-8", "replace")


def line(path: Path, limit: int = 128) -> str:
    """The one line that a file of sysfs holds; empty where it cannot be read."""
    return (read(path, limit) or "").strip()


def number(path: Path) -> int | None:
    """The number that a file of sysfs holds; None: none, or none that can be right."""
    text = line(path, 32)
    return int(text) if text.isascii() and text.removeprefix("-").isdigit() else None


def written(path: Path) -> int | None:
    """When a file was last written, renamed or made, in nanoseconds since 1970; None: it cannot be told."""
    try:
        return path.stat().st_ctime_ns
    except (OSError, ValueError):
        return None


def names(folder: Path, limit: int) -> list[str] | None:
    """What is in a folder, sorted, at most ``limit`` of it; None: it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for _, entry in zip(range(limit), entries, strict=False))
    except OSError:
        return None
