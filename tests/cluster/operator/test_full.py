"""`detail: Full` and `podRef` on a real API server, against a real agent process with simulated GPUs."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import msgspec
import pytest

from gpudiag_api import wire

if TYPE_CHECKING:
    from tests.cluster.operator.conftest import Agent, Rig

pytestmark = pytest.mark.cluster


@pytest.fixture
def real_agent(rig: "Rig", tmp_path: Path) -> Iterator[str]:
    """A node with a real agent on it; gives the node's name."""
    node, address, log = "full-1", "127.99.7.1", tmp_path / "agent.log"
    command = [sys.executable, "-m", "gpudiag_agent", "--source", "simulated", "--node-name", node]
    command += ["--host", address, "--port", "0", "--interval", "1s"]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            port = _port(log)
            rig.add_node(node, agent=False)
            rig.kubectl.apply(rig.pod(SimpleNamespace(node=node, port=port), "agent-full-1"))
            rig.set_pod("agent-full-1", ip=address, ready=True)
            yield node
        finally:
            process.kill()


def _port(log: Path) -> int:
    deadline = time.monotonic() + 20
    while not (found := re.search(r"http://127\.99\.7\.1:(\d+)", log.read_text())):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return int(found[1])


def test_a_full_run_brings_everything_about_a_node(rig: "Rig", real_agent: str) -> None:
    rig.start()
    rig.eventually(lambda: rig.health(real_agent)[0] == "Healthy")
    rig.diagnostic("full", mode="Once", detail="Full", target={"nodeNames": [real_agent]})
    rig.kubectl("wait", "--for=condition=Complete", "gpud/full", "-n", rig.namespace, "--timeout=30s")
    status = rig.status("full")
    assert status["verdict"] == "Healthy"
    (result,) = status["results"]
    assert len(result["gpus"]) == 8
    assert all(line["points"] for line in result["timeline"])
    assert len(result["timeline"]) == 8
    assert result["topology"]["placement"]
    assert "missing" not in result


@pytest.mark.slow
def test_more_than_ten_nodes_are_too_many_for_full(rig: "Rig") -> None:
    for number in range(11):
        rig.add_node(f"many-{number}", agent=False)
    rig.start()
    rig.diagnostic("full", mode="Once", detail="Full")
    rig.eventually(lambda: rig.condition("full", "Stalled").get("reason") == "TooManyNodesForFull")
    assert "name fewer in spec.target.nodeNames" in rig.condition("full", "Stalled")["message"]


def test_a_pod_is_judged_by_its_own_gpus(rig: "Rig") -> None:
    agent = rig.add_node("pods-1")
    rig.start()
    rig.diagnostic("job", interval="5s", target={"podRef": {"name": "train-0"}})
    rig.eventually(lambda: "train-0" in rig.status("job").get("message", ""))
    assert rig.condition("job", "Ready")["reason"] == "NoTargets"

    agent.lose_gpu()
    hold(agent, index=1, namespace=rig.namespace)
    rig.eventually(lambda: rig.status("job").get("verdict") == "Healthy")
    assert rig.status("job")["summary"]["gpus"]["total"] == 1
    rig.diagnostic("now", mode="Once", target={"podRef": {"name": "train-0"}})
    rig.kubectl("wait", "--for=condition=Complete", "gpud/now", "-n", rig.namespace, "--timeout=20s")
    assert (rig.status("now")["verdict"], rig.status("now")["summary"]["gpus"]["total"]) == ("Healthy", 1)

    hold(agent, index=0, namespace=rig.namespace)
    rig.eventually(lambda: rig.status("job").get("verdict") == "Unhealthy", 45)


def hold(agent: "Agent", *, index: int, namespace: str) -> None:
    """The Pod holds that GPU from now on."""
    gpu = agent.report.gpus[index]
    held = wire.Allocation(gpu_uuid=gpu.uuid, namespace=namespace, pod="train-0", container="main")
    agent.report = msgspec.structs.replace(agent.report, allocations=(held,))
