"""The facade through the protocol: the real command over real stdio and real HTTP, with the real client.

The cluster is a small HTTP server on loopback in the process of the measurement, so what is measured is client, wire
and facade, on processors that they share.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from mcp import Client, StdioServerParameters
from tests.bench.context import progress
from tests.bench.result import Result, spread
from tests.cluster.mcp.facade import calling, facade

from gpudiag_mcp.answers.fit import LIMIT
from gpudiag_mcp.server.tools import READ_ONLY

ROUNDS = 20
TARGET_MS = 30.0
TOOLS = [spec.name for spec in READ_ONLY if spec.name not in ("get_gpu_diagnostic", "wait_for_gpu_diagnostic")]


async def through_the_protocol(nodes: list[dict[str, Any]], diagnostics: list[dict[str, Any]]) -> list[Result]:
    """Medians and sizes of every fleet question, over both transports."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        async with _cluster(nodes, diagnostics) as server:
            kubeconfig = Path(folder) / "kubeconfig"
            kubeconfig.write_text(json.dumps(_kubeconfig(server)))
            progress("the facade over stdio")
            command = StdioServerParameters(
                command=sys.executable, args=["-m", "gpudiag_mcp", f"--kubeconfig={kubeconfig}", "--log-level=warning"]
            )
            async with Client(command) as client:
                results += await _ask(client, "stdio", len(nodes))
            progress("the facade over HTTP")
            async with facade(kubeconfig, "--calls-per-minute=100000") as one, calling(one.url, token="t") as client:
                before, calls = _cpu_ms(one.process.pid), len(TOOLS) * (ROUNDS + 1)
                results += await _ask(client, "HTTP", len(nodes))
                used = (_cpu_ms(one.process.pid) - before) / calls
        name = f"facade, {len(nodes)} nodes, HTTP, processor time of the facade per fleet question"
        results.append(Result(name=name, measured=used, unit="ms"))
    return results


async def _ask(client: Client, wire: str, count: int) -> list[Result]:
    medians: dict[str, dict[str, float]] = {}
    sizes: dict[str, int] = {}
    for tool in TOOLS:
        times = []
        for _ in range(ROUNDS + 1):
            began = time.perf_counter()
            result = await client.call_tool(tool, {})
            times.append((time.perf_counter() - began) * 1000)
            assert not result.is_error, result
        sizes[tool] = len(result.model_dump_json(by_alias=True, exclude_none=True).encode())
        medians[tool] = spread(times[1:])
    slowest = max(medians, key=lambda tool: medians[tool]["median"])
    largest = max(sizes, key=lambda tool: sizes[tool])
    return [
        Result(
            name=f"facade, {count} nodes, {wire}, slowest fleet question, median",
            measured=medians[slowest]["median"],
            unit="ms",
            target=TARGET_MS,
            reference=slowest,
            details=medians,
        ),
        Result(
            name=f"facade, {count} nodes, {wire}, largest result on the wire",
            measured=sizes[largest] / 1024,
            unit="KiB",
            target=LIMIT / 1024,
            gates=True,
            reference=largest,
            details=sizes,
        ),
    ]


@asynccontextmanager
async def _cluster(nodes: list[dict[str, Any]], diagnostics: list[dict[str, Any]]) -> AsyncIterator[str]:
    """As much of an API server as the facade asks for: lists, watches that stay quiet, and reviews that say yes."""
    lists = {
        "gpunodes": json.dumps({"metadata": {"resourceVersion": "1"}, "items": nodes}).encode(),
        "gpudiagnostics": json.dumps({"metadata": {"resourceVersion": "1"}, "items": diagnostics}).encode(),
    }

    async def collection(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.Response(body=lists[request.match_info["plural"]], content_type="application/json")
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.sleep(float(request.query["timeoutSeconds"]))
        return response

    async def review(request: web.Request) -> web.Response:
        user = {"username": "bench", "uid": "1"}
        status = {"authenticated": True, "user": user, "audiences": ["gpudiag-mcp"], "allowed": True, "userInfo": user}
        return web.json_response({"status": status}, status=201)

    app = web.Application()
    app.router.add_get("/apis/gpudiag.dev/v1alpha1/{plural:gpunodes|gpudiagnostics}", collection)
    app.router.add_post("/apis/{tail:.*}", review)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield "http://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


def _cpu_ms(pid: int) -> float:
    """Processor time of a process so far: says something on a busy machine, too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def _kubeconfig(server: str) -> dict[str, Any]:
    return {
        "current-context": "bench",
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        "clusters": [{"name": "bench", "cluster": {"server": server}}],
        "users": [{"name": "bench", "user": {"token": "t"}}],
    }
