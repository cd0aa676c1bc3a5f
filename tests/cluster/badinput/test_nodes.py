"""Nodes, Pods and drivers in trouble: whose trouble it is, in one word; never a GPU fault, never Healthy."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.badinput.world import World, memory, t4

from gpudiag_cli.simulator import Member

if TYPE_CHECKING:
    from tests.cluster.badinput.conftest import MakeWorld

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

HEALTHY = ("Healthy", "AllHealthy")
CAPABILITIES = ("NoLibrary", "NoDriver", "DriverMismatch", "PermissionDenied", "NoGPUs")


@pytest.fixture(scope="module")
def world(make_world: "MakeWorld") -> World:
    pair = t4("pair-1", "pair-2", pool="pair")
    made = make_world([*t4("down", "bare", "unready", "twice", "well"), *pair])
    made.start("--breaker-open", "1s", "--breaker-open-max", "2s")
    made.until_said(dict.fromkeys(made.members, HEALTHY))
    return made


def test_an_agent_that_is_replaced_in_time_is_no_alarm(world: World) -> None:
    """A roll-out: the Pod goes, another comes within --unreachable-after."""
    before = world.gpunodes()["bare"]["metadata"]["resourceVersion"]
    world.do(world.cluster.remove_pod(world.members["bare"]))
    asked = world.fleet["bare"].requests
    world.do(world.cluster.add_pod(world.members["bare"]))
    world.until(lambda: world.fleet["bare"].requests, lambda now: now > asked, what="the new agent is asked")
    world.rig.steadily(lambda: world.said()["bare"] == HEALTHY, 3)
    assert world.gpunodes()["bare"]["metadata"]["resourceVersion"] == before
    assert world.events("bare") == []


def test_each_trouble_has_its_word(world: World) -> None:
    world.do(world.cluster.set_node_ready(world.members["down"], ready=False))
    world.fault("down", "refuse")
    world.do(world.cluster.remove_pod(world.members["bare"]))
    world.do(world.cluster.set_pod_ready(world.members["unready"], ready=False))
    world.rig.kubectl.apply(_second_pod(world, "twice"), namespace=world.rig.namespace)
    world.until_said(
        {
            "down": ("Unknown", "NodeNotReady"),
            "bare": ("Unknown", "AgentMissing"),
            "unready": ("Unknown", "AgentNotReady"),
            "twice": ("Unknown", "AgentDuplicate"),
            "well": HEALTHY,
        }
    )
    status = world.gpunodes()["down"]["status"]
    assert status["breaker"]["state"] == "Closed", "a node that is down is not the breaker's"
    assert {gpu["health"] for gpu in status["gpus"]} == {"Unknown"}
    assert not [event for event in world.events("down") if event["reason"] in ("GPUUnhealthy", "GPUDegraded")]


def _second_pod(world: World, node: str) -> dict[str, Any]:
    first = world.get(f"/api/v1/namespaces/{world.rig.namespace}/pods/{world.members[node].pod}")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "second", "labels": first["metadata"]["labels"]},
        "spec": {"nodeName": node, "containers": [{"name": "agent", "image": "example.invalid/agent"}]},
    }


def test_a_node_that_is_deleted_is_gone_without_alarm(world: World) -> None:
    world.rig.diagnostic("pair", interval="5s", target={"nodeSelector": {"matchLabels": {"pool": "pair"}}})
    world.until_verdict("pair", "Healthy")
    world.remove_node("pair-2")
    world.until(
        lambda: world.diagnostic("pair")["summary"]["nodes"]["targeted"],
        lambda targeted: targeted == 1,
        what="the target shrinks",
    )
    status = world.diagnostic("pair")
    assert status["verdict"] == "Healthy"
    assert [entry["verdict"] for entry in status["history"]] == ["Healthy"]
    assert "nodes" not in status or [row["name"] for row in status["nodes"]] == ["pair-1"]
    world.until(
        lambda: sorted(world.gpunodes()),
        lambda names: "pair-2" not in names,
        seconds=40,
        what="the GPUNode is collected",
    )
    said = world.get("/api/v1/namespaces/default/events", fieldSelector="involvedObject.name=pair-2")["items"]
    assert [event["reason"] for event in said if event["type"] == "Warning"] == []


def test_a_target_that_matches_nothing_is_ready_and_unknown(world: World) -> None:
    world.rig.diagnostic("nothing", target={"nodeSelector": {"matchLabels": {"pool": "nobody"}}})
    world.rig.diagnostic("nothing-once", mode="Once", target={"nodeSelector": {"matchLabels": {"pool": "nobody"}}})
    for name in ("nothing", "nothing-once"):
        world.until(
            lambda name=name: world.condition(name, "Ready"),  # type: ignore[misc]
            lambda ready: (ready.get("status"), ready.get("reason")) == ("True", "NoTargets"),
            what=f"{name} is Ready with NoTargets",
        )
        assert world.diagnostic(name)["verdict"] == "Unknown"
    assert world.until_complete("nothing-once", seconds=10)["verdict"] == "Unknown"


@pytest.fixture(scope="module")
def blind_agents(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Real agent processes, each of which cannot read its GPUs for another reason; by that reason."""
    folder = tmp_path_factory.mktemp("agents")
    started: dict[str, subprocess.Popen[bytes]] = {}
    members = []
    try:
        for number, reason in enumerate(CAPABILITIES):
            node, address = f"blind-{reason.lower()}", f"127.99.{os.getpid() % 250}.{number + 1}"
            scenario = folder / f"{reason}.json"
            scenario.write_text(json.dumps({"model": "Tesla T4", "count": 1, "fault": {"reason": reason}}))
            port = _free_port(address)
            command = [sys.executable, "-m", "gpudiag_agent", "--node-name", node, "--host", address]
            command += ["--port", str(port), "--source", "simulated", "--scenario", str(scenario)]
            with (folder / f"{reason}.log").open("wb") as log:
                started[reason] = subprocess.Popen(command, stdout=log, stderr=log)
            members.append(Member(name=node, address=address, port=port, gpus=1, model="Tesla T4"))
        for member in members:  # a kubelet calls a Pod ready when its agent answers
            world.until(lambda member=member: _answers(member), bool, what=f"the agent of {member.name} listens")  # type: ignore[misc]
            world.do(world.cluster.add_pod(member))
        world.join(members)
        yield started
    finally:
        for process in started.values():
            process.terminate()
        for process in started.values():
            process.wait(10)


