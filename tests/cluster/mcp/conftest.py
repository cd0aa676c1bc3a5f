"""The real command over real stdio, with the real client, against the real API server."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from gpudiag_cli.controlplane import ControlPlane
from gpudiag_cli.kubeapi import KubeAPI
from gpudiag_cli.kubeconfig import load

GROUP = "/apis/gpudiag.dev/v1alpha1"

Connect = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
async def store(control_plane: ControlPlane, crds: list[str]) -> AsyncIterator[Callable[..., Any]]:
    """``await store(object)`` writes a GPUNode or GPUDiagnostic with its status, as the operator would."""
    made: list[str] = []
    async with KubeAPI(load(control_plane.kubeconfig)) as api:

        async def write(*objects: dict[str, Any]) -> None:
            await asyncio.gather(*(one_object(each) for each in objects))

        async def one_object(one: dict[str, Any]) -> None:
            meta, status = one["metadata"], one.pop("status", None)
            plural = {"GPUNode": "gpunodes", "GPUDiagnostic": "gpudiagnostics"}[one["kind"]]
            within = f"/namespaces/{meta['namespace']}" if "namespace" in meta else ""
            path = f"{GROUP}{within}/{plural}/{meta['name']}"
            clean = {key: meta[key] for key in ("name", "namespace") if key in meta}
            await api.apply(path, {**one, "metadata": clean})
            made.append(path)
            if status is not None:
                await api.merge(f"{path}/status", {"status": status})

        yield write
        for path in made:
            await api.delete(path)


@pytest.fixture
def connect(control_plane: ControlPlane, tmp_path: Path) -> Connect:
    """``async with connect("--allow-create") as client``: a started ``gpudiag-mcp`` and a client of it."""

    @asynccontextmanager
    async def start(
        *flags: str, mode: Any = "auto", kubeconfig: Path | None = None, **options: Any
    ) -> AsyncIterator[Client]:
        command = StdioServerParameters(
            command=sys.executable,
            args=["-m", "gpudiag_mcp", f"--kubeconfig={kubeconfig or control_plane.kubeconfig}", *flags],
        )
        async with Client(command, mode=mode, **options) as client:
            yield client

    return start
