"""The ledger: each occurrence once whoever tells of it, over restarts and reboots, whatever was saved."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.checks.xid import history, state
from gpudiag_agent.checks.xid.ledger import XIDLedger
from gpudiag_agent.kernel_log.decode import KernelEvent
from gpudiag_agent.kernel_log.parse import Said, XIDLine, parse
from gpudiag_agent.sample import GPUSample, PCIeSample, Sample

START = 1_800_000_000.0
A = "0000:10:00.0"


class Told:
    """A ledger and what it is told, one line a second."""

    def __init__(self, boot: str = "b1", ledger: XIDLedger | None = None) -> None:
        self.boot, self.now, self.number = boot, START, 0
        self.ledger = ledger or XIDLedger(boot)

    def line(self, text: str, *, after: float = 1.0, number: int | None = None) -> None:
        self.now += after
        self.number += 1
        line = parse(f"NVRM: {text}")
        assert isinstance(line, Said)
        event = KernelEvent(id=f"{self.boot}/{number or self.number}", at=self.now, what=line)
        self.ledger.hear(event)

    def xid(self, code: int, words: str = "x", *, after: float = 1.0, pci: str = "0000:10:00") -> None:
        self.line(f"Xid (PCI:{pci}): {code}, {words}", after=after)

    def nvml(self, code: int, *, after: float = 0.0, pci: str = "00000000:10:00.0") -> None:
        self.ledger.hear_nvml(code=code, pci=pci, at=self.now + after)

    @property
    def held(self) -> list[tuple[int, int, str]]:
        return [(one.code, one.count, one.message) for one in self.ledger.occurrences]


class TestTwoWitnesses:
    @pytest.mark.parametrize("after", [-4.9, 0, 4.9])
    def test_an_event_after_the_line_is_the_same(self, after: float) -> None:
        told = Told()
        told.xid(79, "fallen")
        told.nvml(79, after=after)
        assert told.held == [(79, 1, "fallen")]
        assert told.ledger.totals == {(A, 79): 1}

    def test_a_line_after_the_event_gives_the_words_and_keeps_the_identity(self) -> None:
        told = Told()
        told.nvml(79)
        (before,) = told.ledger.occurrences
        told.xid(79, "pid=7, name=train, fallen", after=3)
        (after,) = told.ledger.occurrences
        assert (after.id, after.count, after.message, after.process_id) == (before.id, 1, "fallen", 7)
        assert told.ledger.totals == {(A, 79): 1}

    def test_five_seconds_apart_are_two(self) -> None:
        told = Told()
        told.xid(48)
        told.nvml(48, after=5.1)
        assert told.held == [(48, 2, "x")]

    def test_one_line_answers_for_one_event(self) -> None:
        told = Told()
        told.xid(48)
        told.nvml(48, after=1)
        told.nvml(48, after=2)
        assert told.held == [(48, 2, "x")]

    def test_another_gpu_or_code_is_another(self) -> None:
        told = Told()
        told.xid(48)
        told.nvml(95)
        told.nvml(48, pci="00000000:11:00.0")
        assert sum(count for _, count, _ in told.held) == 3

    @given(st.lists(st.booleans(), min_size=1, max_size=30))
    def test_pairs_count_once_whichever_comes_first(self, order: list[bool]) -> None:
        told = Told()
        for line_first in order:
            told.now += 60
            if line_first:
                told.xid(48, after=0)
                told.nvml(48)
            else:
                told.nvml(48)
                told.xid(48, after=1)
        assert sum(count for _, count, _ in told.held) == len(order)
        assert told.ledger.totals == {(A, 48): len(order)}

    def test_the_same_event_of_nvml_counts_once(self) -> None:
        told = Told()
        for _ in range(3):
            told.ledger.hear_nvml(code=48, pci=A, at=START, event_id="e1", gpu_instance=0xFFFFFFFF)
        (one,) = told.ledger.occurrences
        assert (one.count, one.gpu_instance) == (1, None)

    def test_a_mig_instance_is_kept(self) -> None:
        told = Told()
        told.ledger.hear_nvml(code=48, pci=A, at=START, gpu_instance=5, compute_instance=1)
        (one,) = told.ledger.occurrences
        assert (one.gpu_instance, one.compute_instance) == (5, 1)


class TestRestart:
    def test_everything_held_survives(self) -> None:
        told = Told()
        told.line("GPU at PCI:0000:10:00: GPU-abcdef12")
        told.xid(48, "pid=7, name=train, x")
        told.xid(154, "changed from 0x0 (None) to 0x2 (Reboot)")
        told.line("GPU 0000:18:00.0: GPU has fallen off the bus.")
        told.line("GPU 0000:10:00.0: RmInitAdapter failed! (0x24:0xffff:1568)")
        after = XIDLedger("b1")
        assert after.load(told.ledger.dump(), now=told.now) is None
        assert after.occurrences == told.ledger.occurrences
        assert (after.lost, after.uuids) == (told.ledger.lost, told.ledger.uuids)
        assert after.signals.held == told.ledger.signals.held
        assert after.dump() == told.ledger.dump()

    def test_what_was_heard_is_not_heard_again(self) -> None:
        told = Told()
        told.xid(48)
        after = XIDLedger("b1")
        after.load(told.ledger.dump(), now=told.now)
        again = Told(ledger=after)
        again.xid(48)
        assert again.held == [(48, 1, "x")]
        again.xid(48)
        assert again.held == [(48, 2, "x")]

    def test_a_reboot_clears_and_is_remembered(self) -> None:
        told = Told("b1")
        told.xid(48)
        told.line("GPU 0000:18:00.0: GPU has fallen off the bus.")
        after = XIDLedger("b2")
        after.load(told.ledger.dump(), now=told.now)
        assert (after.occurrences, after.lost) == ((), {})
        assert [burst.code for burst in after.history] == [48]

    def test_two_weeks_are_kept(self) -> None:
        told = Told()
        told.xid(48)
        after = XIDLedger("b2")
        after.load(told.ledger.dump(), now=told.now + history.KEPT + 1)
        assert after.history == ()

    @pytest.mark.parametrize(
        "data",
        [b"", b"{", b"[]", b"null", b'{"version": 2}', b'{"version": 1, "bursts": 7}', b"\xff\xfe", b"[" * 100_000],
    )
    def test_garbage_is_an_empty_history_and_a_reason(self, data: bytes) -> None:
        ledger = XIDLedger("b1")
        reason = ledger.load(data, now=START)
        assert reason is not None
        assert reason.startswith("the saved history")
        assert (ledger.history, ledger.occurrences) == ((), ())

    @given(st.binary(max_size=200), st.integers(0, 2000))
    def test_no_bytes_break_it(self, noise: bytes, at: int) -> None:
        told = Told()
        told.xid(149, "NETIR_LINK_EVT Fatal XC0 i0 Link 09 (0x025525c6 0x0)")
        data = told.ledger.dump()
        XIDLedger("b1").load(noise, now=START)
        XIDLedger("b1").load(data[:at] + noise + data[at + len(noise) :], now=START)

    def test_it_stays_within_its_bounds(self) -> None:
        told = Told()
        for number in range(2000):
            told.line(f"Xid (PCI:0000:10:00): 48, pid=1, name=p{number}, " + "\u1234" * 2000, after=200)
        assert len(told.ledger.history) <= history.MAX_BURSTS
        assert len(told.ledger.dump()) <= state.MAX_BYTES
        assert XIDLedger("b1").load(told.ledger.dump(), now=told.now) is None


def test_an_event_counts_once() -> None:
    told = Told()
    for _ in range(3):
        told.line("Xid (PCI:0000:10:00): 48, x", number=7)
    assert told.held == [(48, 1, "x")]


def sample(at: float, **values: object) -> Sample:
    gpu = GPUSample(index=0, uuid="GPU-0", pci=A)
    return Sample(taken_at=at, gpus=(msgspec.structs.replace(gpu, **values),))


class TestReset:
    def test_counters_that_all_begin_anew_are_a_reset(self) -> None:
        told = Told()
        told.xid(48)
        told.ledger.observe(sample(told.now + 1, ecc_uncorrected_volatile=3, pcie=PCIeSample(replays=5)))
        told.ledger.observe(sample(told.now + 2, ecc_uncorrected_volatile=0, pcie=PCIeSample(replays=5)))
        assert [one.cleared for one in told.ledger.occurrences] == [False], "one counter alone can be set back by hand"
        told.ledger.observe(sample(told.now + 3, ecc_uncorrected_volatile=0, pcie=PCIeSample(replays=0)))
        assert [one.cleared for one in told.ledger.occurrences] == [True]

    def test_counters_that_were_zero_all_along_say_nothing(self) -> None:
        told = Told()
        told.xid(48)
        for n in range(3):
            told.ledger.observe(sample(told.now + n, ecc_uncorrected_volatile=0))
        assert [one.cleared for one in told.ledger.occurrences] == [False]


def test_a_switch_error_is_counted_once_with_its_detail_lines() -> None:
    told = Told()
    lines = ("Fatal, Link 30 LTSSM Fault Up", "Severity 1 Engine instance 30 Sub-engine instance 00", "Data {0x1}")
    for number, words in enumerate(lines):
        line = parse(f"nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, {words}")
        assert isinstance(line, Said)
        told.ledger.hear(KernelEvent(id=f"b1/{number}", at=START, what=line))
    assert told.ledger.signals.held == ()
    (one,) = told.ledger.switch_history
    assert (one.count, one.message) == (1, "LTSSM Fault Up")


def test_a_line_without_a_boot_in_its_id_belongs_to_this_boot() -> None:
    ledger = XIDLedger("b1")
    ledger.hear(KernelEvent(id="7", at=START, what=XIDLine(code=48, pci=A)))
    assert len(ledger.occurrences) == 1
