"""The operator's Prometheus metrics, in a registry of their own.

Series per node are computed from the store when somebody scrapes, so they can neither go stale nor outlive their node,
and the number of series is that of the nodes. Everything else has labels with a closed set of values.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gpudiag_api.version import __version__
from gpudiag_api.vocabulary import Health, NotRead
from gpudiag_operator.domain import NodeState

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 40.0)
_CLOSED = 0
_BREAKER_NAMES = {0: "closed", 1: "open", 2: "half-open"}


class FleetCollector(Collector):
    """Series of nodes and of the fleet, from the assessed nodes.

    Args:
        states: gives every node; called in the scraping thread, so it must hand out a copy. None: the nodes are
            another's to export.
    """

    def __init__(self, states: Callable[[], Iterable[NodeState] | None]) -> None:
        self._states = states

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families of one scrape."""
        states = self._states()
        if states is None:
            return
        breaker = GaugeMetricFamily(
            "gpudiag_circuit_breaker_state",
            "Circuit breaker of a node: 0 closed, 1 open, 2 half-open.",
            labels=["node"],
        )
        health = GaugeMetricFamily(
            "gpudiag_node_health", "Health of a node: 0 Healthy, 1 Degraded, 2 Unknown, 3 Unhealthy.", labels=["node"]
        )
        nodes: Tally[Health] = Tally()
        gpus: Tally[Health] = Tally()
        for state in states:
            breaker.add_metric([state.name], state.breaker.state.metric)
            health.add_metric([state.name], state.health.badness)
            nodes[state.health] += 1
            # The GPUs of a node that is not read are the last known ones; nobody knows how they are now.
            gpus.update(gpu.health if state.failure is None else Health.UNKNOWN for gpu in state.gpus)
        yield breaker
        yield health
        yield _by_health("gpudiag_fleet_nodes", "GPU nodes by health.", nodes)
        yield _by_health("gpudiag_fleet_gpus", "GPUs by health.", gpus)


