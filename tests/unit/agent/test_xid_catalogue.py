"""The catalogue: complete, in the closed words, and never harsher on an application than NVIDIA is."""

import pytest

from gpudiag_agent.checks.sxid import catalogue as sxids
from gpudiag_agent.checks.xid import catalogue, nvlink5
from gpudiag_agent.kernel_log.details import LinkEvent
from gpudiag_api.vocabulary import Action, Blame, Severity, XIDClass

APPLICATION = (8, 11, 13, 25, 31, 32, 43, 45, 68, 69, 137, 141)
ALWAYS_ACT = (46, 48, 62, 64, 74, 79, 95, 110, 119, 120, 136, 140, 143, 155, 156, 158, 167, 169, 171, 172, 173, 175)
ENGINES = (
    39,
    40,
    41,
    47,
    65,
    70,
    71,
    72,
    73,
    75,
    76,
    77,
    *range(82, 87),
    88,
    89,
    *range(96, 106),
    *range(126, 136),
    139,
    142,
)
UNUSED = {
    *range(1, 8), 9, 10, 12, *range(14, 25), *range(26, 31), *range(33, 37), 42, *range(49, 54), *range(55, 60), 61, 81,
    87, 90, 91, *range(111, 119), *range(122, 126), 138,
}  # fmt: skip
"""Codes without a meaning of today: NVIDIA lists them as unused or reserved, and old drivers may still say them."""
BUCKETS = {
    "RESTART_APP", "IGNORE", "RESET_GPU", "RESTART_VM", "RESTART_BM", "RESTART_FM", "CONTACT_SUPPORT",
    "CHECK_MECHANICALS", "CHECK_UVM", "UPDATE_SWFW", "WORKFLOW_XID_13", "WORKFLOW_XID_31", "WORKFLOW_XID_45",
    "WORKFLOW_XID_48", "WORKFLOW_NVLINK_ERR", "WORKFLOW_NVLINK5_ERR", "XID_154", "XID_154_EVAL", "XID_137_FLOW",
    "CHECK_APP/CUDA", "INVESTIGATE_SW", "INVESTIGATE_SW_USER", "INVESTIGATE_LINK_SI", "SYMPATHETIC_REPORT_SOLO",
}  # fmt: skip


def test_every_code_from_1_to_176_is_there() -> None:
    assert sorted(catalogue.entries()) == list(range(1, 177))


def test_every_word_is_in_the_vocabulary() -> None:
    for entry in catalogue.entries().values():
        assert isinstance(entry.severity, Severity)
        assert isinstance(entry.blame, Blame)
        assert isinstance(entry.action, Action)
        assert isinstance(entry.kind, XIDClass)
        assert entry.name.isascii()
        assert entry.name
        assert entry.meaning
        assert len(entry.name) <= 63
        assert {entry.immediate, entry.investigatory} <= BUCKETS | {None}


def test_unused_codes_are_said_to_be() -> None:
    assert {code for code, entry in catalogue.entries().items() if entry.kind is XIDClass.UNUSED} == UNUSED


@pytest.mark.parametrize("code", [*APPLICATION, *ENGINES])
def test_an_applications_code_never_degrades(code: int) -> None:
    entry = catalogue.lookup(code)
    assert (entry.severity, entry.blame, entry.action) == (
        Severity.INFO,
        Blame.APPLICATION,
        Action.CHECK_APPLICATION,
    )


@pytest.mark.parametrize("code", ALWAYS_ACT)
def test_what_nvidia_always_acts_on_is_critical(code: int) -> None:
    assert catalogue.lookup(code).severity is Severity.CRITICAL


def test_what_nvidia_ignores_or_leaves_to_the_application_never_degrades() -> None:
    for entry in catalogue.entries().values():
        if entry.immediate in {"IGNORE", "RESTART_APP"} and entry.code != 94:
            assert entry.severity is Severity.INFO, entry.code


def test_nvidias_reset_and_reboot_buckets_are_critical_but_for_one() -> None:
    lenient = {e.code for e in catalogue.entries().values() if e.immediate in {"RESET_GPU", "RESTART_BM"}} - {
        e.code for e in catalogue.entries().values() if e.severity is Severity.CRITICAL
    }
    assert lenient == {109}, "the device plugin calls it the application's"


def test_an_unknown_code_is_kept() -> None:
    assert catalogue.lookup(177) is catalogue.UNCLASSIFIED
    assert catalogue.UNCLASSIFIED.action is Action.CONTACT_SUPPORT


