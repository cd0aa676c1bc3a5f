"""A proxy between operator and API server that misbehaves by a fixed script: a bad day of an API server.

Plain HTTP towards the operator, TLS towards the API server. Every answer that is not passed on comes from a cycle that
is counted per method, or per watched resource, so the same requests meet the same faults.
"""

import asyncio
import json
import ssl
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from gpudiag_cli import kubeconfig
from gpudiag_cli.controlplane import ControlPlane

PASS = ""
CYCLES: Mapping[str, tuple[str, ...]] = {
    "PATCH": ("409", PASS, PASS, "429", PASS, PASS, "500", PASS, PASS, "503", PASS, PASS, "lost", PASS, PASS, "cut"),
    "POST": (PASS, "429", PASS, PASS, "500", PASS, PASS, "lost", PASS, PASS, "503", PASS, PASS, "cut", PASS),
    "DELETE": ("500", PASS),
    "GET": ("503", PASS, "429", PASS, "cut", PASS),
    "WATCH": ("event 410", "500", "cut", "slow", "410", "event 500", "half a line", "429"),
}
"""lost: done, but the answer never arrives. cut: the connection ends, nothing was done."""
_OFFSETS = {"nodes": 0, "pods": 2, "gpunodes": 4, "gpudiagnostics": 6}
_REASONS = {
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}
WATCH_SECONDS = 1.0
"""How long a watch lives before it meets its fault."""
RETRY_AFTER = 1


def refusal(code: int) -> dict[str, Any]:
    """A Status as API servers send it."""
    message = "the object has been modified; please apply your changes to the latest version and try again"
    if code == 410:
        message = "too old resource version: 1 (2)"
    elif code != 409:
        message = "the server is having a bad day"
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**head, "message": message, "reason": _REASONS[code], "code": code}


class FaultyProxy:
    """Run its coroutines in one loop.

    Attributes:
        faulty: whether the script is followed; else everything is passed on.
        delivered: what was done, for example ``PATCH 409`` or ``WATCH slow``.
        impatient: requests repeated sooner than a 429 had asked for.
    """

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        access = kubeconfig.load(plane.kubeconfig)
        self._server = access.server
        self._tls = access.tls or ssl.create_default_context()
        self._token = access.token
        self.kubeconfig = folder / "proxied.kubeconfig"
        self.faulty = False
        self.delivered: Counter[str] = Counter()
        self.impatient: list[str] = []
        self._seen: Counter[str] = Counter()
        self._forgotten: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.ServerRunner | None = None
        self._port = 0

    async def open(self) -> None:
        """Listen, on the same port each time."""
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]
        self.write_kubeconfig(self.kubeconfig, token="the proxy has the true one")

    async def close(self) -> None:
        """Refuse connections, and end those there are: to the operator, the API server is away."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def forget(self) -> None:
        """The next watch of each resource is told that its version is too old, as after a compaction."""
        self._forgotten = set(_OFFSETS)

    async def end(self) -> None:
        await self.close()
        if self._session is not None:
            await self._session.close()

    def write_kubeconfig(self, path: Path, *, token: str) -> None:
        """For whoever shall come this way."""
        text = json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "proxied",
                "clusters": [{"name": "proxied", "cluster": {"server": f"http://127.0.0.1:{self._port}"}}],
                "users": [{"name": "proxied", "user": {"token": token}}],
                "contexts": [{"name": "proxied", "context": {"cluster": "proxied", "user": "proxied"}}],
            }
        )
        path.write_text(text)

    # One request -------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        kind = "WATCH" if "watch" in request.query else request.method
        what = self._next(kind, request.path)
        if kind == "WATCH" and not what.isdigit():
            return await self._watch(request, what)
        if what.isdigit():
            headers = {"Retry-After": str(RETRY_AFTER)} if what == "429" else {}
            if what == "429" and kind != "POST":  # a collection takes those of other objects meanwhile
                self._not_before[f"{kind} {request.path}"] = time.monotonic() + RETRY_AFTER - 0.05
            return web.json_response(refusal(int(what)), status=int(what), headers=headers)
        if what == "cut":
            return _hang_up(request)
        async with self._upstream(request, body) as answer:
            said = await answer.read()
        if what == "lost":
            return _hang_up(request)
        return web.Response(status=answer.status, body=said, headers={"Content-Type": answer.content_type})

    def _next(self, kind: str, path: str) -> str:
        """What to do with a request."""
        before = self._not_before.pop(f"{kind} {path}", 0.0)
        if time.monotonic() < before:
            self.impatient.append(f"{kind} {path}")
        resource = next((name for name in (*_OFFSETS, "events") if f"/{name}" in path), "")
        if kind == "WATCH" and resource in self._forgotten:
            self._forgotten.remove(resource)
            return "410"
        if not self.faulty or not resource:  # without one it is discovery
            return PASS
        key = f"{kind} {resource}" if kind == "WATCH" else kind
        number = self._seen[key] + (_OFFSETS.get(resource, 0) if kind == "WATCH" else 0)
        self._seen[key] += 1
        what = CYCLES[kind][number % len(CYCLES[kind])]
        if what:
            self.delivered[f"{kind} {what}"] += 1
        return what

    def _upstream(self, request: web.BaseRequest, body: bytes) -> "aiohttp.client._RequestContextManager":
        assert self._session is not None
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() in ("content-type", "accept", "user-agent")
        }
        headers |= {"Authorization": f"Bearer {self._token}", "Accept-Encoding": "identity"}
        url = URL(f"{self._server}{request.raw_path}", encoded=True)
        return self._session.request(request.method, url, data=body or None, headers=headers)

    # Watches -----------------------------------------------------------------------------------------------------

    async def _watch(self, request: web.BaseRequest, what: str) -> web.StreamResponse:
        async with self._upstream(request, b"") as answer:
            if answer.status != 200:
                return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            try:
                async with asyncio.timeout(WATCH_SECONDS if what not in (PASS, "slow") else None):
                    async for line in answer.content:
                        if what == "slow":
                            await asyncio.sleep(WATCH_SECONDS)
                        await response.write(line)
            except TimeoutError:
                if what.startswith("event "):
                    event = {"type": "ERROR", "object": refusal(int(what.removeprefix("event ")))}
                    await response.write(json.dumps(event).encode() + b"\n")
                    return response
                if what == "half a line":
                    await response.write(b'{"type": "MODIFIED", "object": {"kind": "No')
                return _hang_up(request)
            return response


def _hang_up(request: web.BaseRequest) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
