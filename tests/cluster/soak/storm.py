"""The proxy of one operator: between it and the API server, faulty while the storm lasts."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from tests.cluster.badinput.proxy import FaultyProxy, refusal
from tests.cluster.soak.ledger import Ledger
from tests.cluster.soak.plan import Plan

from gpudiag_cli.controlplane import ControlPlane

_OURS = ("/nodes", "/pods", "/gpunodes", "/gpudiagnostics", "/events", "/leases")
_SLOW_SECONDS = 30.0
_LAG_SECONDS = 0.7
_WATCH_SECONDS = 1.5
"""How long a watch lives before it meets its fault."""
_WRITES = {"PATCH", "POST", "DELETE"}
_LISTED = b"k8s.io/initial-events-end"


@dataclass
class Weather:
    """What all operators of a world share.

    Attributes:
        plan: the faults.
        ledger: filled by all proxies.
        kills: those still to come: moments by number of the write.
        killed: those that happened.
    """

    plan: Plan
    ledger: Ledger = field(default_factory=Ledger)
    writes: int = 0
    killed: list[tuple[int, str]] = field(default_factory=list)
    kills: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kills = dict(self.plan.kills)


class Storm(FaultyProxy):
    """Faults by the dice of a plan; ``calm`` ends them."""

    def __init__(
        self, plane: ControlPlane, folder: Path, weather: Weather, *, name: str, kill: Callable[[], None]
    ) -> None:
        super().__init__(plane, folder)
        self._plan = weather.plan
        self._weather = weather
        self._name = name
        self._kill = kill
        self._folder = folder
        self._lives = 0
        self._asked: Counter[str] = Counter()
        self._lines: dict[str, bytes] = {}
        self._watching: set[asyncio.Task[object]] = set()
        self._through = asyncio.Event()
        self._through.set()
        self._over = asyncio.Event()

    def next_life(self) -> Path:
        """A kubeconfig by which the process that gets it is known."""
        self._lives += 1
        path = self._folder / f"{self._name}-{self._lives}.kubeconfig"
        self.write_kubeconfig(path, token=f"{self._name}-{self._lives}")
        return path

    async def rage(self) -> None:
        """Begin: watches end, so that new ones meet the weather."""
        self.faulty = True
        self._end_watches()

    def cut_off(self) -> None:
        """Nothing gets through any more, in either direction; connections stay."""
        self.delivered["PARTITION"] += 1
        self._through.clear()

    def reconnect(self) -> None:
        """What waits is passed on, unless whoever made it hung up: as packets that are sent again."""
        self._through.set()

    async def calm(self) -> None:
        """End: whoever watches is told that its version is too old, as after a fail-over of the API server."""
        self.faulty = False
        self._over.set()
        self.reconnect()
        self.forget()
        self._end_watches()

    def _end_watches(self) -> None:
        for task in list(self._watching):
            task.cancel()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._through.wait()
        ledger = self._weather.ledger
        ledger.requests[f"{request.method} {request.path}"] += 1
        ours = any(part in request.path for part in _OURS)
        write = request.method in _WRITES and ours and "/leases" not in request.path
        number, moment = 0, ""
        if write and self.faulty:
            self._weather.writes += 1
            number = self._weather.writes
            moment = self._weather.kills.pop(number, "")
        if moment == "before":
            return self._killed(request, number, moment)
        answer = await self._struck(request, write=write, ours=ours)
        await self._through.wait()
        return self._killed(request, number, moment) if moment == "after" else answer

    def _killed(self, request: web.BaseRequest, number: int, moment: str) -> web.StreamResponse:
        self.delivered["KILL"] += 1
        self._weather.killed.append((number, moment))
        self._kill()
        return _hang_up(request)

    async def _struck(self, request: web.BaseRequest, *, write: bool, ours: bool) -> web.StreamResponse:
        watch = "watch" in request.query
        kinds = self._plan.watches if watch else self._plan.writes if write else self._plan.reads
        what = self._fault(f"{'WATCH' if watch else request.method} {request.path}", kinds) if ours else ""
        if what:
            self.delivered[f"{'WATCH' if watch else request.method} {what}"] += 1
        if what == "slow":
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), _SLOW_SECONDS)
            what = ""
        if what == "429 soon":
            return web.json_response(refusal(429), status=429)
        if what == "422":
            body = {**refusal(409), "code": 422, "reason": "Invalid", "message": "a webhook of somebody else says no"}
            return web.json_response(body, status=422)
        if watch and not what.isdigit():
            return await self._follow(request, what)
        return await self._answer(request, what)

    def _fault(self, kind: str, kinds: tuple[str, ...]) -> str:
        """What befalls this request, the so-manieth of its kind."""
        if not self.faulty or not kinds:
            return ""
        self._asked[kind] += 1
        # The path names no namespace of a run, which is drawn by chance.
        dice = self._plan.dice(self._name, kind.rpartition("/")[2], kind.partition(" ")[0], self._asked[kind])
        often = 2 if kind.startswith("WATCH") else 1  # there are few of them, and they live long
        return dice.choice(kinds) if dice.random() < often * self._plan.rate else ""

    async def _answer(self, request: web.BaseRequest, what: str) -> web.StreamResponse:
        body = await request.read()
        if what.isdigit():
            headers = {"Retry-After": "1"} if what == "429" else {}
            return web.json_response(refusal(int(what)), status=int(what), headers=headers)
        if what == "cut":
            return _hang_up(request)
        known = self._weather.ledger.newest
        async with self._upstream(request, body) as answer:
            said = await answer.read()
        if request.method in _WRITES and answer.status < 300:
            writer = request.headers.get("Authorization", "").removeprefix("Bearer ")
            self._weather.ledger.wrote(writer, f"{request.method} {request.path}", json.loads(said), known=known)
        if what == "lost":
            return _hang_up(request)
        if what == "half":
            return await self._half(request, answer.status, said)
        return web.Response(status=answer.status, body=said, headers={"Content-Type": answer.content_type})

    async def _half(self, request: web.BaseRequest, status: int, said: bytes) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": "application/json"})
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
            listing = "sendInitialEvents" in request.query  # a list, if by another name: lists do not lie
            try:
                async with asyncio.timeout(_WATCH_SECONDS if what else None):
                    async for line in answer.content:
                        await self._through.wait()
                        for out in self._bent(request.path, line, "" if listing else what):
                            await response.write(out)
                        listing = listing and _LISTED not in line
                        if what == "lag":
                            await asyncio.sleep(_LAG_SECONDS)
            except TimeoutError:
                return await self._broken_off(request, response, what)
            return response

    def _bent(self, path: str, line: bytes, what: str) -> list[bytes]:
        """What the operator sees of an event."""
        before, self._lines[path] = self._lines.get(path), line
        if what == "skip" and b'"BOOKMARK"' not in line:
            self._asked[f"LINE {path}"] += 1
            number = self._asked[f"LINE {path}"]
            return [] if self._plan.dice(self._name, path.rpartition("/")[2], number).random() < 0.5 else [line]
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