def test_recovery_actions_go_by_number() -> None:
    assert [catalogue.recovery(n)[1].action for n in range(8)] == [
        Action.NONE,
        Action.DRAIN_AND_RESET_GPU,
        Action.REBOOT_NODE,
        Action.DRAIN_AND_RESET_GPU,
        Action.DRAIN_AND_RESET_GPU,
        Action.RESTART_FABRIC_MANAGER,
        Action.DRAIN_AND_RESET_GPU,
        Action.REBOOT_NODE,
    ]


class TestNVLink5:
    def test_the_sheet_has_94_rows_that_do_not_collide(self) -> None:
        assert len(nvlink5.rows()) == 94
        keys = {(row.xid, row.units, row.v1, row.v2, row.sub, row.status) for row in nvlink5.rows()}
        assert len(keys) == 94

    @pytest.mark.parametrize("row", nvlink5.rows(), ids=lambda row: f"{row.units[-1]}-{row.sub}-{row.status:#x}")
    def test_every_row_is_found_by_every_name_of_its_unit(self, row: nvlink5.Row) -> None:
        for unit in row.units:
            for bits in (row.v1, row.v2):
                info = row.sub << 20 | int(bits, 2) | 1 << 15 | 1 << 31
                found = nvlink5.decode(row.xid, LinkEvent(unit, None, info=info, status=row.status))
                assert found is not None
                assert (found.severity, found.action, found.investigate) == (row.severity, row.action, row.investigate)

    @pytest.mark.parametrize(
        ("unit", "info", "status", "action", "fatal"),
        [
            ("RLW_REMAP", 0x4, 1, "XID_154_EVAL", False),
            ("RLW_SRC_TRACK", 0x7, 1, "RESET_GPU", True),
            ("RLW_SRC_TRACK", 0x04084507, 4, "XID_154_EVAL", False),
        ],
    )
    def test_the_unit_decides(self, unit: str, info: int, status: int, action: str, fatal: bool) -> None:
        row = nvlink5.decode(145, LinkEvent(unit, None, info=info, status=status))
        assert row is not None
        assert (row.action, row.fatal) == (action, fatal)

    def test_a_unit_that_the_bits_contradict_is_not_taken_for_another(self) -> None:
        assert nvlink5.decode(145, LinkEvent("RLW_REMAP", True, info=0x7, status=1)) is None

    def test_the_worked_example(self) -> None:
        row = nvlink5.decode(149, LinkEvent("NETIR_LINK_EVT", True, info=0x025525C6, status=0))
        assert row is not None
        assert (row.sub, row.severity, row.action, row.investigate) == (
            37,
            "Link Fatal",
            "RESET_GPU",
            "INVESTIGATE_PEER_DEVICE",
        )

    def test_the_sheet_wins_over_the_kernels_word(self) -> None:
        event = LinkEvent("RLW_RSPCOL", True, info=0x5, status=1)
        assert nvlink5.verdict(145, event, repeated=False).severity is Severity.INFO

    def test_what_the_sheet_does_not_know_goes_by_the_kernels_word(self) -> None:
        known = {fatal: nvlink5.verdict(145, LinkEvent("NEW", fatal), repeated=False) for fatal in (True, False)}
        assert (known[True].severity, known[False].severity) == (Severity.CRITICAL, Severity.INFO)


class TestSXid:
    @pytest.mark.parametrize("code", [12020, 22003, 22011, *range(23001, 23018), 10003, *range(10006, 10010)])
    def test_always_fatal(self, code: int) -> None:
        assert sxids.verdict(code, fatal=False).severity is Severity.CRITICAL

    @pytest.mark.parametrize("code", [11001, 12028, 11004, 19084, 20034, 24007])
    def test_the_drivers_word_decides(self, code: int) -> None:
        assert sxids.verdict(code, fatal=True).severity is Severity.CRITICAL
        assert sxids.verdict(code, fatal=False).severity is Severity.WARNING

    @pytest.mark.parametrize("code", [11012, 20001, 20009, 22013, 24001])
    def test_corrected_errors_are_notes(self, code: int) -> None:
        assert sxids.verdict(code, fatal=False).severity is Severity.INFO
        assert sxids.verdict(code, fatal=True).severity is Severity.WARNING

    def test_an_unknown_code_is_named_by_its_block(self) -> None:
        assert sxids.lookup(11999).name == "error of the ingress port"
        assert sxids.lookup(1).name == "unknown error"
        assert len(sxids.entries()) == 97
