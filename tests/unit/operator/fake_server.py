"""A small API server that breaks the watch protocol in every way, for the reflector and the client."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PATH = "/api/v1/nodes"


@dataclass
class NoAccess:
    """An API server without TLS, and a token that can be renewed."""

    host: str
    ssl: SSLContext | None = None
    server_hostname: str | None = None
    proxy: str | None = None
    token: str = "old"
    refreshed: int = 0

    async def authorization(self) -> str | None:
        return f"Bearer {self.token}"

    async def refresh(self) -> None:
        self.refreshed += 1
        self.token = "new"


def a_node(name: str, version: int, colour: str = "red", **extra: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, "colour": colour, **extra}


def event(kind: str, name: str, version: int, colour: str = "red") -> bytes:
    return json.dumps({"type": kind, "object": a_node(name, version, colour)}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    return json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}}).encode() + b"\n"


def end(version: int) -> bytes:
    """The bookmark after the initial events."""
    metadata = {"resourceVersion": str(version), "annotations": {"k8s.io/initial-events-end": "true"}}
    return json.dumps({"type": "BOOKMARK", "object": {"metadata": metadata}}).encode() + b"\n"


def error_event(code: int, reason: str) -> bytes:
    status = {"kind": "Status", "code": code, "reason": reason, "message": "so it is"}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


@dataclass
class Server:
    """Lists ``objects`` at ``version``; watches play ``scripts`` in turn, the last one then stays silent."""

    objects: list[dict[str, Any]] = field(default_factory=list)
    version: int = 1
    scripts: list[list[bytes | str]] = field(default_factory=list)
    lists: int = 0
    watches: list[dict[str, str]] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    fail_lists: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    other: Handler | None = None
    streams: bool = False
    """Whether it knows ``sendInitialEvents`` (WatchList)."""
    port: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """A watch has played all scripts and is silent."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.other is not None:
            return await self.other(request)
        query = dict(request.query)
        if query.get("sendInitialEvents") and not self.streams:
            return web.json_response({"kind": "Status", "reason": "Invalid", "code": 422}, status=422)
        if query.get("watch"):
            self.watches.append(query)
            return await self.play(request)
        self.queries.append(query)
        return self.list(query)

    def list(self, query: dict[str, str]) -> web.Response:
        if self.fail_lists:
            code, headers = self.fail_lists.pop(0)
            return web.json_response(
                {"kind": "Status", "reason": "Trouble", "code": code}, status=code, headers=headers
            )
        start, limit = int(query.get("continue") or 0), int(query["limit"])
        self.lists += start == 0
        more = str(start + limit) if start + limit < len(self.objects) else ""
        metadata = {"resourceVersion": str(self.version), "continue": more}
        return web.json_response({"metadata": metadata, "items": self.objects[start : start + limit]})

    async def play(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if not self.scripts:
            self.idle.set()
            await asyncio.sleep(60)
        for step in self.scripts.pop(0):
            if step == "cut":
                assert request.transport is not None
                request.transport.close()
                return response
            if step == "idle":
                await asyncio.sleep(0.01)
                self.idle.set()
            if step in {"silence", "idle"}:
                await asyncio.sleep(60)
            assert isinstance(step, bytes)
            await response.write(step)
        return response


class Log:
    """A listener that writes down what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str | None]] = []

    def upsert(self, name: str, item: str) -> None:
        self.told.append((name, item))

    def delete(self, name: str) -> None:
        self.told.append((name, None))
