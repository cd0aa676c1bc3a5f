"""The codes (:mod:`gpudiag_api.xids`) as the rules use them, and what the driver's recovery actions ask for."""

from gpudiag_api.vocabulary import Action, Blame, Severity
from gpudiag_api.xids import UNCLASSIFIED, Entry, Verdict, entries, lookup

__all__ = ["NOTE", "REBOOT", "RESET", "UNCLASSIFIED", "Entry", "Verdict", "entries", "lookup", "recovery"]

NOTE = Verdict(Severity.INFO, Blame.DRIVER, Action.NONE)
RESET = Verdict(Severity.CRITICAL, Blame.HARDWARE, Action.DRAIN_AND_RESET_GPU)
REBOOT = Verdict(Severity.CRITICAL, Blame.HARDWARE, Action.REBOOT_NODE)

_RECOVERY: dict[int, tuple[str, Verdict]] = {
    0: ("none", NOTE),
    1: ("GPU reset", RESET),
    2: ("node reboot", REBOOT),
    3: ("drain peer-to-peer traffic, then reset", RESET),
    4: ("drain and reset", RESET),
    5: ("recover the IMEX domain", Verdict(Severity.WARNING, Blame.HARDWARE, Action.RESTART_FABRIC_MANAGER)),
    6: ("bus reset", RESET),
    7: ("system reboot", REBOOT),
}


def recovery(number: int) -> tuple[str, Verdict]:
    """Words and verdict for a recovery action by its number (NVML field 230, XID 154): the driver's texts vary."""
    return _RECOVERY.get(number, (f"unknown action {number}", UNCLASSIFIED.verdict))
