"""A proxy between one operator process and the API server that does what a storm says, as long as it lasts.

Plain HTTP towards the operator, TLS towards the API server; so where TLS would be cut, a connection is reset. Lists and
watches of cluster-scoped kinds are narrowed to the world's label, so that several worlds share one API server and each
operator sees a fleet of its own.
"""

import asyncio
import json
import random
import ssl
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from tests.cluster.badinput.proxy import refusal
from tests.cluster.soak.ledger import Ledger
from tests.cluster.soak.plan import Kill, Side, Storm, answer_fault, watch_fault
from yarl import URL

from gpudiag_cli.kubeconfig import Access

LABEL = "soak"
_NARROWED = ("/api/v1/nodes", "/apis/gpudiag.dev/v1alpha1/gpunodes", "/apis/gpudiag.dev/v1alpha1/gpudiagnostics")
_RESOURCES = ("gpudiagnostics", "gpunodes", "nodes", "pods", "events", "leases")
_UNPROCESSABLE = {
    "kind": "Status",
    "apiVersion": "v1",
    "status": "Failure",
    "reason": "Invalid",
    "code": 422,
    "message": "the object is invalid: an admission plugin is having a bad day",
}


@dataclass
class Weather:
    """The storm over one world, shared by the proxies of its processes."""

    seed: str
    ledger: Ledger
    storm: Storm | None = None
    counted: Counter[str] = field(default_factory=Counter)
    writes: int = 0
    kills: list[Kill] = field(default_factory=list)
    calm: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, storm: Storm, phase: int) -> None:
        self.seed = f"{self.seed.partition('/')[0]}/{phase}"
        self.storm, self.kills, self.writes = storm, list(storm.kills), 0
        self.counted.clear()
        self.calm.clear()

    def end(self) -> None:
        self.storm, self.kills = None, []
        self.calm.set()

    async def wait(self, seconds: float) -> None:
        """So long, or until it is calm."""
        try:
            async with asyncio.timeout(seconds):
                await self.calm.wait()
        except TimeoutError:
            pass

    def count(self, key: str) -> int:
        self.counted[key] += 1
        return self.counted[key]


