"""The operator's Prometheus metrics, in a registry of their own.

Series per node are computed from the store when somebody scrapes, so they can neither go stale nor outlive their node,
and the number of series is that of the nodes. Everything else has labels with a closed set of values.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
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
        states: gives every node; called in the scraping thread, so it must hand out a copy.
    """

    def __init__(self, states: Callable[[], Iterable[NodeState]]) -> None:
        self._states = states

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families of one scrape."""
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
        for state in self._states():
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
    """How long ago something was last heard of each watched resource.

    Args:
        ages: seconds by resource; None: nothing was heard yet.
    """

    def __init__(self, ages: Callable[[], Mapping[str, float | None]]) -> None:
        self._ages = ages

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The family of one scrape."""
        family = GaugeMetricFamily(
            "gpudiag_operator_watch_last_event_age_seconds",
            "Time since the last event or bookmark of a watch.",
            labels=["resource"],
        )
        for resource, age in self._ages().items():
            if age is not None:
                family.add_metric([resource], age)
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

    def watch_fleet(self, states: Callable[[], Iterable[NodeState]]) -> None:
        """Export the series of nodes and of the fleet."""
        self.registry.register(FleetCollector(states))

    def watch_ages(self, ages: Callable[[], Mapping[str, float | None]]) -> None:
        """Export the age of watches."""
        self.registry.register(AgeCollector(ages))

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
