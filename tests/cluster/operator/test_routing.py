"""`--routing=proxy` against the real API server: the agent lives in a network namespace of its own, as a Pod does.

The proxy refuses Pods with a loopback address, so an address of another kind is needed: a pair of virtual cables, which
takes root. What the proxy refuses can be tried everywhere.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cluster.operator.conftest import Rig

pytestmark = pytest.mark.cluster

HOST, POD = "10.231.77.1", "10.231.77.2"
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None,
    reason="NOT RUN: a network namespace needs root and the command ip (iproute2)",
)


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True, timeout=20)


@pytest.fixture
def pod_network() -> Iterator[str]:
    """A network namespace that this machine reaches at POD; gives its name."""
    name = f"gpudiag-{os.getpid()}"
    here, there = f"gd{os.getpid()}a"[:15], f"gd{os.getpid()}b"[:15]
    ip("netns", "add", name)
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        ip("address", "add", f"{HOST}/30", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", name, "address", "add", f"{POD}/30", "dev", there)
        ip("-n", name, "link", "set", there, "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        ip("link", "del", here, check=False)
        ip("netns", "del", name, check=False)


def port_of(log: Path) -> int:
    deadline = time.monotonic() + 20
    while not (found := re.search(rf"http://{re.escape(POD)}:(\d+)", log.read_text())):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return int(found[1])


@needs_root
def test_agents_are_read_through_the_api_server(rig: "Rig", pod_network: str, tmp_path: Path) -> None:
    log = tmp_path / "agent.log"
    command = ["ip", "netns", "exec", pod_network, sys.executable, "-m", "gpudiag_agent", "--source", "simulated"]
    command += ["--node-name", "proxied-1", "--host", POD, "--port", "0", "--interval", "1s"]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as agent:
        try:
            rig.add_node("proxied-1", agent=False)
            rig.kubectl.apply(rig.pod(SimpleNamespace(node="proxied-1", port=port_of(log)), "agent-proxied-1"))
            rig.set_pod("agent-proxied-1", ip=POD, ready=True)
            rig.start("--routing", "proxy")
            rig.eventually(lambda: rig.health("proxied-1") == ("Healthy", "AllHealthy"))
            rig.diagnostic("full", mode="Once", detail="Full", target={"nodeNames": ["proxied-1"]})
            rig.kubectl("wait", "--for=condition=Complete", "gpud/full", "-n", rig.namespace, "--timeout=30s")
            assert len(rig.status("full")["results"][0]["gpus"]) == 8
        finally:
            agent.kill()
    rig.eventually(lambda: rig.health("proxied-1") == ("Unknown", "ConnectionRefused"))


@pytest.mark.slow
def test_what_the_proxy_refuses_is_told_from_what_an_agent_says(rig: "Rig") -> None:
    """It calls no loopback address: the message is the API server's own, and says so."""
    rig.add_node("loop-1")
    rig.start("--routing", "proxy")
    rig.eventually(
        lambda: "the API server's proxy to Pod" in rig.gpunode("loop-1").get("status", {}).get("message", "")
    )
    assert rig.health("loop-1")[0] == "Unknown"


def test_when_nobody_can_be_reached_directly_the_usual_causes_are_named(rig: "Rig") -> None:
    for number in (1, 2):
        rig.add_node(f"dark-{number}").hang()
    rig.add_node("bare-1", agent=False)  # nobody to be called there: it says nothing of the way
    rig.start()
    rig.diagnostic("fleet", interval="5s")
    rig.eventually(lambda: rig.condition("fleet", "AgentsReachable").get("reason") == "NoneReachable", 30)
    message = rig.condition("fleet", "AgentsReachable")["message"]
    assert message.startswith("3 of 3 nodes not read: 2 Timeout, 1 AgentMissing")
    assert "NetworkPolicy" in message
    assert "overlay network" in message
    assert "encapsulation" in message
    assert "--routing=proxy" in message
