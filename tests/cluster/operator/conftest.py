"""A rig for the real operator process: a namespace of its own, Nodes and agent Pods as objects, small agents behind.

Each agent is an HTTP server on a loopback address of its own, as a Pod has an IP of its own. They run in a thread, so
that tests read like what a person would do: change a report, wait for what kubectl says.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from aiohttp import web

from gpudiag_api import wire
from gpudiag_api.meaning import etag
from gpudiag_api.times import to_rfc3339
from gpudiag_api.vocabulary import Action, Blame, Health, Severity
from gpudiag_cli.controlplane import ControlPlane, Kubectl

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_addresses = count(1)
CRDS = Path(__file__).resolve().parents[3] / "crds"
BOOT = "5ca1ab1e-0000-4000-8000-000000000001"


def gpu(index: int, node: str, health: Health = Health.HEALTHY) -> wire.GPU:
    return wire.GPU(
        index=index,
        uuid=f"GPU-{node}-{index}",
        pci=f"0000:{index + 16:02x}:00.0",
        model="NVIDIA H100 80GB HBM3",
        memory_bytes=85_520_809_984,
        health=health,
    )


def healthy(node: str, gpus: int = 2) -> wire.Report:
    return wire.Report(
        version=wire.WIRE_VERSION,
        agent=wire.AgentInfo(version="0.1.0", node_name=node, boot_id=BOOT),
        sampled_at=to_rfc3339(time.time()),
        health=Health.HEALTHY,
        driver=wire.Driver(version="570.133.20", cuda_version="12.8"),
        gpus=tuple(gpu(index, node) for index in range(gpus)),
    )


def lost(report: wire.Report, index: int = 0) -> wire.Report:
    """The same with one GPU fallen off the bus."""
    seen = to_rfc3339(1_700_000_000)
    sick = report.gpus[index]
    finding = wire.Finding(
        check="GPULost",
        reason="FallenOffBus",
        severity=Severity.CRITICAL,
        blame=Blame.HARDWARE,
        action=Action.REBOOT_NODE,
        message=f"GPU {index} has fallen off the bus",
        subject=wire.Subject(gpu_index=index, gpu_uuid=sick.uuid, pci=sick.pci),
        first_seen=seen,
        last_seen=seen,
    )
    gpus = tuple(msgspec.structs.replace(one, health=Health.UNHEALTHY) if one is sick else one for one in report.gpus)
    return msgspec.structs.replace(report, health=Health.UNHEALTHY, gpus=gpus, findings=(finding,))


class Agent:
    """One agent: says ``report``, or does what ``instead`` does."""

    def __init__(self, thread: "AgentThread", node: str) -> None:
        number = next(_addresses)
        self.address = f"127.{100 + number // 250}.{number % 250 + 1}.1"
        self.node = node
        self.instead: Handler | None = None
        self.fresh_reads = 0
        self.requests = 0
        self._thread = thread
        self._report = healthy(node)
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def report(self) -> wire.Report:
        return self._report

    @report.setter
    def report(self, report: wire.Report) -> None:
        self._report = report
        self._thread.loop.call_soon_threadsafe(self._wake)

    def lose_gpu(self) -> None:
        self.report = lost(self._report)

    def heal(self) -> None:
        self.report = healthy(self.node)

    def behave(self, handler: Handler | None) -> None:
        self.instead = handler
        self._thread.loop.call_soon_threadsafe(self._wake)

    def hang(self, *, fresh_only: bool = False) -> None:
        """Accept requests (or only those for fresh samples) and never answer them."""

        async def never(request: web.Request) -> web.StreamResponse:
            if fresh_only and "fresh" not in request.query:
                return await self._answer(request)
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

        self.behave(never)

    def listen(self) -> None:
        self._thread.do(self._listen())

    def close(self) -> None:
        """Refuse connections from now on."""
        if self._runner is not None:
            self._thread.do(self._runner.cleanup())
            self._runner = None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _listen(self) -> None:
        application = web.Application()
        application.router.add_get("/v1/report", self._serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.address, self.port).start()
        self.port = self._runner.addresses[0][1]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if self.instead is not None:
            return await self.instead(request)
        return await self._answer(request)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if "fresh" in request.query:
            self.fresh_reads += 1
        tag = request.headers.get("If-None-Match")
        wait = float(request.query.get("wait", "0s").removesuffix("s"))
        if tag == etag(self._report) and wait:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait)
        now = to_rfc3339(time.time())
        headers = {"ETag": etag(self._report), "X-Gpudiag-Sampled-At": now}
        if tag == etag(self._report):
            return web.Response(status=304, headers=headers)
        body = wire.encode(msgspec.structs.replace(self._report, sampled_at=now))
        return web.Response(body=body, content_type="application/json", headers=headers)


class AgentThread:
    """The loop in which all agents of a test run."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.agents: list[Agent] = []

    def do(self, work: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return future.result(20)

    def close(self) -> None:
        for agent in self.agents:
            agent.close()
        self.do(self._drain())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    async def _drain(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


SHORT_LEASES = ("--lease-duration", "4s", "--renew-deadline", "3s", "--retry-period", "1s")
"""A killed operator's Lease is free soon."""

LONG_LEASES = ("--lease-duration", "25s", "--renew-deadline", "20s")
"""For a look at an operator's metrics while the API server is away: only who is the leader for certain exports."""


class OperatorProcess:
    """A running ``gpudiag-operator``."""

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, env=_environment() | dict(environment or {})
            )
        self.url = ""

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metric(self, name: str) -> float:
        """The sum of the samples whose line starts so."""
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> tuple[int, float]:
        """SIGTERM; gives the exit status and the seconds it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30), time.monotonic() - began

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def _environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GPUDIAG_")}
    return {**own, "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Rig:
    """What a test drives."""

    def __init__(self, plane: ControlPlane, kubectl: Kubectl, folder: Path) -> None:
        self.plane = plane
        self.kubectl = kubectl
        self.folder = folder
        self.namespace = f"ops-{uuid4().hex[:8]}"
        self.thread = AgentThread()
        self.nodes: dict[str, Agent] = {}
        self.operators: list[OperatorProcess] = []
        kubectl("create", "namespace", self.namespace)

    def add_node(self, name: str, *, agent: bool = True, labels: dict[str, str] | None = None) -> Agent:
        """A GPU node, with a ready agent on it."""
        made = Agent(self.thread, name)
        self.thread.agents.append(made)
        self.nodes[name] = made
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"nvidia.com/gpu.present": "true", **(labels or {})}},
        }
        if agent:
            made.listen()
            pod = self.pod(made, f"agent-{name}")
            self.kubectl.apply(node, pod)
            self.set_pod(f"agent-{name}", ip=made.address, ready=True)
        else:
            self.kubectl.apply(node)
        return made

    def pod(self, agent: Any, name: str) -> dict[str, Any]:
        """The Pod of an agent: anything with a node and a port."""
        labels = {"app.kubernetes.io/name": "gpudiag-agent"}
        container = {
            "name": "agent",
            "image": "example.invalid/agent",
            "ports": [{"name": "http", "containerPort": agent.port}],
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.namespace, "labels": labels},
            "spec": {"nodeName": agent.node, "containers": [container]},
        }

    def set_pod(self, name: str, *, ip: str, ready: bool) -> None:
        status = {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        }
        patch = json.dumps({"status": status})
        self.kubectl("patch", "pod", name, "-n", self.namespace, "--subresource=status", "--type=merge", "-p", patch)

    def delete_pod(self, name: str) -> None:
        self.kubectl("delete", "pod", name, "-n", self.namespace, "--grace-period=0", "--force")

    def diagnostic(self, name: str, **spec: Any) -> None:
        """Create or replace a GPUDiagnostic as a person would."""
        body = {
            "apiVersion": "gpudiag.dev/v1alpha1",
            "kind": "GPUDiagnostic",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }
        self.kubectl.apply(body, namespace=self.namespace)

    def status(self, name: str) -> dict[str, Any]:
        """Its status; empty when there is none, or no such object."""
        said = self.kubectl("get", "gpud", name, "-n", self.namespace, "-o", "json", check=False)
        found: dict[str, Any] = json.loads(said.stdout).get("status", {}) if said.returncode == 0 else {}
        return found

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        return next((one for one in self.status(name).get("conditions", []) if one["type"] == kind), {})

    def gpunode(self, name: str) -> dict[str, Any]:
        said = self.kubectl("get", "gpunode", name, "-o", "json", check=False)
        found: dict[str, Any] = json.loads(said.stdout) if said.returncode == 0 else {}
        return found

    def health(self, node: str) -> tuple[str, str]:
        """(health, reason) of a node."""
        status = self.gpunode(node).get("status", {})
        return status.get("health", ""), status.get("reason", "")

    def eventually(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        """Wait until it is true; on time-out the end of the operator's log says why not."""
        deadline = time.monotonic() + seconds
        while not condition():
            for one in self.operators:
                assert one.process.poll() in (None, 0, -9), self.tail()
            assert time.monotonic() < deadline, self.tail()
            time.sleep(0.1)

    def steadily(self, condition: Callable[[], object], seconds: float) -> None:
        """It stays true for a while."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert condition(), self.tail()
            time.sleep(0.2)

    def tail(self) -> str:
        logs = [one.log.read_text().splitlines()[-30:] for one in self.operators]
        return "\n".join(line for lines in logs for line in lines)

    def start(self, *flags: str, ready: bool = True, environment: Mapping[str, str] | None = None) -> OperatorProcess:
        """Start the operator as a person would, with waits short enough for a test."""
        port = free_port()
        command = [sys.executable, "-m", "gpudiag_operator"]
        command += ["--kubeconfig", str(self.plane.kubeconfig), "--namespace", self.namespace]
        command += ["--metrics-addr", f"127.0.0.1:{port}", "--node-timeout", "1s", "--unreachable-after", "1s"]
        command += [*SHORT_LEASES, *flags]
        started = OperatorProcess(command, self.folder / f"operator-{len(self.operators)}.log", environment)
        started.url = f"http://127.0.0.1:{port}"
        self.operators.append(started)
        if ready:
            self.eventually(lambda: started.get("/readyz")[0] == 200, 30)
        return started

    def install(self) -> None:
        """The project's kinds, established."""
        names = self.kubectl("apply", "--server-side", "-o", "name", "-f", CRDS).stdout.split()
        self.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)

    def close(self) -> None:
        for one in self.operators:
            if one.process.poll() is None:
                one.stop()
        self.thread.close()
        self.kubectl("delete", "nodes", "--ignore-not-found", *self.nodes, check=False)
        self.kubectl("delete", "gpunodes", "--ignore-not-found", *self.nodes, check=False)
        self.kubectl("delete", "pods", "--all", "-n", self.namespace, "--grace-period=0", "--force", check=False)
        self.kubectl("delete", "gpudiagnostics", "--all", "-n", self.namespace, check=False)
        self.kubectl("delete", "namespace", self.namespace, "--wait=false", check=False)


@pytest.fixture
def rig(control_plane: ControlPlane, kubectl: Kubectl, crds: list[str], tmp_path: Path) -> Iterator[Rig]:
    """The rig on the shared control plane. No operator runs yet."""
    made = Rig(control_plane, kubectl, tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def fragile_rig(tmp_path: Path) -> Iterator[Rig]:
    """A rig on a control plane of its own, which the test may take away."""
    with ControlPlane.start(tmp_path / "plane", controller_manager=False) as plane:
        made = Rig(plane, plane.client(), tmp_path)
        made.install()
        try:
            yield made
        finally:
            made.close()
