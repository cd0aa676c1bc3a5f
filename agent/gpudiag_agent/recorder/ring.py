"""The last samples of one GPU in columns of machine numbers.

A sample as an object costs about 1 KB; as eight numbers it costs 44 bytes, so half an hour of eight GPUs fits into
64 KB at one sample in 10 s, and into 640 KB at one per second. NaN stands for "the GPU did not say".
"""

import math
from array import array
from collections.abc import Iterator

import msgspec

from gpudiag_agent.sample import GPUSample

HARDWARE_SLOWDOWN = 0x8 | 0x40 | 0x80
"""Clock event reasons by which hardware holds the clocks down: slowdown, thermal, power brake (nvml.h)."""

_NOTHING = math.nan


class Moment(msgspec.Struct, frozen=True, gc=False):
    """One GPU at one moment; None: the GPU did not say."""

    at: float
    """Unix time in seconds."""
    temperature_celsius: float | None
    power_watts: float | None
    utilization_percent: float | None
    memory_used_bytes: float | None
    sm_clock_mhz: float | None
    throttled: bool


class Ring:
    """The last moments of one GPU, oldest first.

    Args:
        capacity: how many moments are kept.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._next = 0
        self._at = array("d")
        self._memory = array("d")
        self._columns = tuple(array("f") for _ in range(4))
        self._throttled = array("b")

    def __len__(self) -> int:
        return len(self._at)

    def add(self, at: float, gpu: GPUSample) -> None:
        """Keep a moment, in the place of the oldest one where the ring is full."""
        milliwatts = gpu.power_milliwatts
        values = (
            gpu.temperature_celsius,
            None if milliwatts is None else milliwatts / 1000,
            gpu.utilization_percent,
            gpu.sm_clock_mhz,
        )
        self._put(self._at, at)
        self._put(self._memory, _number(gpu.memory_used_bytes))
        for column, value in zip(self._columns, values, strict=True):
            self._put(column, _number(value))
        self._put(self._throttled, int(bool((gpu.clock_event_reasons or 0) & HARDWARE_SLOWDOWN)))
        self._next = (self._next + 1) % self._capacity

    def moments(self, since: float) -> Iterator[Moment]:
        """The moments after ``since`` (Unix seconds), oldest first."""
        for offset in range(len(self._at)):
            place = offset if len(self._at) < self._capacity else (self._next + offset) % self._capacity
            if self._at[place] > since:
                yield self._moment(place)

    def _moment(self, place: int) -> Moment:
        temperature, power, utilization, clock = (_value(column[place]) for column in self._columns)
        return Moment(
            self._at[place],
            temperature,
            power,
            utilization,
            _value(self._memory[place]),
            clock,
            bool(self._throttled[place]),
        )

    def _put(self, column: "array[float] | array[int]", value: float) -> None:
        number: float = int(value) if column.typecode == "b" else value
        if len(column) < self._capacity:
            column.append(number)  # type: ignore[arg-type]  # an int for the one column of bytes
        else:
            column[self._next] = number  # type: ignore[call-overload]


def _number(value: float | None) -> float:
    return _NOTHING if value is None else float(value)


def _value(number: float) -> float | None:
    return None if math.isnan(number) else number
