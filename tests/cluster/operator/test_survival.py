"""The operator process through restarts, signals and outages of the API server."""

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cluster.operator.conftest import LONG_LEASES

if TYPE_CHECKING:
    from tests.cluster.operator.conftest import Rig

pytestmark = pytest.mark.cluster


def events(rig: "Rig", node: str) -> list[tuple[str, int]]:
    """Events about a GPUNode: (name, count)."""
    found = rig.kubectl.json("get", "events", "-n", "default", "--field-selector", f"involvedObject.name={node}")
    return sorted((event["metadata"]["name"], event.get("count", 1)) for event in found["items"])


def version(rig: "Rig", kind: str, name: str) -> str:
    where = ("-n", rig.namespace) if kind == "gpud" else ()
    found: str = rig.kubectl.json("get", kind, name, *where)["metadata"]["resourceVersion"]
    return found


@pytest.mark.slow
def test_killed_and_restarted_it_finds_the_same_state_and_writes_nothing(rig: "Rig") -> None:
    agent = rig.add_node("r1")
    rig.add_node("r2", agent=False)
    rig.diagnostic("fleet")
    first = rig.start()
    rig.eventually(lambda: rig.status("fleet"))
    agent.lose_gpu()
    rig.eventually(lambda: rig.status("fleet")["verdict"] == "Unhealthy")
    rig.eventually(lambda: rig.health("r2") == ("Unknown", "AgentMissing"))
    rig.eventually(lambda: first.metric("gpudiag_operator_queue_depth") == 0)
    rig.eventually(lambda: events(rig, "r1"))
    before = (
        version(rig, "gpunode", "r1"),
        version(rig, "gpunode", "r2"),
        version(rig, "gpud", "fleet"),
        events(rig, "r1"),
    )
    first.kill()
    second = rig.start()
    rig.eventually(lambda: second.metric("gpudiag_operator_collect_seconds_count") > 0)
    rig.steadily(lambda: second.metric("gpudiag_operator_writes_total") == 0, 4)
    after = (
        version(rig, "gpunode", "r1"),
        version(rig, "gpunode", "r2"),
        version(rig, "gpud", "fleet"),
        events(rig, "r1"),
    )
    assert after == before


@pytest.mark.slow
def test_an_open_breaker_outlives_the_process(rig: "Rig") -> None:
    agent = rig.add_node("s1")
    flags = ("--breaker-failures", "1", "--breaker-open", "1m")
    first = rig.start(*flags)
    rig.eventually(lambda: rig.health("s1")[0] == "Healthy")
    agent.close()
    rig.eventually(lambda: rig.gpunode("s1")["status"]["breaker"]["state"] == "Open")
    rig.eventually(lambda: rig.health("s1")[0] == "Unknown")
    first.kill()
    calls = agent.requests
    second = rig.start(*flags)
    rig.eventually(lambda: second.metric('gpudiag_circuit_breaker_state{node="s1"}') == 1)
    assert agent.requests == calls


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_at_once_with_status_0_and_without_a_murmur(rig: "Rig", number: signal.Signals) -> None:
    rig.add_node(f"t{number}")
    rig.diagnostic("fleet")
    operator = rig.start()
    rig.eventually(lambda: rig.status("fleet"))
    began = time.monotonic()
    operator.process.send_signal(number)
    assert operator.process.wait(10) == 0
    assert time.monotonic() - began < 5
    said = operator.records()
    assert said[-1]["message"] == "stopped"
    assert [line for line in said if line["level"] in ("error", "critical")] == []
    assert "never retrieved" not in operator.log.read_text()
    assert "was destroyed but it is pending" not in operator.log.read_text()


def test_a_port_that_is_taken_is_said_and_ends_it(rig: "Rig") -> None:
    first = rig.start()
    port = first.url.rpartition(":")[2]
    second = rig.start("--metrics-addr", f"127.0.0.1:{port}", ready=False)
    rig.operators.remove(second)
    assert second.process.wait(20) == 1
    assert "--metrics-addr" in second.log.read_text()


@pytest.mark.slow
def test_an_outage_of_the_api_server_is_survived_in_the_same_process(fragile_rig: "Rig") -> None:
    rig = fragile_rig
    agent = rig.add_node("u1")
    rig.diagnostic("fleet", interval="5s")
    operator = rig.start(*LONG_LEASES)
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Healthy")
    rig.plane.stop_apiserver()
    agent.lose_gpu()
    rig.eventually(lambda: operator.metric('gpudiag_node_health{node="u1"}') == 3)
    rig.steadily(lambda: operator.get("/healthz")[0] == 200, 3)
    rig.plane.start_apiserver()
    rig.eventually(lambda: rig.health("u1") == ("Unhealthy", "FallenOffBus"), 40)
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Unhealthy", 40)
    rig.diagnostic("later")
    rig.eventually(lambda: rig.status("later").get("verdict") == "Unhealthy", 40)
    assert operator.process.poll() is None


@pytest.mark.slow
def test_it_waits_for_an_api_server_that_is_away_at_the_start(fragile_rig: "Rig") -> None:
    rig = fragile_rig
    rig.add_node("v1")
    rig.diagnostic("fleet")
    rig.plane.stop_apiserver()
    told_to_stop = rig.start(ready=False)
    operator = rig.start(ready=False)
    rig.eventually(lambda: operator.get("/healthz")[0] == 200)
    assert operator.get("/readyz")[0] == 503
    rig.eventually(lambda: "waiting for the API server" in told_to_stop.log.read_text())
    status, seconds = told_to_stop.stop()
    assert (status, seconds < 5) == (0, True)
    rig.plane.start_apiserver()
    rig.eventually(lambda: operator.get("/readyz")[0] == 200)
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Healthy")


@pytest.mark.slow
def test_kinds_that_are_not_installed_are_waited_for_and_their_end_is_the_operators(
    fragile_rig: "Rig", tmp_path: Path
) -> None:
    rig = fragile_rig
    rig.kubectl("delete", "crd", "gpudiagnostics.gpudiag.dev")
    operator = rig.start(ready=False)
    rig.eventually(lambda: "apply the CustomResourceDefinitions" in operator.log.read_text())
    rig.install()
    rig.eventually(lambda: operator.get("/readyz")[0] == 200)
    rig.diagnostic("fleet")
    rig.eventually(lambda: rig.status("fleet"))
    rig.operators.remove(operator)
    rig.kubectl("delete", "crd", "gpudiagnostics.gpudiag.dev")
    assert operator.process.wait(60) == 1
    assert operator.records()[-1]["level"] == "critical"
