"""The decode tables of NVLink 5 errors and of SXids, written down a second time from NVIDIA's sheets.

A digit that changes in a data file is seen here and nowhere else: the tests of the rules read the same files.
"""

import itertools

import pytest

from gpudiag_agent.checks.sxid import catalogue as sxids
from gpudiag_agent.checks.xid import nvlink5
from gpudiag_agent.checks.xid.catalogue import Verdict
from gpudiag_agent.kernel_log import details, sxid
from gpudiag_agent.kernel_log.details import LinkEvent
from gpudiag_api.vocabulary import Action, Blame, Severity

UNITS = {
    "SAW_MVB": (144, "0000100001", "0000001"),
    "RLW_CTRL": (145, "0001100010", "0000011"),
    "RLW_REMAP": (145, "0010000010", "0000100"),
    "RLW_RSPCOL": (145, "0010100010", "0000101"),
    "RLW_RXPIPE": (145, "0011000010", "0000110"),
    "RLW_SRC_TRACK": (145, "0011100010", "0000111"),
    "RLW_TAGSTATE": (145, "0100000010", "0001000"),
    "TLW_CTRL": (146, "0100100011", "0001001"),
    "TLW_RX_PIPE0": (146, "0101000011", "0001010"),
    "TLW_RX_PIPE1": (146, "0101000011", "0001011"),
    "TLW_TX_PIPE0": (146, "0101100011", "0001100"),
    "TLW_TX_PIPE1": (146, "0101100011", "0001101"),
    "TREX": (147, "0110000100", "0001110"),
    "NVLPW": (148, "0000000101", "0001111"),
    "NETIR_INT": (149, "0000000110", "0011000"),
    "NETIR_LINK_DOWN": (149, "0111000110", "0010001"),
    "NETIR_BER_EVENT": (149, "1000100110", "0010011"),
    "NETIR_MFDE_EVENT": (149, "1001000110", "0010100"),
    "MSE_WATCHDOG": (150, "0000000000", "0000000"),
}
"""XID, and the low bits of ``intrinfo`` before R575 and since."""
ALIASES = {
    "TLW_RX": ("TLW_RX_PIPE0", "TLW_RX_PIPE1"), "TLW_TX": ("TLW_TX_PIPE0", "TLW_TX_PIPE1"), "NVLPW_CTRL": ("NVLPW",),
    "NETIR": ("NETIR_INT",), "NETIR_LINK_EVT": ("NETIR_LINK_DOWN",),
}  # fmt: skip
SPURIOUS = "80000000"
NOTED = f"""
SAW_MVB 1 4 8 20 | RLW_CTRL {SPURIOUS} | RLW_REMAP 1 2 4 8 10 20 100 200 {SPURIOUS} | RLW_RSPCOL 1 {SPURIOUS}
RLW_RXPIPE 8 {SPURIOUS} | RLW_SRC_TRACK 2 4 8 {SPURIOUS} | RLW_TAGSTATE 1 10000 {SPURIOUS} | TLW_CTRL 1 2 {SPURIOUS}
TLW_RX_PIPE0 1 2 {SPURIOUS} | TLW_RX_PIPE1 1 2 {SPURIOUS} | TLW_TX_PIPE0 1 2 {SPURIOUS} | TLW_TX_PIPE1 1 2 {SPURIOUS}
TREX 1 {SPURIOUS} | NVLPW {SPURIOUS} | NETIR_LINK_DOWN @38 @40 | NETIR_MFDE_EVENT 3
"""
RESET = """
SAW_MVB 2 10 | RLW_REMAP 40 80 | RLW_RSPCOL 2 | RLW_SRC_TRACK 1 10 20 | RLW_TAGSTATE 2 20000 100000 | TLW_CTRL 4
TLW_RX_PIPE0 4 | TLW_RX_PIPE1 4 | TLW_TX_PIPE0 4 | TLW_TX_PIPE1 4 | NETIR_INT 0 | NETIR_MFDE_EVENT 1 4 5 7
NETIR_LINK_DOWN @0 @1 @15 @17 @21 @22 @32 @33 @34 @35 @36 @37 | MSE_WATCHDOG 0
"""
OF_THE_DRIVER = f"""
RLW_CTRL {SPURIOUS} | RLW_REMAP 1 2 4 8 10 20 {SPURIOUS} | RLW_RSPCOL {SPURIOUS} | RLW_RXPIPE 1 2 4 {SPURIOUS}
RLW_SRC_TRACK {SPURIOUS} | RLW_TAGSTATE {SPURIOUS} | TLW_CTRL {SPURIOUS} | TLW_RX_PIPE0 {SPURIOUS}
TLW_RX_PIPE1 {SPURIOUS} | TLW_TX_PIPE0 {SPURIOUS} | TLW_TX_PIPE1 {SPURIOUS} | TREX 1 {SPURIOUS} | NVLPW {SPURIOUS}
NETIR_LINK_DOWN @15 @16 @17 @18 @22 @40 | MSE_WATCHDOG 0
"""

Error = tuple[str, int, int]


