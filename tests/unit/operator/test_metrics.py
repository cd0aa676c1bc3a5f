"""Metrics: names of the design, bounded labels, series of nodes from the store at the time of the scrape."""

from prometheus_client.exposition import generate_latest

from gpudiag_api.version import __version__
from gpudiag_api.vocabulary import BreakerState, Health, NotRead
from gpudiag_api.wire import GPU
from gpudiag_operator.domain import BreakerSnapshot, Failure, NodeState
from gpudiag_operator.observability.metrics import CollectStats, Metrics


def scrape(metrics: Metrics) -> dict[str, float]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def gpu(index: int, health: Health) -> GPU:
    return GPU(index=index, uuid=f"GPU-{index}", pci="0000:01:00.0", health=health)


def test_series_of_nodes_come_and_go_with_the_nodes() -> None:
    metrics, states = Metrics(), [NodeState(name="n1", health=Health.HEALTHY, gpus=(gpu(0, Health.HEALTHY),))]
    metrics.watch_fleet(lambda: states)
    found = scrape(metrics)
    assert found['gpudiag_node_health{node="n1"}'] == 0
    assert found['gpudiag_circuit_breaker_state{node="n1"}'] == 0
    assert found['gpudiag_fleet_nodes{health="Healthy"}'] == 1
    assert found['gpudiag_fleet_gpus{health="Unhealthy"}'] == 0
    states.clear()
    found = scrape(metrics)
    assert not any('node="n1"' in name for name in found)
    assert found['gpudiag_fleet_nodes{health="Healthy"}'] == 0


def test_gpus_of_a_node_that_is_not_read_are_unknown() -> None:
    failure = Failure(reason=NotRead.TIMEOUT, message="", since=0)
    state = NodeState(
        name="n1",
        health=Health.UNKNOWN,
        gpus=(gpu(0, Health.HEALTHY), gpu(1, Health.UNHEALTHY)),
        failure=failure,
        breaker=BreakerSnapshot(state=BreakerState.HALF_OPEN),
    )
    metrics = Metrics()
    metrics.watch_fleet(lambda: [state])
    found = scrape(metrics)
    assert found['gpudiag_fleet_gpus{health="Unknown"}'] == 2
    assert found['gpudiag_circuit_breaker_state{node="n1"}'] == 2
    assert found['gpudiag_node_health{node="n1"}'] == 2


def test_calls_breakers_and_writes_are_counted() -> None:
    metrics = Metrics()
    metrics.call_finished("OK", 0.01)
    metrics.call_finished("NotModified", 30)
    metrics.call_finished("Timeout", 5)
    metrics.breaker_changed("n1", 0)
    metrics.breaker_changed("n1", 1)
    metrics.breaker_changed("n1", 2)
    metrics.node_removed("n1")
    metrics.breaker_changed("n1", 0)
    metrics.rejected()
    metrics.written("gpunodes", "patch")
    metrics.listed("nodes", 3)
    metrics.watch_failed("nodes", "Gone")
    metrics.watch_depth("gpunodes", lambda: 7)
    metrics.watch_ages(lambda: {"nodes": 1.5, "pods": None}, lambda: {"nodes": 0.0, "gpunodes": 9.5})
    metrics.watch_collection(lambda: CollectStats(calls={"sent": 5}, opened=6, waiting=1, waits=2, waited_seconds=0.5))
    found = scrape(metrics)
    assert found["gpudiag_operator_collect_seconds_count"] == 3
    assert found['gpudiag_operator_collect_failures_total{reason="Timeout"}'] == 1
    assert found['gpudiag_operator_collect_failures_total{reason="ConnectionRefused"}'] == 0
    assert found['gpudiag_circuit_breaker_transitions_total{state="open"}'] == 1
    assert found['gpudiag_circuit_breaker_transitions_total{state="half-open"}'] == 1
    assert found['gpudiag_circuit_breaker_transitions_total{state="closed"}'] == 0
    assert found["gpudiag_circuit_breaker_rejections_total"] == 1
    assert found['gpudiag_operator_writes_total{resource="gpunodes",verb="patch"}'] == 1
    assert found['gpudiag_operator_watch_failures_total{reason="Gone",resource="nodes"}'] == 1
    assert found['gpudiag_operator_queue_depth{queue="gpunodes"}'] == 7
    assert found['gpudiag_operator_watch_last_event_age_seconds{resource="nodes"}'] == 1.5
    assert not any('resource="pods"' in name for name in found)
    assert found['gpudiag_operator_index_lag_seconds{resource="gpunodes"}'] == 9.5
    assert found['gpudiag_operator_collect_calls{stage="sent"}'] == 5
    assert found["gpudiag_operator_collect_connections_opened_total"] == 6
    assert found["gpudiag_operator_collect_waiting"] == 1
    assert found["gpudiag_operator_collect_waits_total"] == 2
    assert found["gpudiag_operator_collect_wait_seconds_total"] == 0.5
    assert found[f'gpudiag_operator_build_info{{version="{__version__}"}}'] == 1
