"""A facade to test from outside: over a control plane with a few GPUNodes and GPUDiagnostics, on either transport."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.unit.mcp.world import allocation, diagnostic, finding, full, node, xid

from gpudiag_cli.controlplane import ControlPlane
from gpudiag_cli.controlplane.ports import free_ports
from gpudiag_cli.kubeapi import KubeAPI
from gpudiag_cli.kubeconfig import load

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "conformance"
NODE, POD, DIAGNOSTIC = "gpu-b", "train-0", "full-1"
START_SECONDS = 30.0


@contextmanager
def cluster() -> Iterator[ControlPlane]:
    """An API server with one sick node, one well node, and diagnostics of them; no operator."""
    with ControlPlane.start() as plane:
        kubectl = plane.client()
        names = kubectl("apply", "--server-side", "-o", "name", "-f", ROOT / "crds").stdout.split()
        kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
        kubectl("create", "namespace", NAMESPACE)
        asyncio.run(_write(plane, objects()))
        yield plane


def objects() -> list[dict[str, Any]]:
    """What is in it."""
    lost = node(
        NODE,
        health="Unhealthy",
        recommendedAction="DrainAndResetGPU",
        findings=[finding()],
        xids=[xid(pod=f"{NAMESPACE}/{POD}")],
        allocations=[allocation(NODE, 0, POD, NAMESPACE)],
    )
    done = full(DIAGNOSTIC, NODE)
    for one in (fleet := diagnostic("fleet", NAMESPACE), done):
        one["metadata"]["namespace"] = NAMESPACE
    return [node("gpu-a"), lost, fleet, done]


async def _write(plane: ControlPlane, wanted: Sequence[dict[str, Any]]) -> None:
    async with KubeAPI(load(plane.kubeconfig)) as api:
        for one in wanted:
            meta, status = one["metadata"], one.pop("status")
            plural = {"GPUNode": "gpunodes", "GPUDiagnostic": "gpudiagnostics"}[one["kind"]]
            within = f"/namespaces/{meta['namespace']}" if "namespace" in meta else ""
            path = f"/apis/gpudiag.dev/v1alpha1{within}/{plural}/{meta['name']}"
            clean = {key: meta[key] for key in ("name", "namespace") if key in meta}
            await api.apply(path, {**one, "metadata": clean})
            await api.merge(f"{path}/status", {"status": status})


def command(kubeconfig: Path, *flags: str) -> list[str]:
    """How the facade is started."""
    return [sys.executable, "-m", "gpudiag_mcp", "--kubeconfig", str(kubeconfig), *flags]


@contextmanager
def over_http(kubeconfig: Path, log: Path, *flags: str) -> Iterator[str]:
    """The facade over streamable HTTP, on loopback and without tokens; gives the URL of its endpoint."""
    port, metrics = free_ports(2)
    where = ("--transport=http", "--host=127.0.0.1", f"--port={port}", f"--metrics-addr=127.0.0.1:{metrics}")
    # The suite cannot send a token, and asks faster than a person.
    open_to_all = ("--auth=none", "--calls-per-minute=1000")
    with (
        log.open("wb") as output,
        subprocess.Popen(command(kubeconfig, *where, *open_to_all, *flags), stdout=output, stderr=output) as process,
    ):
        try:
            _wait_for(f"http://127.0.0.1:{port}/healthz", process, log)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"gpudiag-mcp over HTTP did not start: {log.read_text()[-2000:]}")
        time.sleep(0.1)


def parsed(text: str) -> Any:
    """JSON that may have lines of other text before it."""
    start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=0)
    return json.loads(text[start:])