def errors(text: str) -> set[Error]:
    """``UNIT status …`` in hexadecimal, or ``@sub-code`` in decimal, whose status is 0."""
    found = set()
    for entry in text.replace("\n", "|").split("|"):
        unit, *numbers = entry.split() or [""]
        for number in numbers:
            sub = number.startswith("@")
            found.add((unit, int(number[1:]) if sub else 0, 0 if sub else int(number, 16)))
    return found


OUTCOMES: dict[tuple[Severity, Action, Severity, Action], str] = {
    (Severity.INFO, Action.NONE, Severity.INFO, Action.NONE): NOTED,
    (Severity.INFO, Action.NONE, Severity.WARNING, Action.RESET_GPU_WHEN_IDLE): "RLW_RXPIPE 1 2 4",
    (Severity.INFO, Action.NONE, Severity.WARNING, Action.RESEAT_OR_CHECK_LINK): "NETIR_BER_EVENT 0 1 2 3",
    (Severity.CRITICAL, Action.DRAIN_AND_RESET_GPU, Severity.CRITICAL, Action.DRAIN_AND_RESET_GPU): RESET,
    (
        Severity.CRITICAL, Action.DRAIN_AND_RESET_GPU, Severity.CRITICAL, Action.RESEAT_OR_CHECK_LINK,
    ): "NETIR_LINK_DOWN @2 @16 @18 @42 @43",
    (
        Severity.CRITICAL, Action.RESEAT_OR_CHECK_LINK, Severity.CRITICAL, Action.RESEAT_OR_CHECK_LINK,
    ): "NETIR_LINK_DOWN @4 @10",
}  # fmt: skip
"""What the first one asks for, and one that repeats within a day."""


def read(error: Error, *, bits: str, name: str = "", word: str = "Nonfatal") -> tuple[int, LinkEvent]:
    """The error as the driver writes it, in a word whose other bits are all set."""
    unit, sub, status = error
    code = UNITS[unit][0]
    # The marks of RLW_RXPIPE are one bit wider for some.
    others = 0xFFFFFFFF & ~(0x3F << 20) & ~((1 << (len(bits) + 1)) - 1)
    info = others | sub << 20 | int(bits, 2)
    event = details.read(code, f"{name or unit} {word} XC0 i0 Link 09 (0x{info:08x} 0x{status:08x} 0x0 0x0)")
    assert isinstance(event, LinkEvent)
    return code, event


def asked(error: Error, *, repeated: bool, word: str) -> list[Verdict]:
    """What an error asks for, by drivers before R575 and since."""
    return [
        nvlink5.verdict(code, event, repeated=repeated)
        for code, event in (read(error, bits=bits, word=word) for bits in UNITS[error[0]][1:])
    ]


@pytest.mark.parametrize(
    ("outcome", "text"),
    OUTCOMES.items(),
    ids=["note", "reset-if-again", "link-if-again", "reset", "reset-then-link", "link"],
)
def test_what_an_nvlink5_error_asks_for(outcome: tuple[Severity, Action, Severity, Action], text: str) -> None:
    for error, word in itertools.product(errors(text), ("Fatal", "Nonfatal")):
        once, again = (asked(error, repeated=repeated, word=word) for repeated in (False, True))
        assert {(one.severity, one.action) for one in once} == {outcome[:2]}, error
        assert {(one.severity, one.action) for one in again} == {outcome[2:]}, error


def test_the_sheet_has_these_rows_and_no_other() -> None:
    rows = {(row.units[-1], row.sub, row.status) for row in nvlink5.rows()}
    assert rows == set().union(*map(errors, OUTCOMES.values()))


def test_whom_an_nvlink5_error_blames() -> None:
    driver, unknown = errors(OF_THE_DRIVER), {("NETIR_MFDE_EVENT", 0, 3)}
    for error in set().union(*map(errors, OUTCOMES.values())):
        expected = Blame.DRIVER if error in driver else Blame.UNKNOWN if error in unknown else Blame.HARDWARE
        assert {one.blame for one in asked(error, repeated=False, word="Fatal")} == {expected}, error


def test_a_link_whose_signal_goes_bad_again_and_again_is_the_environments() -> None:
    assert {one.blame for one in asked(("NETIR_BER_EVENT", 0, 2), repeated=True, word="Nonfatal")} == {
        Blame.ENVIRONMENT
    }


@pytest.mark.parametrize("alias", ALIASES)
def test_a_unit_has_older_names(alias: str) -> None:
    for unit in ALIASES[alias]:
        for _, sub, status in (one for text in OUTCOMES.values() for one in errors(text) if one[0] == unit):
            code, event = read((unit, sub, status), bits=UNITS[unit][2], name=alias)
            assert nvlink5.decode(code, event), (alias, sub, status)


