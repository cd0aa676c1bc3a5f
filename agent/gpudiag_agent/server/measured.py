"""GPU series from the latest sample. What a GPU does not support is absent, never zero.

Links are summed per GPU: 18 links with a dozen counters each would be 1,700 series on a node with eight GPUs. Which
link it is, the finding says.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gpudiag_agent.sample import GPUSample, PCIeSample, ThrottleTimes

LABELS = ("uuid", "gpu")

_NO_PCIE = PCIeSample()
_NO_TIMES = ThrottleTimes()

_Read = Callable[[GPUSample], float | None]


def _scaled(value: int | None, divisor: float) -> float | None:
    return None if value is None else value / divisor


def _active_links(gpu: GPUSample) -> int | None:
    return None if gpu.nvlinks is None else sum(1 for link in gpu.nvlinks if link.active)


_GAUGES: tuple[tuple[str, str, _Read], ...] = (
    ("temperature_celsius", "Temperature of the GPU.", lambda gpu: gpu.temperature_celsius),
    ("memory_temperature_celsius", "Temperature of its memory.", lambda gpu: gpu.memory_temperature_celsius),
    ("thermal_margin_celsius", "Degrees left until it slows down.", lambda gpu: gpu.thermal_margin_celsius),
    ("power_watts", "Power drawn.", lambda gpu: _scaled(gpu.power_milliwatts, 1000)),
    ("power_limit_watts", "Enforced power limit.", lambda gpu: _scaled(gpu.power_limit_milliwatts, 1000)),
    ("utilization_ratio", "Share of time with a kernel running.", lambda gpu: _scaled(gpu.utilization_percent, 100)),
    (
        "memory_utilization_ratio",
        "Share of time in which memory was read or written.",
        lambda gpu: _scaled(gpu.memory_utilization_percent, 100),
    ),
    ("encoder_utilization_ratio", "Load of video encoders.", lambda gpu: _scaled(gpu.encoder_utilization_percent, 100)),
    ("decoder_utilization_ratio", "Load of video decoders.", lambda gpu: _scaled(gpu.decoder_utilization_percent, 100)),
    ("memory_used_bytes", "Memory in use.", lambda gpu: gpu.memory_used_bytes),
    ("memory_reserved_bytes", "Memory that driver and firmware keep.", lambda gpu: gpu.memory_reserved_bytes),
    ("memory_total_bytes", "Memory.", lambda gpu: gpu.memory_total_bytes),
    ("sm_clock_hertz", "Clock of the streaming multiprocessors.", lambda gpu: _scaled(gpu.sm_clock_mhz, 1e-6)),
    ("memory_clock_hertz", "Clock of the memory.", lambda gpu: _scaled(gpu.memory_clock_mhz, 1e-6)),
    ("remap_pending", "1: a memory row is remapped at the next reset.", lambda gpu: gpu.remap_pending),
    ("remap_failure", "1: a memory row could not be remapped.", lambda gpu: gpu.remap_failure),
    ("pcie_generation", "PCIe generation now; it drops at idle.", lambda gpu: (gpu.pcie or _NO_PCIE).generation),
    ("pcie_width", "PCIe lanes now.", lambda gpu: (gpu.pcie or _NO_PCIE).width),
    ("nvlinks_active", "NVLinks that are up.", _active_links),
    ("processes", "Processes that use the GPU.", lambda gpu: None if gpu.processes is None else len(gpu.processes)),
)  # fmt: skip
_COUNTERS: tuple[tuple[str, str, _Read], ...] = (
    ("remapped_rows_correctable", "Rows remapped for corrected errors.", lambda gpu: gpu.remapped_rows_corrected),
    ("remapped_rows_uncorrectable", "Rows remapped for others.", lambda gpu: gpu.remapped_rows_uncorrected),
    ("energy_joules", "Energy drawn since the driver was loaded.", lambda gpu: _scaled(gpu.energy_millijoules, 1000)),
    ("pcie_replays", "PCIe replays.", lambda gpu: (gpu.pcie or _NO_PCIE).replays),
)
_ECC: tuple[tuple[str, str, _Read], ...] = (
    ("corrected", "volatile", lambda gpu: gpu.ecc_corrected_volatile),
    ("uncorrected", "volatile", lambda gpu: gpu.ecc_uncorrected_volatile),
    ("corrected", "aggregate", lambda gpu: gpu.ecc_corrected_aggregate),
    ("uncorrected", "aggregate", lambda gpu: gpu.ecc_uncorrected_aggregate),
)
_THROTTLED: tuple[tuple[str, Callable[[GPUSample], int | None]], ...] = (
    ("software_thermal", lambda gpu: (gpu.throttle_times or _NO_TIMES).software_thermal),
    ("hardware_thermal", lambda gpu: (gpu.throttle_times or _NO_TIMES).hardware_thermal),
    ("hardware_power_brake", lambda gpu: (gpu.throttle_times or _NO_TIMES).hardware_power_brake),
)


def families(gpus: Sequence[GPUSample]) -> Iterator[Metric]:
    """All families; one with no series where no GPU supports it."""
    for name, text, read in _GAUGES:
        family: GaugeMetricFamily | CounterMetricFamily = GaugeMetricFamily(f"gpudiag_gpu_{name}", text, labels=LABELS)
        yield _filled(family, gpus, read)
    for name, text, read in _COUNTERS:
        yield _filled(CounterMetricFamily(f"gpudiag_gpu_{name}", text, labels=LABELS), gpus, read)
    yield _ecc(gpus)
    yield _throttled(gpus)
    yield _errors("pcie_errors", "PCIe errors by kind.", gpus, lambda gpu: [gpu.pcie.errors] if gpu.pcie else [])
    yield _errors(
        "nvlink_errors",
        "NVLink errors of all links, by kind.",
        gpus,
        lambda gpu: [link.errors for link in gpu.nvlinks or ()],
    )


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, gpus: Iterable[GPUSample], read: _Read
) -> GaugeMetricFamily | CounterMetricFamily:
    for gpu in gpus:
        value = read(gpu)
        if value is not None:
            family.add_metric([gpu.uuid, str(gpu.index)], value)
    return family


def _ecc(gpus: Iterable[GPUSample]) -> Metric:
    family = CounterMetricFamily(
        "gpudiag_gpu_ecc_errors",
        "Memory errors: volatile since the driver was loaded, aggregate over the life of the board.",
        labels=[*LABELS, "type", "scope"],
    )
    for gpu in gpus:
        for kind, scope, count in _ECC:
            errors = count(gpu)
            if errors is not None:
                family.add_metric([gpu.uuid, str(gpu.index), kind, scope], errors)
    return family


def _throttled(gpus: Iterable[GPUSample]) -> Metric:
    family = CounterMetricFamily(
        "gpudiag_gpu_throttled_seconds", "Time slowed down, by reason.", labels=[*LABELS, "reason"]
    )
    for gpu in gpus:
        for reason, read in _THROTTLED:
            nanoseconds = read(gpu)
            if nanoseconds is not None:
                family.add_metric([gpu.uuid, str(gpu.index), reason], nanoseconds / 1e9)
    return family


def _errors(
    name: str, text: str, gpus: Iterable[GPUSample], read: Callable[[GPUSample], Sequence[Mapping[str, int]]]
) -> Metric:
    family = CounterMetricFamily(f"gpudiag_gpu_{name}", text, labels=[*LABELS, "kind"])
    for gpu in gpus:
        total: Counter[str] = Counter()
        for counts in read(gpu):
            total.update(counts)
        for kind, count in sorted(total.items()):
            family.add_metric([gpu.uuid, str(gpu.index), kind], count)
    return family
