"""A control plane, a simulated fleet with its Nodes and Pods, and the real operator process, for rows that write."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
from tests.bench.context import progress
from tests.bench.fleet_process import FleetProcess, simulated
from tests.bench.watch import Watcher

from gpudiag_api.times import from_rfc3339
from gpudiag_cli import kubeconfig
from gpudiag_cli.controlplane import ControlPlane
from gpudiag_cli.controlplane.ports import free_port
from gpudiag_cli.kubeapi import KubeAPI
from gpudiag_cli.simulator import Cluster

NAMESPACE = "gpudiag-system"
GROUP = "/apis/gpudiag.dev/v1alpha1"
FLEET = f"{GROUP}/namespaces/{NAMESPACE}/gpudiagnostics/fleet"
_CRDS = Path(__file__).resolve().parents[2] / "crds"
_WRITES = re.compile(r"apiserver_request_total\{(?P<labels>[^}]*)\} (?P<count>\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_FAILURES = re.compile(r'gpudiag_operator_collect_failures_total\{reason="(\w+)"\} (\S+)')
_TICKS = os.sysconf("SC_CLK_TCK")


class Operator:
    """A running ``gpudiag-operator`` with the settings it ships with."""

    def __init__(self, plane: ControlPlane, folder: Path, name: str = "operator") -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "gpudiag_operator", "--kubeconfig", str(plane.kubeconfig)]
        command += ["--namespace", NAMESPACE, "--metrics-addr", self.url.removeprefix("http://")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GPUDIAG_")}
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        self.started = time.monotonic()

    def cpu(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self, field: str) -> float:
        """``VmRSS`` or ``VmHWM`` in MB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1000
        raise AssertionError(f"/proc/{self.process.pid}/status has no {field}")

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def said(self, text: str, *, exactly: bool = False) -> float:
        """When it first logged a line that contains, or is, this: Unix seconds; 0: it did not."""
        for line in self.log.read_text().splitlines():
            record = json.loads(line)
            if text == record["message"] or (not exactly and text in record["message"]):
                return from_rfc3339(record["time"])
        return 0.0

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text().splitlines()[-8:])


class Stage:
    """What rows drive. Made by :func:`stage`."""

    def __init__(self, plane: ControlPlane, api: KubeAPI, fleet: FleetProcess, watcher: Watcher, folder: Path) -> None:
        self.plane = plane
        self.api = api
        self.fleet = fleet
        self.watcher = watcher
        self.folder = folder
        self.cluster = Cluster(api, NAMESPACE)
        self.operator: Operator | None = None

    def start(self) -> Operator:
        """Start the operator."""
        self.operator = Operator(self.plane, self.folder)
        return self.operator

    async def ask_fleet(self) -> None:
        """Create GPUDiagnostic/fleet, anew if there is one."""
        await self.api.delete(FLEET)
        meta = {"name": "fleet", "namespace": NAMESPACE}
        kind = {"apiVersion": "gpudiag.dev/v1alpha1", "kind": "GPUDiagnostic"}
        await self.api.apply(FLEET, {**kind, "metadata": meta, "spec": {}})

    async def diagnostic(self) -> dict[str, Any]:
        """Status of GPUDiagnostic/fleet."""
        status: dict[str, Any] = (await self.api.get(FLEET)).get("status", {})
        return status

    async def until(self, true: Callable[[], bool], *, seconds: float, what: str) -> None:
        """Wait; a time-out says what was waited for, and what the operator said last."""
        deadline = time.monotonic() + seconds
        while not true():
            self.watcher.check()
            alive = self.operator is None or self.operator.process.poll() is None
            if time.monotonic() > deadline or not alive:
                tail = self.operator.tail() if self.operator else ""
                raise AssertionError(f"not within {seconds:g} s: {what}\n{tail}")
            await asyncio.sleep(0.02)

    async def filled(self, *, seconds: float) -> None:
        """Wait until every node has a GPUNode with a status."""
        names = set(self.fleet.names)
        await self.until(lambda: names <= self.watcher.seen.keys(), seconds=seconds, what="every GPUNode has a status")

    async def quiet(self, *, seconds: float) -> None:
        """Wait until nothing was written for some seconds."""
        deadline = time.monotonic() + seconds
        before, since = await self.writes(), time.monotonic()
        while time.monotonic() - since < 8:
            assert time.monotonic() < deadline, f"the operator still writes after {seconds:g} s"
            await asyncio.sleep(2)
            now = await self.writes()
            if now != before:
                before, since = now, time.monotonic()

    async def writes(self) -> Counter[str]:
        """Requests that change something, by resource, as the API server counts them; Leases apart."""
        text = await asyncio.to_thread(lambda: self.plane.client()("get", "--raw", "/metrics").stdout)
        found: Counter[str] = Counter()
        for match in _WRITES.finditer(text):
            labels = dict(_LABEL.findall(match["labels"]))
            resource = labels.get("resource", "")
            ours = resource in {"gpunodes", "gpudiagnostics"} or (resource == "events" and not labels.get("group"))
            if ours and labels.get("verb") in {"POST", "PUT", "PATCH", "APPLY", "DELETE"}:
                found[resource] += int(float(match["count"]))
        return found


@asynccontextmanager
async def stage(nodes: int) -> AsyncIterator[Stage]:
    """A stage with so many simulated nodes in the API server; no operator runs yet."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plane = await asyncio.to_thread(ControlPlane.start, folder / "plane", controller_manager=False)
        with plane, simulated(nodes) as fleet:
            kubectl = plane.client()
            kinds = kubectl("apply", "--server-side", "-o", "name", "-f", _CRDS).stdout.split()
            kubectl("wait", "--for=condition=Established", "--timeout=60s", *kinds)
            access = kubeconfig.load(plane.kubeconfig)
            async with KubeAPI(access) as api, Watcher(access) as watcher:
                made = Stage(plane, api, fleet, watcher, folder)
                began = time.monotonic()
                await made.cluster.add(fleet.cluster_members())
                progress(f"made {nodes} Nodes and Pods in {time.monotonic() - began:.0f} s")
                await made.ask_fleet()
                try:
                    yield made
                finally:
                    if made.operator is not None:
                        with suppress(subprocess.TimeoutExpired):
                            made.operator.stop()


async def failures(operator: Operator) -> dict[str, float]:
    """Calls to agents that failed so far, by reason, from the operator's metrics."""
    async with aiohttp.ClientSession() as session, session.get(f"{operator.url}/metrics") as response:
        text = await response.text()
    return {reason: float(count) for reason, count in _FAILURES.findall(text)}


def show(value: Any) -> str:
    """For progress lines."""
    return json.dumps(value, ensure_ascii=False)
