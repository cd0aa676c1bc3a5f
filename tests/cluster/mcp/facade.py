"""A started ``gpudiag-mcp --transport http`` and its callers, for the tests over HTTP."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

AUDIENCE = "gpudiag-mcp"

RULES: list[dict[str, Any]] = [
    {"apiGroups": ["gpudiag.dev"], "resources": ["gpunodes", "gpudiagnostics"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get"]},
    {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
    {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
]
"""What the facade's own service account needs to read."""

IMPERSONATION: list[dict[str, Any]] = [
    {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]},
    {
        "apiGroups": ["authentication.k8s.io"],
        "resources": ["uids", "userextras/authentication.kubernetes.io/credential-id"],
        "verbs": ["impersonate"],
    },
]
"""What it needs besides to create for service accounts."""

Start = Callable[..., AbstractAsyncContextManager["Facade"]]


@dataclass
class Facade:
    """The process; ``url`` and ``metrics_url`` are where it listens."""

    process: asyncio.subprocess.Process
    lines: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    metrics_url: str = ""

    @property
    def base(self) -> str:
        return self.url.removesuffix("/mcp")

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        async for raw in self.process.stderr:
            line = json.loads(raw)
            self.lines.append(line)
            if found := re.search(r"http://\S+/mcp", line["message"]):
                self.url = found.group()
            elif found := re.search(r"http://\S+/metrics", line["message"]):
                self.metrics_url = found.group()

    async def get(self, path: str) -> httpx2.Response:
        async with httpx2.AsyncClient(trust_env=False) as http:
            return await http.get(f"{self.base}{path}")

    async def listening(self) -> None:
        async with asyncio.timeout(20):
            while not self.metrics_url:
                assert self.process.returncode is None, self.lines
                await asyncio.sleep(0.02)

    async def ready(self) -> None:
        await self.listening()
        async with asyncio.timeout(20):
            while (await self.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)

    def said(self, **fields: Any) -> list[dict[str, Any]]:
        """Log lines with these fields."""
        return [line for line in self.lines if fields.items() <= line.items()]

    async def metric(self, name: str, **labels: str) -> float | None:
        """A sample of the metrics, None when absent."""
        async with httpx2.AsyncClient(trust_env=False) as http:
            text = (await http.get(self.metrics_url)).text
        for line in text.splitlines():
            found, _, value = line.rpartition(" ")
            if found.startswith(name) and all(f'{key}="{text}"' in found for key, text in labels.items()):
                return float(value)
        return None

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            return await self.process.wait()


@asynccontextmanager
async def facade(
    kubeconfig: Path | None,
    *flags: str,
    environ: Mapping[str, str] | None = None,
    program: Sequence[str] = ("-m", "gpudiag_mcp"),
    ready: bool = True,
) -> AsyncIterator[Facade]:
    """Run one on free ports until the end of the block."""
    own = () if kubeconfig is None else (f"--kubeconfig={kubeconfig}",)
    command = ["--transport=http", "--port=0", "--metrics-addr=127.0.0.1:0", *own, *flags]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *program,
        *command,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environ or {})},
    )
    one = Facade(process)
    reading = asyncio.create_task(one.read_log())
    try:
        if ready:
            await one.ready()
        yield one
    finally:
        try:
            await one.stop()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await reading


@asynccontextmanager
async def calling(
    *urls: str, token: str = "", headers: Mapping[str, str] | None = None, mode: Any = "auto", **options: Any
) -> AsyncIterator[Client]:
    """The real client; with several addresses each request goes to the next one, as behind a Service."""
    own = {**({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
    replicas = [httpx2.URL(url) for url in urls]
    sent = 0

    async def next_replica(request: httpx2.Request) -> None:
        nonlocal sent
        replica = replicas[sent % len(replicas)]
        sent += 1
        request.url = request.url.copy_with(port=replica.port)

    async with (
        httpx2.AsyncClient(headers=own, trust_env=False, timeout=30, event_hooks={"request": [next_replica]}) as http,
        Client(streamable_http_client(urls[0], http_client=http), mode=mode, **options) as client,
    ):
        yield client


def message(method: str = "tools/list", **params: Any) -> dict[str, Any]:
    """A request of the handshake era: it needs no session here."""
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


ACCEPT = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
