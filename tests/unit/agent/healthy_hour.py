"""An hour of a healthy machine: what its driver said idle and at work, with all that wavers and counts there.

Nothing here is a fault: work comes and goes, and with it clocks, heat and the speed of the PCIe link; a link resends a
packet now and then, a memory cell flips and is corrected; what happened in the years before is in lifetime counters.
"""

import random
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from gpudiag_agent.sample import (
    C2CLinkSample,
    GPUProcess,
    GPUSample,
    NVLinkSample,
    PCIeSample,
    RowHistogram,
    Sample,
)

INTERVAL = 10.0
SAMPLES = 360
_START = 1_800_000_000.0
_POWER_CAP, _SYNC_BOOST = 0x4, 0x10
_PAST = {"crc_flit": 137, "crc_data": 3, "replay": 5, "recovery": 1, "symbol": 51_000, "recovery_events": 2}
_HOURLY = {
    "replays": 8,
    "crc_flit": 4,
    "replay": 1,
    "symbol": 300,
    "correctable": 3,
    "receiver": 1,
    "bad_tlp": 1,
    "bad_dllp": 1,
    "naks_sent": 2,
    "naks_received": 2,
    "lcrc": 1,
    "unsupported_request": 2,
    "l0_to_recovery": 40,
}
"""Events in an hour that nobody minds, by the counter's name; the rest stands still."""


def hour(idle: Sample, busy: Sample, *, load: bool, seed: int = 0) -> Iterator[Sample]:
    """Samples of a machine that is at work most of the time, or idle most of the time.

    Args:
        idle: what the driver says at rest.
        busy: what it says at work.
        load: which of both it is most of the time.
        seed: of the noise; the same hour again for the same one.
    """
    chance = random.Random(f"{seed}/{load}/{busy.gpus[0].model}")
    gpus = [_GPU(rest, work, load=load, chance=chance) for rest, work in zip(idle.gpus, busy.gpus, strict=True)]
    for number in range(SAMPLES):
        read = tuple(gpu.read(number) for gpu in gpus)
        yield msgspec.structs.replace(busy, taken_at=_START + number * INTERVAL, gpus=read)


