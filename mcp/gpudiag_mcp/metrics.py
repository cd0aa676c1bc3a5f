"""What the facade counts. A registry of its own, so that two servers in one process do not meet."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gpudiag_api.vocabulary import BreakerState
from gpudiag_mcp.objects.node import GPUNode

_SECONDS = (0.001, 0.005, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_BYTES = (256, 1024, 4096, 8192, 16384, 32768)
_HEALTH = {"Healthy": 1, "Degraded": 1, "Unhealthy": 0}
_BREAKER = {str(state): state.metric for state in BreakerState}


class Metrics:
    """The metrics of one server; ``registry`` is what a scrape shows.

    Args:
        nodes: the GPUNodes that are known now, for the series per node; looking must not open anything.
    """

    def __init__(self, nodes: Callable[[], Iterable[GPUNode]] = tuple) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "mcp_requests", "Tool calls by outcome: ok, refused, error.", ["tool", "status"], registry=self.registry
        )
        self.duration = Histogram(
            "mcp_request_duration_seconds", "Time of tool calls.", ["tool"], buckets=_SECONDS, registry=self.registry
        )
        self.active = Gauge("mcp_active_requests", "Tool calls at work.", registry=self.registry)
        self.response_bytes = Histogram(
            "mcp_response_bytes", "Size of results.", ["tool"], buckets=_BYTES, registry=self.registry
        )
        self.cache = Counter("mcp_cache_requests", "Uses of the cache.", ["result"], registry=self.registry)
        self.auth_attempts = Counter("mcp_auth_attempts", "Tokens looked at.", registry=self.registry)
        self.auth_failures = Counter("mcp_auth_failures", "Tokens refused.", ["reason"], registry=self.registry)
        self.rate_limited = Counter(
            "mcp_rate_limited",
            "Refused for their rate: tool calls (call), HTTP requests (request), requests at once (concurrency).",
            ["what"],
            registry=self.registry,
        )
        self.sessions = Gauge(
            "mcp_sessions_active", "Open sessions; HTTP is stateless and has none.", registry=self.registry
        )
        self.session_duration = Histogram(
            "mcp_session_duration_seconds",
            "Length of sessions.",
            buckets=(1, 10, 60, 600, 3600),
            registry=self.registry,
        )
        self.registry.register(_Nodes(nodes))

    def cache_used(self, *, hit: bool) -> None:
        """See ``cache.pool.CacheMetrics``."""
        self.cache.labels("hit" if hit else "miss").inc()


class _Nodes(Collector):
    """Health and breaker per node, read from the cache at scrape time: a node that is gone has no series."""

    def __init__(self, nodes: Callable[[], Iterable[GPUNode]]) -> None:
        self._nodes = nodes

    def collect(self) -> Iterator[GaugeMetricFamily]:
        health = GaugeMetricFamily(
            "mcp_node_health", "1 Healthy or Degraded, 0 Unhealthy, absent when Unknown.", labels=["node"]
        )
        breaker = GaugeMetricFamily("mcp_circuit_breaker_state", "0 closed, 1 open, 2 half-open.", labels=["node"])
        seen: set[str] = set()
        for node in self._nodes():
            if node.name in seen:
                continue  # several clusters may have a node of that name; the first one counts
            seen.add(node.name)
            if node.status.health in _HEALTH:
                health.add_metric([node.name], _HEALTH[node.status.health])
            if node.status.breaker.state in _BREAKER:
                breaker.add_metric([node.name], _BREAKER[node.status.breaker.state])
        yield health
        yield breaker