class ApiProxy:
    """For one process.

    Args:
        access: the true API server.
        session: for requests to it.
        weather: of the world.
        name: of the process, in the ledger.
        world: value of the label that everything of the world has.
        kill: ends the process with SIGKILL.
    """

    def __init__(
        self,
        *,
        access: Access,
        session: aiohttp.ClientSession,
        weather: Weather,
        name: str,
        world: str,
        kill: Callable[[], None],
    ) -> None:
        self.name = name
        self.partitioned = False
        self._access = access
        self._session = session
        self._weather = weather
        self._ledger = weather.ledger
        self._world = world
        self._kill = kill
        self._through = asyncio.Event()
        self._through.set()
        self._runner: web.ServerRunner | None = None

    async def open(self, kubeconfig: Path) -> None:
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        cluster = {"server": f"http://127.0.0.1:{self._runner.addresses[0][1]}"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "soak",
            "clusters": [{"name": "soak", "cluster": cluster}],
            "users": [{"name": "soak", "user": {"token": "the proxy has the true one"}}],
            "contexts": [{"name": "soak", "context": {"cluster": "soak", "user": "soak"}}],
        }
        kubeconfig.write_text(json.dumps(config))

    async def close(self) -> None:
        self._through.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def cut(self) -> None:
        """From now on nothing gets through, in either direction; connections stay."""
        self.partitioned = True
        self._through.clear()

    def heal(self) -> None:
        self.partitioned = False
        self._through.set()

    # One request -------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            body = await request.read()
            await self._through.wait()
            kind = "WATCH" if "watch" in request.query else request.method
            resource = next((name for name in _RESOURCES if f"/{name}" in request.path), "")
            self._ledger.requests[f"{kind} {resource}"] += 1
            if kind == "WATCH":
                return await self._watch(request, resource)
            return await self._answer(request, body, kind, resource)
        except (ConnectionError, aiohttp.ClientError):
            return _hang_up(request)

    async def _answer(self, request: web.BaseRequest, body: bytes, kind: str, resource: str) -> web.StreamResponse:
        fault = self._fault(kind, resource)
        match fault:
            case "422":
                return web.json_response(_UNPROCESSABLE, status=422)
            case "409" | "500" | "503":
                return web.json_response(refusal(int(fault)), status=int(fault))
            case "429" | "429 later":
                headers = {"Retry-After": "1"} if fault == "429 later" else {}
                return web.json_response(refusal(429), status=429, headers=headers)
            case "cut":
                return _hang_up(request)
            case "slow before":
                await self._slow()
        killed = self._killed(kind, resource)
        if killed is Side.BEFORE:
            self._kill()
            return _hang_up(request)
        status, said, content_type = await self._pass_on(request, body, kind)
        if killed is Side.AFTER:
            self._kill()
            return _hang_up(request)
        await self._through.wait()
        if fault == "slow after":
            await self._slow()
        if fault == "lost":
            return _hang_up(request)
        if fault == "half" and len(said) > 1:
            response = web.StreamResponse(status=status, headers={"Content-Type": content_type})
            response.content_length = len(said)
            await response.prepare(request)
            await response.write(said[: len(said) // 2])
            await asyncio.sleep(0.05)
            return _hang_up(request)
        return web.Response(status=status, body=said, headers={"Content-Type": content_type})

    async def _pass_on(self, request: web.BaseRequest, body: bytes, kind: str) -> tuple[int, bytes, str]:
        known = self._ledger.newest
        async with self._upstream(request, body) as answer:
            said = await answer.read()
        if kind in ("POST", "PATCH", "PUT", "DELETE") and answer.status < 300:
            # A process that died or gave up meanwhile has written all the same: etcd's order is what counts.
            self._ledger.wrote(self.name, f"{kind} {request.path}", json.loads(said), known=known)
        return answer.status, said, answer.content_type

    def _fault(self, kind: str, resource: str) -> str:
        storm = self._weather.storm
        if storm is None or not resource:  # without one it is discovery
            return ""
        number = self._weather.count(f"{kind} {resource}")
        fault = answer_fault(storm, seed=self._weather.seed, kind=kind, resource=resource, number=number)
        if fault:
            self._ledger.injected[f"{kind} {fault}"] += 1
        return fault

    def _killed(self, kind: str, resource: str) -> Side | None:
        """Whether the process dies with this write."""
        weather = self._weather
        if weather.storm is None or kind not in ("POST", "PATCH", "DELETE"):
            return None
        if resource == "leases" and weather.writes % 3:  # most of them are renewals
            return None
        weather.writes += 1
        if weather.kills and weather.writes >= weather.kills[0].write:
            side = weather.kills.pop(0).side
            self._ledger.injected[f"kill {side} {kind} {resource}"] += 1
            return side
        return None

    async def _slow(self) -> None:
        storm = self._weather.storm
        if storm is not None:
            await self._weather.wait(storm.slow_seconds)

    def _upstream(self, request: web.BaseRequest, body: bytes) -> "aiohttp.client._RequestContextManager":
        wanted = ("content-type", "accept", "user-agent")
        headers = {name: value for name, value in request.headers.items() if name.lower() in wanted}
        headers |= {"Authorization": f"Bearer {self._access.token}", "Accept-Encoding": "identity"}
        url = URL(f"{self._access.server}{request.raw_path}", encoded=True)
        if request.method == "GET" and request.path in _NARROWED:
            url = url.update_query(labelSelector=f"{LABEL}={self._world}")
        return self._session.request(request.method, url, data=body or None, headers=headers)

    # Watches -----------------------------------------------------------------------------------------------------

    async def _watch(self, request: web.BaseRequest, resource: str) -> web.StreamResponse:
        weather, storm = self._weather, self._weather.storm
        number = weather.count(f"WATCH {resource}")
        fault = watch_fault(storm or Storm(), seed=weather.seed, resource=resource, number=number)
        if fault.end:
            self._ledger.injected[f"WATCH {fault.end}"] += 1
        if fault.end == "410":
            return web.json_response(refusal(410), status=410)
        if fault.end:
            # Events between a list and its watch are still to come when the watch begins late.
            await weather.wait(fault.after / 4)
        async with self._upstream(request, b"") as answer:
            if answer.status != 200:
                return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            stream = _Stream(self, response, random.Random(f"{weather.seed} {resource} {number} events"))
            try:
                async with asyncio.timeout(fault.after if fault.end else None) as limit:
                    if fault.end:
                        self._end_with_storm(limit)
                    async for line in answer.content:
                        await self._through.wait()
                        await stream.send(line)
            except TimeoutError:
                end = "410 event" if stream.skipped else fault.end
                return await self._end(request, response, end)
            return response

    def _end_with_storm(self, limit: asyncio.Timeout) -> None:
        """A watch that has a fault meets it when the storm ends, at the latest."""

        async def shorten() -> None:
            await self._weather.calm.wait()
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

        task = asyncio.create_task(shorten())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    async def _end(self, request: web.BaseRequest, response: web.StreamResponse, end: str) -> web.StreamResponse:
        if end.endswith("event"):
            event = {"type": "ERROR", "object": refusal(int(end.split()[0]))}
            await response.write(json.dumps(event).encode() + b"\n")
            return response
        if end == "end":
            return response
        if end == "half a line":
            await response.write(b'{"type": "MODIFIED", "object": {"kind": "No')
        return _hang_up(request)

    @property
    def storm(self) -> Storm | None:
        return self._weather.storm

    async def lag(self, seconds: float) -> None:
        await self._weather.wait(seconds)

    def note(self, what: str) -> None:
        self._ledger.injected[what] += 1


_tasks: set[asyncio.Task[None]] = set()


class _Stream:
    """One watch on its way to the operator."""

    def __init__(self, proxy: ApiProxy, response: web.StreamResponse, rng: random.Random) -> None:
        self._proxy = proxy
        self._response = response
        self._rng = rng
        self._last: deque[bytes] = deque(maxlen=4)
        self.skipped = False

    async def send(self, line: bytes) -> None:
        """An event, or what the storm makes of it."""
        storm = self._proxy.storm
        bookmark = line.startswith(b'{"type":"BOOKMARK"')
        if storm is None or bookmark:
            if not self.skipped:
                await self._response.write(line)
            return
        if self.skipped or (storm.skip and self._rng.random() < storm.skip):
            # Later events would tell of a newer version: what was skipped is found by the list after the 410 alone.
            self.skipped = True
            self._proxy.note("WATCH skip")
            return
        if storm.lag:
            self._proxy.note("WATCH lag")
            await self._proxy.lag(self._rng.uniform(0.0, storm.lag))
        self._last.append(line)
        if storm.back and self._rng.random() < storm.back:
            self._proxy.note("WATCH back")
            for one in self._last:
                await self._response.write(one)
            return
        await self._response.write(line)
        if storm.repeat and self._rng.random() < storm.repeat:
            self._proxy.note("WATCH repeat")
            await self._response.write(line)


def _hang_up(request: web.BaseRequest) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


