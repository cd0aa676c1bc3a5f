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
from gpudiag_agent.sample import Sample
from gpudiag_agent.server import conditions, dcgm, measured
from gpudiag_agent.server.measured import LABELS
from gpudiag_api.vocabulary import Health
from gpudiag_api.wire import Report

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The agent's own registry, what it counts, and its page.

    Args:
        assessor: has the latest sample and the XIDs.
        publisher: has the latest report.
        clock: for ages.
        lost_records: how many records of the kernel log were overwritten unread.
        failed_state_writes: how often what must survive a restart could not be written.
        dcgm_host_label: name of the host label of series with dcgm-exporter's names; None: no such series.
    """

    def __init__(
        self,
        *,
        assessor: Assessor,
        publisher: Publisher,
        clock: Clock,
        lost_records: Callable[[], int],
        failed_state_writes: Callable[[], int] = lambda: 0,
        dcgm_host_label: str | None = None,
    ) -> None:
        # Their "created" series are one more per counter, and nobody asks for them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Node(assessor, publisher, clock, lost_records, failed_state_writes, dcgm_host_label))
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

    def add(self, collector: Collector) -> None:
        """Serve more series."""
        self._registry.register(collector)

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

    def __init__(
        self,
        assessor: Assessor,
        publisher: Publisher,
        clock: Clock,
        lost_records: Callable[[], int],
        failed_state_writes: Callable[[], int],
        dcgm_host_label: str | None,
    ) -> None:
        self._assessor = assessor
        self._publisher = publisher
        self._clock = clock
        self._lost_records = lost_records
        self._failed_state_writes = failed_state_writes
        self._dcgm = dcgm_host_label

    def describe(self) -> Iterable[Metric]:
        """Nothing: the series depend on the GPUs there are."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All series of this moment."""
        sample = self._assessor.sample
        yield from measured.families(sample.gpus if sample is not None else ())
        yield self._xids()
        report = self._publisher.current.report if self._publisher.current else None
        if report is not None:
            yield from _judged(report)
            if sample is not None:
                yield conditions.family(report, sample, self._assessor.standings)
            if self._dcgm is not None and sample is not None:
                yield from self._as_dcgm(sample, report, self._dcgm)
        yield from self._agent()

    def _xids(self) -> Metric:
        family = CounterMetricFamily(
            "gpudiag_gpu_xid_events", "XID and SXid errors heard by this agent.", labels=["uuid", "pci", "xid"]
        )
        uuids = {gpu.pci: gpu.uuid for gpu in self._assessor.sample.gpus} if self._assessor.sample else {}
        for (pci, code), count in self._assessor.ledger.totals.items():
            uuid = uuids.get(pci) or self._assessor.ledger.uuids.get(pci, "")
            family.add_metric([uuid, pci, str(code)], count)
        return family

    def _as_dcgm(self, sample: Sample, report: Report, host_label: str) -> Iterator[Metric]:
        last = {event.subject.gpu_uuid: event.code for event in reversed(report.xids) if event.subject.gpu_uuid}
        return dcgm.series(
            sample,
            node_name=report.agent.node_name,
            allocations=report.allocations,
            last_xids=last,
            host_label=host_label,
        )

    def _agent(self) -> Iterator[Metric]:
        yield _single("gpudiag_agent_waiting_requests", "Long polls that wait now.", self._publisher.waiting)
        yield CounterMetricFamily(
            "gpudiag_agent_kernel_log_lost_records",
            "Records of the kernel log that were overwritten unread.",
            value=self._lost_records(),
        )
        yield CounterMetricFamily(
            "gpudiag_agent_state_write_failures",
            "Writes to --state-dir that failed: after a restart the agent begins where it last wrote.",
            value=self._failed_state_writes(),
        )
        yield _single(
            "gpudiag_agent_config_last_reload_successful",
            "0: the thresholds file as it is now is not used, see the log; those before it are.",
            self._assessor.thresholds_problem is None,
        )
        answered_at = self._assessor.answered_at
        if answered_at is not None:
            age = max(self._clock.now() - answered_at, 0.0)
            yield _single("gpudiag_agent_sample_age_seconds", "Time since NVML last answered.", age)
        yield from self._checks()

    def _checks(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("gpudiag_agent_check_up", "1: every source that it needs speaks.", labels=["check"])
        success = GaugeMetricFamily(
            "gpudiag_agent_check_last_success_timestamp_seconds",
            "When every source that it needs last spoke, Unix time.",
            labels=["check"],
        )
        for check, standing in self._assessor.standings.all():
            up.add_metric([str(check)], standing.up)
            if standing.last_success is not None:
                success.add_metric([str(check)], standing.last_success)
        yield from (up, success)


def _judged(report: Report) -> Iterator[Metric]:
    info = GaugeMetricFamily("gpudiag_gpu_info", "Identity of a GPU.", labels=[*LABELS, "pci", "model"])
    health = GaugeMetricFamily("gpudiag_gpu_health", "1 for the GPU's health.", labels=[*LABELS, "health"])
    scores = GaugeMetricFamily("gpudiag_gpu_health_score", "Health score, 0 to 100.", labels=LABELS)
    for gpu in report.gpus:
        if gpu.score is not None:
            scores.add_metric([gpu.uuid, str(gpu.index)], gpu.score)
        info.add_metric([gpu.uuid, str(gpu.index), gpu.pci, gpu.model], 1)
        for state in Health:
            health.add_metric([gpu.uuid, str(gpu.index), str(state)], gpu.health == state)
    findings = GaugeMetricFamily(
        "gpudiag_gpu_finding", "1 for every finding.", labels=[*LABELS, "check", "reason", "severity"]
    )
    seen = set()
    for finding in report.findings:
        subject = finding.subject
        index = "" if subject.gpu_index is None else str(subject.gpu_index)
        labels = (subject.gpu_uuid or "", index, finding.check, finding.reason, str(finding.severity))
        if labels not in seen:
            seen.add(labels)
            findings.add_metric(labels, 1)
    yield from (info, health, scores, findings)
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