def test_a_row_counts_for_its_own_code_unit_and_bits_only() -> None:
    code, event = read(("RLW_TAGSTATE", 0, 2), bits=UNITS["RLW_TAGSTATE"][2])
    assert nvlink5.decode(code, event)
    assert nvlink5.decode(146, event) is None
    for change in ({"status": 3}, {"status": None}, {"info": None}, {"unit": "RLW_CTRL"}):
        fields = {name: getattr(event, name) for name in ("unit", "fatal", "info", "status")}
        assert nvlink5.decode(code, LinkEvent(**{**fields, **change})) is None
    for bit in range(7):
        assert nvlink5.decode(code, LinkEvent(event.unit, None, info=(event.info or 0) ^ 1 << bit, status=2)) is None
    # The three that software causes have a wider mark than the rest of their unit.
    assert nvlink5.decode(145, LinkEvent("RLW_RXPIPE", None, info=0b10000110, status=1)) is None
    assert nvlink5.decode(145, LinkEvent("RLW_RXPIPE", None, info=0b10000110, status=8))


def test_every_code_from_144_to_150_is_decoded() -> None:
    assert set(nvlink5.CODES) == {code for code, _, _ in UNITS.values()} == set(range(144, 151))


FATAL = {*range(23001, 23018), 10003, 10006, 10007, 10008, 10009, 12020, 22003, 22011}
CORRECTED = {
    11012, 11021, 11022, 11023, 12021, 12023, 15008, 15011, 19049, 19055, 19057, 19059, 19062, 19065, 19068, 19071,
    20001, 20009, 20012, 22013, 24001, 24002, 24003,
}  # fmt: skip
BY_THE_DRIVERS_WORD = {
    10001, 10002, 10004, 10005, 11001, 11004, 11009, 11013, 11018, 11019, 11020, 12001, 12002, 12022, 12024, 12025,
    12026, 12027, 12028, 12030, 12031, 12032, 14017, 15001, 15006, 15009, 15010, 15012, 15013, 19047, 19048, 19054,
    19056, 19058, 19060, 19061, 19063, 19064, 19066, 19067, 19069, 19070, 19084, 20034, 22012, 24004, 24005, 24006,
    24007,
}  # fmt: skip
BLOCKS = {
    10: "host", 11: "ingress port", 12: "egress port", 13: "port state", 14: "port tag state", 15: "route", 16: "port",
    17: "link control", 18: "link interface", 19: "link transaction layer", 20: "link data layer", 21: "crossbar",
    22: "link micro-controller", 23: "crossbar", 24: "source tracking", 25: "link interface",
    26: "system micro-controller", 27: "cable controller", 28: "cable temperature", 29: "multicast", 30: "reduction",
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "codes"), [("Fatal", FATAL), ("Corrected", CORRECTED), ("PotentiallyFatal", BY_THE_DRIVERS_WORD)]
)
def test_the_class_of_every_sxid(kind: str, codes: set[int]) -> None:
    assert {code for code, entry in sxids.entries().items() if entry.kind == kind} == codes


def test_an_sxid_without_a_name_is_one_of_its_block() -> None:
    assert {number: sxids.lookup(number * 1000 + 999).name for number in range(9, 32)} == {
        number: f"error of the {BLOCKS[number]}" if number in BLOCKS else "unknown error" for number in range(9, 32)
    }


def test_the_drivers_word_decides_about_an_sxid_without_a_name() -> None:
    found = [sxids.verdict(26_999, fatal=fatal) for fatal in (True, False)]
    assert [(one.severity, one.action) for one in found] == [
        (Severity.CRITICAL, Action.REBOOT_NODE),
        (Severity.INFO, Action.CONTACT_SUPPORT),
    ]


def test_heat_of_a_switch_is_the_rooms_whatever_the_driver_calls_it() -> None:
    for fatal in (True, False):
        hot, cool = sxids.verdict(sxids.HOT, fatal=fatal), sxids.verdict(sxids.COOL, fatal=fatal)
        assert (hot.severity, hot.blame, hot.action) == (Severity.WARNING, Blame.ENVIRONMENT, Action.CHECK_COOLING)
        assert (cool.severity, cool.action) == (Severity.INFO, Action.NONE)


@pytest.mark.parametrize(
    ("rest", "fatal", "link", "message"),
    [
        ("20034, Fatal, Link 30 LTSSM Fault Up", True, 30, "LTSSM Fault Up"),
        ("20034, FATAL, Link 30 LTSSM Fault Up", True, 30, "LTSSM Fault Up"),
        ("20034, Non-Fatal, Link 07, LTSSM Fault Up", False, 7, "LTSSM Fault Up"),
        ("10003, Fatal, host unhandled interrupt", True, None, "host unhandled interrupt"),
        ("10003 Fatal", True, None, ""),
        ("10003, Fatal, Linked list is broken", True, None, "Linked list is broken"),
    ],
)
@pytest.mark.parametrize("place", ["PCI:0000:05:00.0", "0000:05:00.0", "PCI:00000000:05:00.0"])
def test_the_forms_of_an_sxid_line(place: str, rest: str, fatal: bool, link: int | None, message: str) -> None:
    line = sxid.parse(f"nvidia-nvswitch12: SXid ({place}): {rest}")
    assert line == sxid.SXIDLine(
        switch=12, code=int(rest[:5]), pci="0000:05:00.0", fatal=fatal, link=link, message=message
    )
