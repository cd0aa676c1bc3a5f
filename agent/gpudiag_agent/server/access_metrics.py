"""Metrics of tokens and TLS: only of what is switched on."""

from collections import Counter as Tally
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gpudiag_agent.auth import gate
from gpudiag_agent.serving import Serving

REVIEWS = (gate.ALLOWED, gate.REFUSED, gate.UNAVAILABLE)


class AccessMetrics(Collector):
    """Counts what becomes of tokens.

    Args:
        serving: has the certificate and the listener.
        tokens: whether tokens are asked for.
    """

    def __init__(self, serving: Serving, *, tokens: bool) -> None:
        self._serving = serving
        self._tokens = tokens
        self._requests: Tally[str] = Tally()
        self._reviews: Tally[str] = Tally()

    def asked(self, result: str) -> None:
        """Count a request; ``result`` is one of ``gate.RESULTS``."""
        self._requests[result] += 1

    def reviewed(self, result: str) -> None:
        """Count a review; ``result`` is one of ``REVIEWS``."""
        self._reviews[result] += 1

    def describe(self) -> Iterable[Metric]:
        """Nothing: the series depend on what is switched on."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All series of this moment."""
        if self._tokens:
            requests = CounterMetricFamily(
                "gpudiag_agent_authentications",
                "Requests that needed a token, by what became of it.",
                labels=["result"],
            )
            for result in gate.RESULTS:
                requests.add_metric([result], self._requests[result])
            reviews = CounterMetricFamily(
                "gpudiag_agent_token_reviews", "TokenReviews by the API server's answer.", labels=["result"]
            )
            for result in REVIEWS:
                reviews.add_metric([result], self._reviews[result])
            yield from (requests, reviews)
        if (certificates := self._serving.certificates) is not None:
            yield GaugeMetricFamily(
                "gpudiag_agent_tls_last_reload_successful",
                "0: the files of --tls-cert-dir as they are now are not used, see the log.",
                value=certificates.problem is None,
            )
        if (listener := self._serving.listener) is not None:
            yield CounterMetricFamily(
                "gpudiag_agent_tls_failed_handshakes",
                "Clients that gave no TLS, the wrong one, or took too long.",
                value=listener.failed_handshakes,
            )
            yield CounterMetricFamily(
                "gpudiag_agent_tls_turned_away",
                "Connections closed at once: too many, or no certificate yet.",
                value=listener.turned_away,
            )
