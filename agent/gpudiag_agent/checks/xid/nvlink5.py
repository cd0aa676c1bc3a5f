"""NVLink 5 errors, XIDs 144 to 150: unit, sub-code and status → NVIDIA's verdict.

The 94 rows of NVIDIA's decode sheet are in ``nvlink5.json``. A row fits when the unit is one of its names, the
sub-code and the status are equal, and the low bits of ``intrinfo`` are those of drivers before R575 (v1) or later (v2).
Never by sub-code and status alone: status 1 is harmless from RLW_REMAP and fatal from RLW_SRC_TRACK.
"""

import functools
from pathlib import Path

import msgspec

from gpudiag_agent.checks.xid.catalogue import NOTE, RESET, Verdict
from gpudiag_agent.kernel_log.details import LinkEvent
from gpudiag_api.vocabulary import Action, Blame, Severity

_FILE = Path(__file__).with_name("nvlink5.json")
CODES = range(144, 151)

_BLAME = {"HW": Blame.HARDWARE, "HW/SW": Blame.HARDWARE, "SW": Blame.DRIVER, "FW": Blame.DRIVER, "NA": Blame.UNKNOWN}
_LINK_QUALITY = frozenset({"INVESTIGATE_LINK_SI", "INVESTIGATE_LINK_SI_AND_CABLES", "INVESTIGATE_SW_USER_LINK_SI"})
_CARTRIDGE = frozenset({4, 10})
"""Sub-codes of NETIR_LINK_EVT that point at the cartridge or the PHY at once (gpud 4a8de33)."""


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the sheet."""

    xid: int
    units: tuple[str, ...]
    """The name and its aliases."""
    v1: str
    """Low bits of ``intrinfo``, drivers before R575; the string's length is the number of bits."""
    v2: str
    """The same from R575 on."""
    sub: int
    status: int
    severity: str
    """``Fatal``, ``Link Fatal`` or ``Non-fatal``: it wins over the kernel's own word."""
    action: str
    """NVIDIA's immediate bucket; ``XID_154_EVAL``: an XID 154 that follows says it."""
    second: str | None
    investigate: str
    origin: str

    @property
    def fatal(self) -> bool:
        """Whether the link, or more, is gone."""
        return self.severity != "Non-fatal"


@functools.cache
def rows() -> tuple[Row, ...]:
    """The whole sheet."""
    return msgspec.json.decode(_FILE.read_bytes(), type=tuple[Row, ...])


def decode(code: int, event: LinkEvent) -> Row | None:
    """The row of an error; None: the sheet does not know it, and the driver's own word decides."""
    if event.info is None or event.status is None:
        return None
    for row in rows():
        known = row.xid == code and event.unit in row.units and row.sub == event.sub and row.status == event.status
        if known and (_fits(event.info, row.v1) or _fits(event.info, row.v2)):
            return row
    return None


def _fits(info: int, bits: str) -> bool:
    return info & ((1 << len(bits)) - 1) == int(bits, 2)


def verdict(code: int, event: LinkEvent, *, repeated: bool) -> Verdict:
    """What an error asks for.

    Args:
        code: the XID.
        event: its words.
        repeated: whether the same happened on the same link within a day before.
    """
    row = decode(code, event)
    if row is None:
        return RESET if event.fatal else Verdict(Severity.INFO, Blame.HARDWARE, Action.NONE)
    blame = _BLAME[row.origin]
    if row.action == "RESET_GPU":
        suspect = row.investigate in _LINK_QUALITY and (repeated or row.sub in _CARTRIDGE)
        action = Action.RESEAT_OR_CHECK_LINK if suspect else Action.DRAIN_AND_RESET_GPU
        return Verdict(Severity.CRITICAL, blame, action)
    if row.second == "RESET_GPU" and repeated:
        return Verdict(Severity.WARNING, blame, Action.RESET_GPU_WHEN_IDLE)
    if row.investigate in _LINK_QUALITY and repeated:
        return Verdict(Severity.WARNING, Blame.ENVIRONMENT, Action.RESEAT_OR_CHECK_LINK)
    return Verdict(NOTE.severity, blame, NOTE.action)
