"""What an SXid means: 97 codes with names in ``catalogue.json``, for the other 323 the block they belong to.

Names and classes from NVIDIA's Fabric Manager documentation as collected by gpud 4a8de33; blocks from the driver header
``ctrl_dev_nvswitch.h``. The driver's word in the line, Fatal or Non-fatal, weighs more than the class.
"""

import functools
from pathlib import Path
from typing import Literal

import msgspec

from gpudiag_agent.checks.xid.catalogue import Verdict
from gpudiag_api.vocabulary import Action, Blame, Severity

_FILE = Path(__file__).with_name("catalogue.json")
HOT, COOL = 10004, 10005


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One code."""

    code: int
    name: str
    kind: Literal["Fatal", "PotentiallyFatal", "Corrected", "Unclassified"] = msgspec.field(name="class")


_BLOCKS = {
    10: "host",
    11: "ingress port",
    12: "egress port",
    13: "port state",
    14: "port tag state",
    15: "route",
    16: "port",
    17: "link control",
    18: "link interface",
    19: "link transaction layer",
    20: "link data layer",
    21: "crossbar",
    22: "link micro-controller",
    23: "crossbar",
    24: "source tracking",
    25: "link interface",
    26: "system micro-controller",
    27: "cable controller",
    28: "cable temperature",
    29: "multicast",
    30: "reduction",
}


@functools.cache
def entries() -> dict[int, Entry]:
    """All codes that have a name."""
    return {entry.code: entry for entry in msgspec.json.decode(_FILE.read_bytes(), type=list[Entry])}


def lookup(code: int) -> Entry:
    """The entry of a code; one made of its block where it has no name."""
    known = entries().get(code)
    if known is not None:
        return known
    block = _BLOCKS.get(code // 1000)
    return Entry(code=code, name=f"error of the {block}" if block else "unknown error", kind="Unclassified")


def verdict(code: int, *, fatal: bool) -> Verdict:
    """What a line asks for; ``fatal``: the driver's word in it."""
    if code == COOL:
        return Verdict(Severity.INFO, Blame.ENVIRONMENT, Action.NONE)
    if code == HOT:
        return Verdict(Severity.WARNING, Blame.ENVIRONMENT, Action.CHECK_COOLING)
    kind = lookup(code).kind
    if kind == "Fatal" or (fatal and kind in {"PotentiallyFatal", "Unclassified"}):
        return Verdict(Severity.CRITICAL, Blame.HARDWARE, Action.REBOOT_NODE)
    if fatal:
        return Verdict(Severity.WARNING, Blame.HARDWARE, Action.RUN_DIAGNOSTICS)
    if kind == "PotentiallyFatal":
        return Verdict(Severity.WARNING, Blame.HARDWARE, Action.RUN_DIAGNOSTICS)
    if kind == "Unclassified":
        return Verdict(Severity.INFO, Blame.UNKNOWN, Action.CONTACT_SUPPORT)
    return Verdict(Severity.INFO, Blame.HARDWARE, Action.NONE)
