"""What each XID code means to the owner of a node: how bad, whose fault, what to do.

The codes 1 to 176 are in ``xids.json`` beside this module, one line each: NVIDIA's mnemonic and its two buckets (XID
catalogue; ``nverror.h`` of driver 595.45.04 for 173 to 176), the rest is this project's reading. What restarts or
ignores the application is ``Info`` and never degrades a GPU; what asks for a reset or a reboot is ``Critical``. Codes
that are not there are kept and shown, never dropped: drivers add codes. Read on the first look-up.
"""

import functools
from pathlib import Path

import msgspec

from gpudiag_api.vocabulary import Action, Blame, Severity, XIDClass

_FILE = Path(__file__).with_name("xids.json")


class Verdict(msgspec.Struct, frozen=True):
    """How bad, whose fault, what to do."""

    severity: Severity
    blame: Blame
    action: Action


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One code of the catalogue."""

    code: int
    name: str = ""
    """NVIDIA's mnemonic."""
    meaning: str
    """In one clause, ours."""
    kind: XIDClass = msgspec.field(name="class")
    immediate: str | None = None
    """NVIDIA's bucket for what to do at once; None where it gives none."""
    investigatory: str | None = None
    """NVIDIA's bucket for what to look into afterwards."""
    severity: Severity
    blame: Blame
    """``Application`` marks the codes that never speak against a GPU."""
    action: Action

    @property
    def verdict(self) -> Verdict:
        """Of the code alone; the words of a line and the history may say otherwise."""
        return Verdict(self.severity, self.blame, self.action)


UNCLASSIFIED = Entry(
    code=0,
    meaning="not in the catalogue",
    kind=XIDClass.UNCLASSIFIED,
    severity=Severity.WARNING,
    blame=Blame.UNKNOWN,
    action=Action.CONTACT_SUPPORT,
)
"""For every other code. Warning: it may be the first sign of a fault, and it may be nothing."""


@functools.cache
def entries() -> dict[int, Entry]:
    """All codes of the catalogue."""
    return {entry.code: entry for entry in msgspec.json.decode(_FILE.read_bytes(), type=list[Entry])}


def lookup(code: int) -> Entry:
    """The entry of a code, :data:`UNCLASSIFIED` where there is none."""
    return entries().get(code, UNCLASSIFIED)