def _answers(member: Member) -> bool:
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex((member.address, member.port)) == 0


def _free_port(address: str) -> int:
    with socket.socket() as one:
        one.bind((address, 0))
        port: int = one.getsockname()[1]
        return port


def test_what_an_agent_cannot_do_is_said_and_never_healthy(
    world: World, blind_agents: dict[str, subprocess.Popen[bytes]]
) -> None:
    world.until_said({f"blind-{reason.lower()}": ("Unknown", reason) for reason in CAPABILITIES}, seconds=40)
    for reason, process in blind_agents.items():
        status = world.gpunodes()[f"blind-{reason.lower()}"]["status"]
        assert reason in [gap["reason"] for gap in status["agent"]["capabilities"]]
        assert status["agent"]["reachable"] is True
        assert process.poll() is None, f"the agent ended over {reason}"
        assert memory(process.pid, "VmRSS") > 0
    world.rig.diagnostic("blind", mode="Once", target={"nodeNames": [f"blind-{r.lower()}" for r in CAPABILITIES]})
    status = world.until_complete("blind", seconds=30)
    rows = {row["name"]: (row["health"], row["reason"]) for row in status["nodes"]}
    assert rows == {f"blind-{reason.lower()}": ("Unknown", reason) for reason in CAPABILITIES}
    assert status["verdict"] == "Unknown"


def test_all_are_well_again_when_their_trouble_is_over(world: World) -> None:
    world.heal("down")
    world.do(world.cluster.set_node_ready(world.members["down"], ready=True))
    world.rig.kubectl("delete", "pod", "second", "-n", world.rig.namespace, "--grace-period=0", "--force")
    world.do(world.cluster.set_pod_ready(world.members["unready"], ready=True))
    world.until_said(dict.fromkeys(("down", "unready", "twice", "well", "pair-1"), HEALTHY))