def _by_health(name: str, help_text: str, counts: Mapping[Health, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_text, labels=["health"])
    for health in Health:
        family.add_metric([str(health)], counts[health])
    return family


class AgeCollector(Collector):
    """How long ago something was last heard of each watched resource, and for how long nothing could be.

    Args:
        ages: seconds by resource; None: nothing was heard yet.
        lags: seconds by resource since the copy may be behind; 0: it is not.
    """

    def __init__(self, ages: Callable[[], Mapping[str, float | None]], lags: Callable[[], Mapping[str, float]]) -> None:
        self._ages = ages
        self._lags = lags

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families of one scrape."""
        behind = GaugeMetricFamily(
            "gpudiag_operator_index_lag_seconds",
            "Time since a list or watch failed and nothing was heard after it; 0: the copy is current.",
            labels=["resource"],
        )
        for resource, lag in self._lags().items():
            behind.add_metric([resource], lag)
        yield behind
        family = GaugeMetricFamily(
            "gpudiag_operator_watch_last_event_age_seconds",
            "Time since the last event or bookmark of a watch.",
            labels=["resource"],
        )
        for resource, age in self._ages().items():
            if age is not None:
                family.add_metric([resource], age)
        yield family


class CollectStats(NamedTuple):
    """How reading the agents goes at one moment."""

    calls: Mapping[str, int]
    """Calls under way by stage."""
    opened: int
    """Connections opened since the start."""
    waiting: int
    """Calls that wait for the global limit now."""
    waits: int
    """How often a call had to wait for it since the start."""
    waited_seconds: float
    """For how long, all together."""


class CollectCollector(Collector):
    """Connections to agents and waits for the global limit.

    Args:
        stats: of the moment.
    """

    def __init__(self, stats: Callable[[], CollectStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """The families of one scrape."""
        stats = self._stats()
        calls = GaugeMetricFamily(
            "gpudiag_operator_collect_calls",
            "Calls to agents under way: connecting, sent (waiting for the first byte), body (being read).",
            labels=["stage"],
        )
        for stage, number in stats.calls.items():
            calls.add_metric([stage], number)
        yield calls
        yield CounterMetricFamily(
            "gpudiag_operator_collect_connections_opened", "Connections opened to agents.", value=stats.opened
        )
        yield GaugeMetricFamily(
            "gpudiag_operator_collect_waiting", "Calls that wait for the global limit.", value=stats.waiting
        )
        yield CounterMetricFamily(
            "gpudiag_operator_collect_waits", "Times a call waited for the global limit.", value=stats.waits
        )
        yield CounterMetricFamily(
            "gpudiag_operator_collect_wait_seconds",
            "Time that calls waited for the global limit.",
            value=stats.waited_seconds,
        )


class LeaseCollector(Collector):
    """Which Leases this process holds: over all replicas each sums up to 1, for a moment to 0.

    Args:
        leading: by Lease.
    """

    def __init__(self, leading: Callable[[], Mapping[str, bool]]) -> None:
        self._leading = leading

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The family of one scrape."""
        family = GaugeMetricFamily(
            "gpudiag_operator_leader", "1 while this process holds the Lease and may write, else 0.", labels=["lease"]
        )
        for lease, leads in self._leading().items():
            family.add_metric([lease], leads)
        yield family


class Metrics:
    """All metrics of one operator; implements the metrics Protocols of its parts."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._breakers: dict[str, int] = {}
        self._transitions = Counter(
            "gpudiag_circuit_breaker_transitions_total",
            "Changes of a node's circuit breaker, by the state entered.",
            ["state"],
            registry=self.registry,
        )
        self._rejections = Counter(
            "gpudiag_circuit_breaker_rejections_total",
            "Calls not made because a circuit breaker was open.",
            registry=self.registry,
        )
        self._seconds = Histogram(
            "gpudiag_operator_collect_seconds",
            "Time of one call to an agent; a long poll in which nothing happens takes 30 s.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._failures = Counter(
            "gpudiag_operator_collect_failures_total",
            "Calls to agents that failed, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._writes = Counter(
            "gpudiag_operator_writes_total",
            "Writes to the API server that it accepted.",
            ["resource", "verb"],
            registry=self.registry,
        )
        self._watch_failures = Counter(
            "gpudiag_operator_watch_failures_total",
            "Lists and watches that ended in a fault: Unavailable, Gone or the HTTP status.",
            ["resource", "reason"],
            registry=self.registry,
        )
        self._depth = Gauge(
            "gpudiag_operator_queue_depth", "Work that waits, by queue.", ["queue"], registry=self.registry
        )
        self._info = Gauge(
            "gpudiag_operator_build_info", "Always 1; the version is the label.", ["version"], registry=self.registry
        )
        self._info.labels(__version__).set(1)
        self._prepare()

    def _prepare(self) -> None:
        """Closed label sets start at zero, so that rates and alerts work from the first scrape on."""
        for state in _BREAKER_NAMES.values():
            self._transitions.labels(state)
        for reason in NotRead:
            self._failures.labels(str(reason))

    def watch_fleet(self, states: Callable[[], Iterable[NodeState] | None]) -> None:
        """Export the series of nodes and of the fleet."""
        self.registry.register(FleetCollector(states))

    def watch_leases(self, leading: Callable[[], Mapping[str, bool]]) -> None:
        """Export which Leases this process holds."""
        self.registry.register(LeaseCollector(leading))

    def watch_ages(
        self, ages: Callable[[], Mapping[str, float | None]], lags: Callable[[], Mapping[str, float]]
    ) -> None:
        """Export the age of watches, and how far their copies may be behind."""
        self.registry.register(AgeCollector(ages, lags))

    def watch_collection(self, stats: Callable[[], CollectStats]) -> None:
        """Export how reading the agents goes."""
        self.registry.register(CollectCollector(stats))

    def watch_depth(self, queue: str, depth: Callable[[], int]) -> None:
        """Export the depth of a queue."""
        self._depth.labels(queue).set_function(lambda: float(depth()))

    def call_finished(self, result: str, seconds: float) -> None:
        """A call to an agent ended (``collect.outcome.CollectMetrics``)."""
        self._seconds.observe(seconds)
        if result not in ("OK", "NotModified"):
            self._failures.labels(result).inc()

    def breaker_changed(self, node: str, state: int) -> None:
        """A breaker is new, or changed; the node is in the log and in the state's series, not in a label here."""
        if self._breakers.get(node, _CLOSED) != state:
            self._transitions.labels(_BREAKER_NAMES[state]).inc()
        self._breakers[node] = state

    def node_removed(self, node: str) -> None:
        """A node is no target any more."""
        self._breakers.pop(node, None)

    def rejected(self) -> None:
        """A call was not made because a breaker was open."""
        self._rejections.inc()

    def written(self, resource: str, verb: str) -> None:
        """The API server accepted a write."""
        self._writes.labels(resource, verb).inc()

    def listed(self, resource: str, count: int) -> None:
        """A complete list arrived (``kube.reflector.ReflectorMetrics``)."""

    def watch_failed(self, resource: str, reason: str) -> None:
        """A list or watch ended in a fault (``kube.reflector.ReflectorMetrics``)."""
        self._watch_failures.labels(resource, reason).inc()
