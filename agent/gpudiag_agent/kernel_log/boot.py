"""This boot of the node: its id, and when it began."""

import time
from pathlib import Path

import msgspec

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Boot(msgspec.Struct, frozen=True):
    """One boot of the kernel."""

    id: str
    """The kernel's random boot id; empty where it cannot be read."""
    started_at: float
    """Unix time in seconds: a record's time is this plus its microseconds."""


def current(path: Path = _BOOT_ID) -> Boot:
    """The boot this process runs in."""
    try:
        boot_id = path.read_text(encoding="ascii").strip()[:36]
    except (OSError, UnicodeDecodeError):
        boot_id = ""
    return Boot(boot_id, time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))
