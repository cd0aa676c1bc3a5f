"""Several operator processes on the real API server: one acts, another takes over in time, and never do two write.

What a process wrote is told by the log of a proxy of its own, through which it reaches the API server.
"""

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.operator.conftest import OperatorProcess, Rig
from tests.cluster.operator.partition import Partition

pytestmark = pytest.mark.cluster

LEASE = "gpudiag-operator"
DEFAULTS = ("--lease-duration", "15s", "--renew-deadline", "10s", "--retry-period", "2s")


def lease(rig: Rig, name: str = LEASE) -> dict[str, Any]:
    """The spec of a Lease; empty when there is none."""
    said = rig.kubectl("get", "lease", name, "-n", rig.namespace, "-o", "json", check=False)
    found: dict[str, Any] = json.loads(said.stdout)["spec"] if said.returncode == 0 else {}
    return found


def leads(operator: OperatorProcess) -> bool:
    return operator.metric("gpudiag_operator_leader") == 1


def first_leads(rig: Rig, first: OperatorProcess) -> None:
    rig.eventually(lambda: leads(first))


def timed(condition: Callable[[], object], *, seconds: float, rig: Rig) -> float:
    """Seconds until it is true."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, rig.tail()
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.fixture
def partition(rig: Rig, tmp_path: Path) -> Iterator[Callable[[], Partition]]:
    made: list[Partition] = []

    def make() -> Partition:
        one = Partition(rig.plane, tmp_path / f"proxied-{len(made)}.kubeconfig")
        rig.thread.do(one.open())
        made.append(one)
        return one

    yield make
    for one in made:
        rig.thread.do(one.close())


def test_a_free_lease_is_taken_at_once_and_a_second_process_stands_by(rig: Rig) -> None:
    agent = rig.add_node("le-1")
    rig.diagnostic("fleet")
    first = rig.start()
    assert timed(lambda: leads(first), seconds=3, rig=rig) < 3
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Healthy")
    held = lease(rig)
    assert held["holderIdentity"]
    assert held["leaseTransitions"] == 0
    assert held["leaseDurationSeconds"] == 4
    rig.eventually(lambda: lease(rig)["renewTime"] > held["renewTime"])
    assert lease(rig)["acquireTime"] == held["acquireTime"]

    asked = agent.requests
    second = rig.start()
    status, body = second.get("/readyz")
    assert (status, json.loads(body)["role"]) == (200, "standby")
    assert json.loads(first.get("/readyz")[1])["role"] == LEASE
    rig.steadily(lambda: leads(first) and not leads(second), 5)
    assert second.metric("gpudiag_operator_writes_total") == 0
    assert second.metric("gpudiag_operator_collect_seconds_count") == 0
    assert agent.requests == asked, "a standby does not call agents"
    for series in ("gpudiag_node_", "gpudiag_fleet_", "gpudiag_circuit_breaker_state{"):
        assert series in first.get("/metrics")[1]
        assert series not in second.get("/metrics")[1]


def test_a_clean_stop_hands_over_within_2_s(rig: Rig) -> None:
    agent = rig.add_node("le-2")
    rig.diagnostic("fleet", interval="5s")
    first = rig.start(*DEFAULTS)
    first_leads(rig, first)
    second = rig.start(*DEFAULTS)
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Healthy")
    first.process.send_signal(signal.SIGTERM)
    assert timed(lambda: leads(second), seconds=5, rig=rig) <= 2
    assert first.process.wait(10) == 0
    assert lease(rig)["leaseTransitions"] == 1
    agent.lose_gpu()
    rig.eventually(lambda: rig.health("le-2") == ("Unhealthy", "FallenOffBus"))
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Unhealthy")


@pytest.mark.slow
def test_a_deposed_leader_that_slept_writes_nothing_and_ends(rig: Rig, partition: Callable[[], Partition]) -> None:
    agent = rig.add_node("le-3")
    rig.diagnostic("fleet", interval="5s")
    proxy = partition()
    first = rig.start("--kubeconfig", str(proxy.kubeconfig))
    first_leads(rig, first)
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Healthy")
    second = rig.start()
    first.process.send_signal(signal.SIGSTOP)
    agent.lose_gpu()
    rig.eventually(lambda: leads(second))
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Unhealthy")
    woken = time.monotonic()
    first.process.send_signal(signal.SIGCONT)
    rig.operators.remove(first)
    assert first.process.wait(15) == 1
    assert proxy.writes(since=woken, leases=False) == []
    assert "is held by" in first.records()[-1]["message"]


@pytest.mark.slow
def test_a_leader_cut_off_from_the_api_server_stops_writing_before_another_takes_over(
    rig: Rig, partition: Callable[[], Partition]
) -> None:
    agent = rig.add_node("le-4")
    rig.diagnostic("fleet", interval="5s")
    proxy = partition()
    first = rig.start("--kubeconfig", str(proxy.kubeconfig))
    first_leads(rig, first)
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Healthy")
    second = rig.start()
    proxy.cut()
    agent.lose_gpu()  # something to write
    rig.eventually(lambda: not leads(first))
    closed = time.monotonic()
    assert not leads(second), "the old leader stops before the new one starts"
    rig.eventually(lambda: leads(second))
    assert "gpudiag_node_" not in first.get("/metrics")[1]
    # What it had sent is not sent on later, as it hung up; what it has to say since, it keeps to itself.
    assert [one for one in proxy.attempts(since=closed) if "/leases/" not in one] == []
    proxy.heal()
    rig.operators.remove(first)
    assert first.process.wait(15) == 1
    assert proxy.writes(since=closed, leases=False) == []
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Unhealthy")
    assert leads(second)


@pytest.mark.slow
def test_a_leader_cut_off_for_a_while_goes_on_when_nobody_took_its_lease(
    rig: Rig, partition: Callable[[], Partition]
) -> None:
    agent = rig.add_node("le-5")
    rig.diagnostic("fleet", interval="5s")
    proxy = partition()
    only = rig.start("--kubeconfig", str(proxy.kubeconfig))
    first_leads(rig, only)
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Healthy")
    proxy.cut()
    rig.eventually(lambda: not leads(only))
    agent.lose_gpu()
    proxy.heal()
    rig.eventually(lambda: leads(only))
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Unhealthy", 40)
    assert only.process.poll() is None
    assert lease(rig)["leaseTransitions"] == 0


@pytest.mark.slow
def test_sigkill_of_the_leader_is_survived_within_20_s(rig: Rig) -> None:
    """With the defaults, and with the timeline that ``docs`` shows."""
    agent = rig.add_node("le-6")
    rig.diagnostic("fleet", interval="5s")
    first = rig.start(*DEFAULTS)
    first_leads(rig, first)
    rig.eventually(lambda: rig.status("fleet").get("verdict") == "Healthy")
    second = rig.start(*DEFAULTS)
    killed = time.monotonic()
    first.kill()
    agent.lose_gpu()
    timeline = {"SIGKILL": 0.0}
    for what, seen in {
        "the standby holds the Lease": lambda: leads(second),
        "GPUNode says Unhealthy": lambda: rig.health("le-6")[0] == "Unhealthy",
        "GPUDiagnostic says Unhealthy": lambda: rig.status("fleet").get("verdict") == "Unhealthy",
    }.items():
        timed(seen, seconds=30, rig=rig)
        timeline[what] = round(time.monotonic() - killed, 1)
    print(json.dumps(timeline))
    assert timeline["the standby holds the Lease"] <= 20
    assert timeline["GPUNode says Unhealthy"] <= timeline["the standby holds the Lease"] + 3
    assert lease(rig)["leaseTransitions"] == 1
