"""Metrics. GPU series are built from the latest sample at each scrape: a GPU that is gone leaves no series behind."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gpudiag_agent.assess import Assessor
from gpudiag_agent.clock import Clock
from gpudiag_agent.publisher import Publisher
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api.vocabulary import Check, Health
from gpudiag_api.wire import Report

_LABELS = ["uuid", "gpu"]
_GAUGES: tuple[tuple[str, str, Callable[[GPUSample], float | None]], ...] = (
    ("temperature_celsius", "Temperature of the GPU.", lambda gpu: gpu.temperature_celsius),
    ("memory_temperature_celsius", "Temperature of its memory.", lambda gpu: gpu.memory_temperature_celsius),
    ("thermal_margin_celsius", "Degrees left until it slows down.", lambda gpu: gpu.thermal_margin_celsius),
    ("power_watts", "Power drawn.", lambda gpu: _scaled(gpu.power_milliwatts, 1000)),
    ("power_limit_watts", "Enforced power limit.", lambda gpu: _scaled(gpu.power_limit_milliwatts, 1000)),
    ("utilization_ratio", "Share of time with a kernel running.", lambda gpu: _scaled(gpu.utilization_percent, 100)),
    ("memory_used_bytes", "Memory in use.", lambda gpu: gpu.memory_used_bytes),
    ("memory_total_bytes", "Memory.", lambda gpu: gpu.memory_total_bytes),
    ("sm_clock_hertz", "Clock of the streaming multiprocessors.", lambda gpu: _scaled(gpu.sm_clock_mhz, 1e-6)),
    ("remap_pending", "1: a memory row is remapped at the next reset.", lambda gpu: gpu.remap_pending),
    ("remap_failure", "1: a memory row could not be remapped.", lambda gpu: gpu.remap_failure),
)  # fmt: skip
_ECC: tuple[tuple[str, str, Callable[[GPUSample], int | None]], ...] = (
    ("corrected", "volatile", lambda gpu: gpu.ecc_corrected_volatile),
    ("uncorrected", "volatile", lambda gpu: gpu.ecc_uncorrected_volatile),
    ("uncorrected", "aggregate", lambda gpu: gpu.ecc_uncorrected_aggregate),
)
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The agent's own registry, what it counts, and its page.

    Args:
        assessor: has the latest sample and the XIDs.
        publisher: has the latest report.
        clock: for ages.
        lost_records: how many records of the kernel log were overwritten unread.
    """

    def __init__(
        self, *, assessor: Assessor, publisher: Publisher, clock: Clock, lost_records: Callable[[], int]
    ) -> None:
        # Their "created" series are one more per counter, and nobody asks for them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Node(assessor, publisher, clock, lost_records))
        self._requests = Counter(
            "gpudiag_agent_http_requests", "Answers by path and status.", ["path", "code"], registry=self._registry
        )
        self._samples = Counter(
            "gpudiag_agent_samples", "Looks at the GPUs by result.", ["result"], registry=self._registry
        )
        self._duration = Histogram(
            "gpudiag_agent_sample_duration_seconds",
            "How long a look at the GPUs took.",
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def answered(self, path: str, status: int) -> None:
        """Count an HTTP answer."""
        self._requests.labels(path, str(status)).inc()

    def sampled(self, seconds: float, sample: Sample | None) -> None:
        """Count a look at the GPUs."""
        self._duration.observe(seconds)
        self._samples.labels(_result(sample)).inc()

    def page(self) -> bytes:
        """The page in the Prometheus text format."""
        return generate_latest(self._registry)


class _Node(Collector):
    """Series made from the latest sample and report."""

    def __init__(self, assessor: Assessor, publisher: Publisher, clock: Clock, lost_records: Callable[[], int]) -> None:
        self._assessor = assessor
        self._publisher = publisher
        self._clock = clock
        self._lost_records = lost_records

    def describe(self) -> Iterable[Metric]:
        """Nothing: the series depend on the GPUs there are."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All series of this moment."""
        sample = self._assessor.sample
        yield from _measured(sample.gpus if sample is not None else ())
        yield self._xids()
        report = self._publisher.current.report if self._publisher.current else None
        if report is not None:
            yield from _judged(report)
        yield from self._agent(sample)

    def _xids(self) -> Metric:
        family = CounterMetricFamily(
            "gpudiag_gpu_xid_events", "XID errors in the kernel log since boot.", labels=["uuid", "pci", "xid"]
        )
        uuids = {gpu.pci: gpu.uuid for gpu in self._assessor.sample.gpus} if self._assessor.sample else {}
        for (pci, code), count in self._assessor.ledger.totals.items():
            uuid = uuids.get(pci) or self._assessor.ledger.uuids.get(pci, "")
            family.add_metric([uuid, pci, str(code)], count)
        return family

    def _agent(self, sample: Sample | None) -> Iterator[Metric]:
        yield _single("gpudiag_agent_waiting_requests", "Long polls that wait now.", self._publisher.waiting)
        yield CounterMetricFamily(
            "gpudiag_agent_kernel_log_lost_records",
            "Records of the kernel log that were overwritten unread.",
            value=self._lost_records(),
        )
        answered_at = self._assessor.answered_at
        if answered_at is not None:
            age = max(self._clock.now() - answered_at, 0.0)
            yield _single("gpudiag_agent_sample_age_seconds", "Time since NVML last answered.", age)
        up = GaugeMetricFamily("gpudiag_agent_check_up", "1: the check has what it needs to judge.", labels=["check"])
        success = GaugeMetricFamily(
            "gpudiag_agent_check_last_success_timestamp_seconds",
            "When the check could last judge, Unix time.",
            labels=["check"],
        )
        log = self._assessor.kernel_log_problem is None
        sees = sample is not None and sample.fault is None
        for check in Check:
            able = log if check is Check.XID else sees
            up.add_metric([str(check)], able)
            when = self._clock.now() if check is Check.XID and log else answered_at
            if when is not None and (check is not Check.XID or log):
                success.add_metric([str(check)], when)
        yield from (up, success)


def _measured(gpus: Iterable[GPUSample]) -> Iterator[Metric]:
    gpus = tuple(gpus)
    for name, text, read in _GAUGES:
        family = GaugeMetricFamily(f"gpudiag_gpu_{name}", text, labels=_LABELS)
        for gpu in gpus:
            value = read(gpu)
            if value is not None:  # Unsupported is absent, never zero.
                family.add_metric([gpu.uuid, str(gpu.index)], value)
        yield family
    ecc = CounterMetricFamily(
        "gpudiag_gpu_ecc_errors",
        "Memory errors: volatile since the driver was loaded, aggregate over the life of the board.",
        labels=[*_LABELS, "type", "scope"],
    )
    for gpu in gpus:
        for kind, scope, count in _ECC:
            errors = count(gpu)
            if errors is not None:
                ecc.add_metric([gpu.uuid, str(gpu.index), kind, scope], errors)
    yield ecc


def _judged(report: Report) -> Iterator[Metric]:
    info = GaugeMetricFamily("gpudiag_gpu_info", "Identity of a GPU.", labels=[*_LABELS, "pci", "model"])
    health = GaugeMetricFamily("gpudiag_gpu_health", "1 for the GPU's health.", labels=[*_LABELS, "health"])
    for gpu in report.gpus:
        info.add_metric([gpu.uuid, str(gpu.index), gpu.pci, gpu.model], 1)
        for state in Health:
            health.add_metric([gpu.uuid, str(gpu.index), str(state)], gpu.health == state)
    findings = GaugeMetricFamily(
        "gpudiag_gpu_finding", "1 for every finding.", labels=[*_LABELS, "check", "reason", "severity"]
    )
    seen = set()
    for finding in report.findings:
        subject = finding.subject
        index = "" if subject.gpu_index is None else str(subject.gpu_index)
        labels = (subject.gpu_uuid or "", index, finding.check, finding.reason, str(finding.severity))
        if labels not in seen:
            seen.add(labels)
            findings.add_metric(labels, 1)
    yield from (info, health, findings)
    driver = GaugeMetricFamily("gpudiag_agent_info", "Versions.", labels=["version", "driver", "cuda", "source"])
    versions = [report.agent.version, report.driver.version or "", report.driver.cuda_version or ""]
    driver.add_metric([*versions, str(report.agent.source)], 1)
    yield driver


def _result(sample: Sample | None) -> str:
    if sample is None:
        return "Error"
    return "OK" if sample.fault is None else str(sample.fault.reason)


def _single(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _scaled(value: int | None, divisor: float) -> float | None:
    return None if value is None else value / divisor
