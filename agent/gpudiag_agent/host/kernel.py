"""What the kernel has loaded, from procfs."""

import re
from collections.abc import Mapping
from pathlib import Path

from gpudiag_agent.host import files
from gpudiag_agent.host.facts import KernelDriver

_MODULES = frozenset({"nvidia", "nvidia_peermem", "nv_peer_mem", "ib_core", "ib_uverbs"})
_VERSION = re.compile(r"NVRM version: [^\n]{0,80}? (\d{3,4}(?:\.\d{1,4}){1,3})\s", re.ASCII)
_OPEN = "Open Kernel Module"


def modules(proc: Path) -> Mapping[str, tuple[str, ...]] | None:
    """Loaded modules that matter here, each with those that use it (``/proc/modules``); None: cannot be read."""
    text = files.read(proc / "modules", 1 << 18)
    if not text:
        return None
    found = {}
    for words in map(str.split, text.splitlines()[:4096]):
        if len(words) > 3 and words[0] in _MODULES:
            found[words[0]] = tuple(user for user in words[3].split(",")[:256] if user.strip("-"))
    return found


def driver(proc: Path) -> KernelDriver | None:
    """The NVIDIA module; None: it is not loaded, or cannot be seen.

    ``NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build …``
    """
    text = files.read(proc / "driver/nvidia/version") or ""
    match = _VERSION.match(text)
    return KernelDriver(match[1], _OPEN in match[0]) if match else None


def uptime(proc: Path) -> float | None:
    """Seconds since boot; None: cannot be read."""
    first = (files.line(proc / "uptime").split() or [""])[0]
    return float(first) if re.fullmatch(r"\d{1,12}(\.\d{1,4})?", first, re.ASCII) else None
