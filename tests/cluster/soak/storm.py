"""The proxy of a seed: between operator and API server, faulty while the storm lasts."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from tests.cluster.badinput.proxy import FaultyProxy, refusal
from tests.cluster.soak.plan import Plan

from gpudiag_cli.controlplane import ControlPlane

_OURS = ("/nodes", "/pods", "/gpunodes", "/gpudiagnostics", "/events", "/leases")
_SLOW_SECONDS = 3.0
"""A tenth of what a very slow API server takes, as every wait of these runs is shortened."""
_LAG_SECONDS = 0.7
_WATCH_SECONDS = 1.5
"""How long a watch lives before it meets its fault."""


class Storm(FaultyProxy):
    """Faults by the dice of a plan; ``calm`` ends them."""

    def __init__(self, plane: ControlPlane, folder: Path, plan: Plan, *, kill: Callable[[], None]) -> None:
        super().__init__(plane, folder)
        self._plan = plan
        self._dice = plan.dice()
        self._kill = kill
        self._kills = dict(plan.kills)
        self._writes = 0
        self._lines: dict[str, bytes] = {}
        self._watching: set[asyncio.Task[object]] = set()

    def rage(self) -> None:
        """Begin."""
        self.faulty = True

    async def calm(self) -> None:
        """End: whoever watches is told that its version is too old, as after a fail-over of the API server."""
        self.faulty = False
        self.forget()
        for task in list(self._watching):
            task.cancel()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        ours = any(part in request.path for part in _OURS)
        write = request.method in {"PATCH", "POST", "DELETE"} and ours and "/leases" not in request.path
        moment = ""
        if write and self.faulty:
            self._writes += 1
            moment = self._kills.pop(self._writes, "")
        if moment == "before":
            return self._killed(request)
        answer = await self._weather(request, write=write)
        return self._killed(request) if moment == "after" else answer

    def _killed(self, request: web.BaseRequest) -> web.StreamResponse:
        self.delivered["KILL"] += 1
        self._kill()
        return _hang_up(request)

    async def _weather(self, request: web.BaseRequest, *, write: bool) -> web.StreamResponse:
        watch = "watch" in request.query
        kinds = self._plan.watches if watch else self._plan.writes if write else self._plan.reads
        struck = self.faulty and bool(kinds) and self._dice.random() < self._plan.rate
        what = self._dice.choice(kinds) if struck and any(part in request.path for part in _OURS) else ""
        if what:
            self.delivered[f"{'WATCH' if watch else request.method} {what}"] += 1
        if what == "slow":
            await asyncio.sleep(_SLOW_SECONDS)
            what = ""
        if what == "429 soon":
            return web.json_response(refusal(429), status=429)
        if what == "422":
            body = {**refusal(409), "code": 422, "reason": "Invalid", "message": "a webhook of somebody else says no"}
            return web.json_response(body, status=422)
        if watch and not what.isdigit():
            return await self._follow(request, what)
        if what == "half":
            return await self._half(request)
        return await self._answer(request, what)

    async def _answer(self, request: web.BaseRequest, what: str) -> web.StreamResponse:
        body = await request.read()
        if what.isdigit():
            headers = {"Retry-After": "1"} if what == "429" else {}
            return web.json_response(refusal(int(what)), status=int(what), headers=headers)
        if what == "cut":
            return _hang_up(request)
        async with self._upstream(request, body) as answer:
            said = await answer.read()
        if what == "lost":
            return _hang_up(request)
        return web.Response(status=answer.status, body=said, headers={"Content-Type": answer.content_type})

    async def _half(self, request: web.BaseRequest) -> web.StreamResponse:
        async with self._upstream(request, await request.read()) as answer:
            said = await answer.read()
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
        response.content_length = len(said)
        await response.prepare(request)
        await response.write(said[: len(said) // 2])
        return _hang_up(request)

    async def _follow(self, request: web.BaseRequest, what: str) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._watching.add(task)
        try:
            return await self._watched(request, what)
        except asyncio.CancelledError:
            return _hang_up(request)
        finally:
            self._watching.discard(task)

    async def _watched(self, request: web.BaseRequest, what: str) -> web.StreamResponse:
        async with self._upstream(request, b"") as answer:
            if answer.status != 200:
                return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            try:
                async with asyncio.timeout(_WATCH_SECONDS if what else None):
                    async for line in answer.content:
                        for out in self._bent(request.path, line, what):
                            await response.write(out)
                        if what == "lag":
                            await asyncio.sleep(_LAG_SECONDS)
            except TimeoutError:
                return await self._broken_off(request, response, what)
            return response

    def _bent(self, path: str, line: bytes, what: str) -> list[bytes]:
        """What the operator sees of an event."""
        before, self._lines[path] = self._lines.get(path), line
        if what == "skip" and b'"BOOKMARK"' not in line and self._dice.random() < 0.5:
            return []
        if what == "repeat":
            return [line, line]
        if what == "back" and before is not None and b'"ADDED"' not in line:
            return [line, before]
        return [line]

    async def _broken_off(
        self, request: web.BaseRequest, response: web.StreamResponse, what: str
    ) -> web.StreamResponse:
        if what in {"event 410", "event 500", "skip", "back"}:
            code = 500 if what == "event 500" else 410
            await response.write(json.dumps({"type": "ERROR", "object": refusal(code)}).encode() + b"\n")
            return response
        if what == "half a line":
            await response.write(b'{"type": "MODIFIED", "object": {"kind": "No')
        return _hang_up(request)


def _hang_up(request: web.BaseRequest) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
