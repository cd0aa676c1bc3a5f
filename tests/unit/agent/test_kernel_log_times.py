"""Microseconds of the kernel log become Unix time: right to the millisecond, never in the future, the same again."""

import time

import pytest

from gpudiag_agent.kernel_log import boot
from gpudiag_agent.kernel_log.boot import Boot, Drift, KernelTimes
from gpudiag_agent.kernel_log.decode import Decoder
from gpudiag_agent.kernel_log.record import Record

ZERO = 1_800_000_000.0
DAY = 86_400.0


class Node:
    """A node whose kernel log's clock loses some seconds per second against the monotonic clock."""

    def __init__(self, *, drift: float = 0.0, zero: float = ZERO) -> None:
        self.drift = drift
        self.zero = zero
        self.times = KernelTimes(lambda: self.zero)

    def record(self, uptime: float, *, read_after: float = 0.0002, live: bool = True) -> float:
        """By how much the time of a record written at that uptime is wrong."""
        stamp = int(uptime / (1 + self.drift) * 1e6)
        at = self.times.at(stamp, now=self.zero + uptime + read_after, live=live)
        return at - (self.zero + uptime)


def test_a_record_of_the_past_has_the_time_at_which_it_was_written() -> None:
    assert Node().record(90.0, read_after=5000, live=False) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("drift", [-40e-6, 40e-6, 300e-6])
def test_a_clock_that_drifted_for_a_month_is_right_to_the_millisecond(drift: float) -> None:
    node = Node(drift=drift)
    assert node.record(30 * DAY) == pytest.approx(0, abs=1e-3)
    assert node.record(30 * DAY + 5, read_after=0.0005) == pytest.approx(0, abs=1e-3)


def test_what_is_read_late_is_not_written_late() -> None:
    node = Node(drift=20e-6)
    for second in range(60):
        node.record(10 * DAY + second)
    # The event loop was held up for two seconds.
    assert node.record(10 * DAY + 61, read_after=2.0) == pytest.approx(0, abs=2e-3)


def test_the_smallest_delay_is_believed_at_once() -> None:
    node = Node()
    assert node.record(10 * DAY, read_after=1.5) == pytest.approx(1.5, abs=1e-3), "the first is all there is to go by"
    assert node.record(10 * DAY + 1) == pytest.approx(0, abs=1e-3)


def test_an_event_is_never_in_the_future() -> None:
    node = Node(drift=-300e-6)  # The log's clock is fast: by its stamp the record is yet to come.
    assert node.record(30 * DAY, live=False) <= 0.0002 + 1e-6


def test_a_clock_that_was_set_later_puts_the_past_right() -> None:
    node = Node(zero=0.0)  # 1970: before NTP.
    node.record(5.0)
    node.zero = ZERO
    assert node.record(5.0, read_after=60.0, live=False) == pytest.approx(0, abs=1e-3)


def test_the_same_record_has_the_same_time_after_a_restart() -> None:
    node = Node(drift=20e-6)
    node.record(20 * DAY)
    before = node.record(20 * DAY - 50, live=False, read_after=50)
    known, node.times = node.times.drift, KernelTimes(lambda: node.zero)
    node.times.drift = known
    assert node.record(20 * DAY - 50, live=False, read_after=500) == pytest.approx(before, abs=1e-4)


def test_the_drift_survives_in_the_decoder() -> None:
    decoder = Decoder(Boot("b", ZERO), times=KernelTimes(lambda: ZERO))
    line = "NVRM: Xid (PCI:0000:3b:00): 79, x"
    decoder.feed(Record(line, 1, int(1e12)), ZERO + 1e6 + 20, live=True)
    again = Decoder(Boot("b", ZERO), times=KernelTimes(lambda: ZERO))
    again.resume(decoder.midway)
    assert again.midway.drift == Drift(20e-6, 1e6)


def test_the_monotonic_clock_began_before_now() -> None:
    assert boot.monotonic_zero() == pytest.approx(time.time() - time.monotonic(), abs=0.05)