class _GPU:
    """One GPU through the hour."""

    def __init__(self, rest: GPUSample, work: GPUSample, *, load: bool, chance: random.Random) -> None:
        self._rest = rest
        self._work = work
        self._load = load
        self._chance = chance
        self._counts: dict[str, int] = {}
        self._working = load
        self._pid = 50_000 + 100 * work.index

    def read(self, number: int) -> GPUSample:
        """The sample of that number."""
        before = self._working
        # Jobs last minutes; a machine at work pauses between them, an idle one gets a short one now and then.
        if self._chance.random() < (0.02 if self._working is self._load else 0.2):
            self._working = not self._working
        woke, ended = self._working and not before, before and not self._working
        if woke:
            self._pid += 1
        base = self._work if self._working else self._rest
        changes = {**self._wavering(base), **self._memory(base), **self._links(base, woke=woke)}
        changes |= self._processes(base, ended=ended)
        return msgspec.structs.replace(base, **{name: value for name, value in changes.items() if value is not None})

    def _wavering(self, base: GPUSample) -> dict[str, Any]:
        heat = self._chance.randint(-3, 3)
        clock, reasons = base.sm_clock_mhz, base.clock_event_reasons
        if self._working and reasons is not None:
            reasons |= self._chance.choice((0, 0, _POWER_CAP, _POWER_CAP | _SYNC_BOOST))
        return {
            "temperature_celsius": _plus(base.temperature_celsius, heat),
            "memory_temperature_celsius": _plus(base.memory_temperature_celsius, heat),
            "thermal_margin_celsius": _plus(base.thermal_margin_celsius, -heat),
            # The limit is one of averages: single readings are above it.
            "power_milliwatts": _scaled(base.power_milliwatts, self._chance.uniform(0.9, 1.03)),
            "sm_clock_mhz": clock if not self._working else _scaled(clock, self._chance.uniform(0.9, 1.0)),
            "utilization_percent": None if base.utilization_percent is None else self._chance.randint(0, 100),
            "clock_event_reasons": reasons,
        }

    def _memory(self, base: GPUSample) -> dict[str, Any]:
        """A corrected error every few hours, and the scars of earlier years on every third GPU."""
        scarred = base.index % 3 == 1
        found: dict[str, Any] = {}
        if base.ecc_corrected_volatile is not None:
            corrected = self._count("ecc", 0.3)
            found = {"ecc_corrected_volatile": corrected, "ecc_corrected_aggregate": corrected + 12 * scarred}
        if scarred and base.ecc_uncorrected_aggregate is not None:
            found["ecc_uncorrected_aggregate"] = 1
        if scarred and base.remapped_rows_uncorrected is not None:
            found["remapped_rows_uncorrected"] = 1
        if scarred and base.remap_histogram is not None:
            found["remap_histogram"] = RowHistogram(base.remap_histogram.maximum - 1, 1, 0, 0, 0)
        if scarred and base.retired_pages_single_bit is not None:
            found["retired_pages_single_bit"] = 2
        return found

    def _links(self, base: GPUSample, *, woke: bool) -> dict[str, Any]:
        return {
            "pcie": None if base.pcie is None else self._pcie(base.pcie, woke=woke),
            "nvlinks": None if base.nvlinks is None else tuple(self._nvlink(link) for link in base.nvlinks),
            "c2c": None if base.c2c is None else tuple(self._c2c(link) for link in base.c2c),
        }

    def _pcie(self, link: PCIeSample, *, woke: bool) -> PCIeSample:
        # The link is still slow at the moment in which the GPU is at full speed again.
        slow = self._rest.pcie.generation if woke and self._rest.pcie is not None else link.generation
        replays = None if link.replays is None else 9 + self._count("replays", _HOURLY["replays"])
        errors = self._counters("pcie", link.errors)
        if "non_fatal" in errors:
            # Software that probes for devices asks for what is not there, which counts as both.
            errors["non_fatal"] = errors["unsupported_request"]
        return msgspec.structs.replace(link, generation=slow, replays=replays, errors=errors)

    def _nvlink(self, link: NVLinkSample) -> NVLinkSample:
        counters = self._counters(f"nvlink/{link.link}", link.errors) if link.active else link.errors
        return msgspec.structs.replace(link, errors=counters)

    def _c2c(self, link: C2CLinkSample) -> C2CLinkSample:
        return msgspec.structs.replace(link, errors=self._counters(f"c2c/{link.link}", link.errors))

    def _counters(self, what: str, errors: Mapping[str, int]) -> dict[str, int]:
        return {
            name: number + _PAST.get(name, 0) + self._count(f"{what}/{name}", _HOURLY.get(name, 0))
            for name, number in errors.items()
        }

    def _count(self, what: str, hourly: float) -> int:
        """A counter that grows by about so many in an hour."""
        share = hourly / SAMPLES
        grown = int(share) + (self._chance.random() < share % 1)
        self._counts[what] = self._counts.get(what, 0) + grown
        return self._counts[what]

    def _processes(self, base: GPUSample, *, ended: bool) -> dict[str, Any]:
        if ended:
            # The process is gone, its memory is still being freed.
            return {"memory_used_bytes": self._work.memory_used_bytes}
        if not self._working or base.processes is None:
            return {}
        found = tuple(
            msgspec.structs.replace(one, pid=self._pid + place) if one.kind == "compute" else one
            for place, one in enumerate(base.processes)
        )
        helper = GPUProcess(pid=self._pid + 50, kind="compute", memory_bytes=0)
        return {"processes": found if base.mig or self._chance.random() < 0.9 else (*found, helper)}


def _plus(value: int | None, change: int) -> int | None:
    return None if value is None else value + change


def _scaled(value: int | None, factor: float) -> int | None:
    return None if value is None else int(value * factor)
