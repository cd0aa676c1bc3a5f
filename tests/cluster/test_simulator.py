"""The simulator's Nodes and agent Pods in a real API server: what the operator's discovery looks at."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from gpudiag_cli import kubeconfig
from gpudiag_cli.controlplane import ControlPlane, Kubectl
from gpudiag_cli.errors import CommandError
from gpudiag_cli.kubeapi import APIError, KubeAPI
from gpudiag_cli.simulator import Cluster, Fleet, Member, specs

pytestmark = pytest.mark.cluster
SELECTOR = "--selector=app.kubernetes.io/name=gpudiag-agent"


def names(found: dict[str, Any]) -> set[str]:
    return {item["metadata"]["name"] for item in found["items"]}


def condition(item: dict[str, Any]) -> str:
    return next(str(each["status"]) for each in item["status"]["conditions"] if each["type"] == "Ready")


@pytest.fixture
def members(namespace: str) -> list[Member]:
    """Names of their own, as Nodes have no namespace."""
    return [
        Member(name=spec.name, address=f"127.9.0.{number}", gpus=8, model="NVIDIA H100 80GB HBM3", labels={"pool": "a"})
        for number, spec in enumerate(specs(3, prefix=namespace), start=1)
    ]


async def test_nodes_and_pods_are_made_as_kubelets_and_a_daemonset_would(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str, members: list[Member]
) -> None:
    async with KubeAPI(kubeconfig.load(control_plane.kubeconfig)) as api:
        cluster = Cluster(api, namespace)
        await cluster.add(members)
        node = kubectl.json("get", "node", members[1].name)
        assert node["metadata"]["labels"]["nvidia.com/gpu.present"] == "true"
        assert node["metadata"]["labels"]["pool"] == "a"
        assert node["status"]["capacity"]["nvidia.com/gpu"] == "8"
        assert condition(node) == "True"
        pods = kubectl.json("get", "pods", f"--namespace={namespace}", SELECTOR)
        assert {pod["spec"]["nodeName"]: pod["status"]["podIP"] for pod in pods["items"]} == {
            member.name: member.address for member in members
        }
        for pod in pods["items"]:
            assert (pod["status"]["phase"], condition(pod)) == ("Running", "True")
            assert pod["spec"]["containers"][0]["ports"] == [{"name": "http", "containerPort": 9810, "protocol": "TCP"}]
        await cluster.remove(members)
        assert names(kubectl.json("get", "pods", f"--namespace={namespace}")) == set()
        assert names(kubectl.json("get", "nodes")).isdisjoint(member.name for member in members)


async def test_everything_may_be_repeated(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str, members: list[Member]
) -> None:
    async with KubeAPI(kubeconfig.load(control_plane.kubeconfig)) as api:
        cluster = Cluster(api, namespace)
        await cluster.add(members)
        # What a killed simulator left behind: the next one has other addresses and another port.
        moved = [
            Member(name=each.name, address=f"127.10.0.{number}", port=9999, gpus=8, model=each.model)
            for number, each in enumerate(members, start=1)
        ]
        await cluster.add(moved)
        await cluster.add(moved)
        pods = kubectl.json("get", "pods", f"--namespace={namespace}", SELECTOR)["items"]
        assert {pod["status"]["podIP"] for pod in pods} == {member.address for member in moved}
        assert {pod["spec"]["containers"][0]["ports"][0]["containerPort"] for pod in pods} == {9999}
        await cluster.remove(moved)
        await cluster.remove(moved)


async def test_readiness_can_be_taken_away(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str, members: list[Member]
) -> None:
    member = members[0]
    async with KubeAPI(kubeconfig.load(control_plane.kubeconfig)) as api:
        cluster = Cluster(api, namespace)
        await cluster.add([member])
        await cluster.set_node_ready(member, ready=False)
        await cluster.set_pod_ready(member, ready=False)
        assert condition(kubectl.json("get", "node", member.name)) == "False"
        assert condition(kubectl.json("get", "pod", f"--namespace={namespace}", member.pod)) == "False"
        await cluster.remove_pod(member)
        assert names(kubectl.json("get", "pods", f"--namespace={namespace}")) == set()
        await cluster.remove([member])


async def test_a_refusal_is_a_sentence(control_plane: ControlPlane, namespace: str) -> None:
    async with KubeAPI(kubeconfig.load(control_plane.kubeconfig)) as api:
        wrong = Member(name="Not_A_Name", address="127.9.0.1", gpus=1, model="")
        with pytest.raises(APIError, match="refused PATCH /api/v1/nodes/Not_A_Name") as refusal:
            await Cluster(api, namespace).add([wrong])
        assert refusal.value.status == 422


async def test_a_server_that_is_gone_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpudiag_cli.kubeapi._BACKOFF_SECONDS", 0)
    async with KubeAPI(kubeconfig.Access("http://127.0.0.1:1", None, None)) as api:
        with pytest.raises(CommandError, match=r"The API server at http://127\.0\.0\.1:1 does not answer"):
            await api.get("/version")


async def test_simulate_serves_what_it_announces_and_cleans_up(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(f"nodes: [{{name: {namespace}, count: 5}}]\nfaults: [{{node: {namespace}-02, fault: html}}]")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gpudiag_cli", "simulate", "--scenario", str(scenario)),
        *("--namespace", namespace),
        env={**os.environ, "KUBECONFIG": str(control_plane.kubeconfig)},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            while b"Ctrl-C" not in (line := await process.stderr.readline()):
                assert line, "it ended early"
            found = await asyncio.to_thread(kubectl.json, "get", "pods", f"--namespace={namespace}", SELECTOR)
            assert len(found["items"]) == 5
            process.send_signal(signal.SIGINT)
            said = await process.stderr.read()
            assert await process.wait() == 0, said
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert names(await asyncio.to_thread(kubectl.json, "get", "pods", f"--namespace={namespace}")) == set()


async def test_a_fleet_of_two_hundred_is_there_within_seconds(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str
) -> None:
    async with Fleet(specs(200, prefix=namespace)) as fleet, KubeAPI(kubeconfig.load(control_plane.kubeconfig)) as api:
        cluster, members = Cluster(api, namespace), [Member.of(node) for node in fleet.nodes.values()]
        async with asyncio.timeout(30):
            await cluster.add(members)
        pods = kubectl.json("get", "pods", f"--namespace={namespace}", SELECTOR)["items"]
        assert {pod["status"]["podIP"] for pod in pods} == {node.address for node in fleet.nodes.values()}
        await cluster.remove(members)
