"""Fabric Manager's own log, ``/var/log/fabricmanager.log``: it repeats NVSwitch errors in words of its own.

Not the kernel's: a process wrote it, so it is evidence for a person who pastes it, never for a finding.
"""

import re
from datetime import datetime

import msgspec

from gpudiag_api import pci

_LINE = re.compile(
    r"\[(?P<at>\w{3} \d{1,2} \d{4} \d{2}:\d{2}:\d{2})\] \[(?P<level>\w{1,16})\] \[tid (?P<tid>\d{1,10})\] "
    r"detected NVSwitch (?P<word>fatal|non-fatal) error (?P<code>\d{1,5}) on fid (?P<fid>\d{1,6}) "
    r"on NVSwitch pci bus id (?P<pci>[0-9a-fA-F:.]{7,16}) physical id (?P<physical>\d{1,6}) port (?P<port>\d{1,4})",
    re.ASCII,
)


class FabricManagerLine(msgspec.Struct, frozen=True, kw_only=True):
    """``[Jul 23 2024 07:53:55] [ERROR] [tid 841] detected NVSwitch fatal error 20034 on fid 0 …``."""

    at: str
    """Local time of the node, ISO 8601 without a zone."""
    level: str
    thread_id: int
    fatal: bool
    code: int
    """The SXid."""
    fabric_id: int
    pci: str
    """Of the switch, normalised."""
    physical_id: int
    port: int


def parse(text: str) -> FabricManagerLine | None:
    """Read one line; None: any other."""
    match = _LINE.match(text)
    if match is None or int(match["code"]) > 0xFFFF:
        return None
    try:
        at = datetime.strptime(match["at"], "%b %d %Y %H:%M:%S")  # noqa: DTZ007 - the log has no zone
        address = pci.normalise(match["pci"])
    except ValueError:
        return None
    return FabricManagerLine(
        at=at.isoformat(),
        level=match["level"],
        thread_id=int(match["tid"]),
        fatal=match["word"] == "fatal",
        code=int(match["code"]),
        fabric_id=int(match["fid"]),
        pci=address,
        physical_id=int(match["physical"]),
        port=int(match["port"]),
    )
