"""A proxy that can cut an operator off: connections stay, nothing gets through in either direction.

Plain HTTP towards the operator, TLS towards the API server. A request that hangs is passed on when the partition
heals, unless whoever made it hung up meanwhile: as packets that are sent again.
"""

import asyncio
import json
import ssl
import time
from pathlib import Path

import aiohttp
from aiohttp import web
from yarl import URL

from gpudiag_cli import kubeconfig
from gpudiag_cli.controlplane import ControlPlane


class Partition:
    """Run its coroutines in one loop; ``cut`` and ``heal`` may be called from any thread."""

    def __init__(self, plane: ControlPlane, path: Path) -> None:
        access = kubeconfig.load(plane.kubeconfig)
        self.kubeconfig = path
        self._server = access.server
        self._tls = access.tls or ssl.create_default_context()
        self._token = access.token
        self._through = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.ServerRunner | None = None
        self._asked: list[tuple[float, str]] = []
        self._written: list[tuple[float, str]] = []

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._through.set()
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        cluster = {"server": f"http://127.0.0.1:{self._runner.addresses[0][1]}"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxied",
            "clusters": [{"name": "proxied", "cluster": cluster}],
            "users": [{"name": "proxied", "user": {"token": "the proxy has the true one"}}],
            "contexts": [{"name": "proxied", "context": {"cluster": "proxied", "user": "proxied"}}],
        }
        self.kubeconfig.write_text(json.dumps(config))

    async def close(self) -> None:
        self._through.set()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    def cut(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._through.clear)

    def heal(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._through.set)

    def attempts(self, *, since: float) -> list[str]:
        """Writes that the operator tried since then (monotonic seconds)."""
        return [what for when, what in self._asked if when >= since]

    def writes(self, *, since: float, leases: bool = True) -> list[str]:
        """Writes that were sent to the API server since then."""
        return [what for when, what in self._written if when >= since and (leases or "/leases" not in what)]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        what = f"{request.method} {request.path}"
        if request.method != "GET":
            self._asked.append((time.monotonic(), what))
        await self._through.wait()
        if request.method != "GET":
            self._written.append((time.monotonic(), what))
        assert self._session is not None
        wanted = ("content-type", "accept", "user-agent")
        headers = {name: value for name, value in request.headers.items() if name.lower() in wanted}
        headers |= {"Authorization": f"Bearer {self._token}", "Accept-Encoding": "identity"}
        url = URL(f"{self._server}{request.raw_path}", encoded=True)
        async with self._session.request(request.method, url, data=body or None, headers=headers) as answer:
            if "watch" not in request.query:
                said = await answer.read()
                await self._through.wait()
                return web.Response(status=answer.status, body=said, headers={"Content-Type": answer.content_type})
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
            await response.prepare(request)
            async for line in answer.content:
                await self._through.wait()
                await response.write(line)
            return response
