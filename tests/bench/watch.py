"""Sees every GPUNode and GPUDiagnostic as soon as the API server shows it: two watches, with the time of each event."""

import asyncio
import time
from contextlib import suppress
from http import HTTPStatus
from types import TracebackType
from typing import Self

import aiohttp
import msgspec

from gpudiag_cli.kubeconfig import Access

_GROUP = "/apis/gpudiag.dev/v1alpha1"
_LONGEST_LINE = 4 << 20


class _Group(msgspec.Struct):
    """One entry of a GPUDiagnostic's ``status.findings``."""

    reason: str = ""
    count: int = 0


class _Condition(msgspec.Struct):
    type: str
    status: str
    reason: str = ""
    message: str = ""


class _Capability(msgspec.Struct):
    reason: str = ""


class _Agent(msgspec.Struct):
    capabilities: list[_Capability] = []


class Status(msgspec.Struct):
    """What rows look at, of either kind."""

    health: str = ""
    findings: list[_Group] = []
    conditions: list[_Condition] = []
    agent: _Agent = msgspec.field(default_factory=_Agent)
    message: str = ""

    @property
    def reasons(self) -> list[str]:
        """Of the findings."""
        return [finding.reason for finding in self.findings]

    @property
    def gaps(self) -> list[str]:
        """What the agent could not do."""
        return [each.reason for each in self.agent.capabilities]

    def condition(self, kind: str) -> str:
        """``True``, ``False``, or nothing."""
        return next((each.status for each in self.conditions if each.type == kind), "")

    def says(self, kind: str) -> str:
        """The message of a condition."""
        return next((each.message for each in self.conditions if each.type == kind), "")


class _Meta(msgspec.Struct):
    name: str = ""
    resourceVersion: str = ""  # noqa: N815  (the API's word)


class _Object(msgspec.Struct):
    metadata: _Meta
    status: Status | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class Seen(msgspec.Struct):
    """A status, and the monotonic time at which it was seen."""

    at: float
    name: str
    status: Status


class Watcher:
    """An asynchronous context manager that watches from before it is entered on."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self.seen: dict[str, Seen] = {}
        """The newest status of every GPUNode that has one."""
        self.log: list[Seen] = []
        """Every status of a GPUNode, in order; rows clear it."""
        self.fleet: list[Seen] = []
        """Every status of a GPUDiagnostic, in order; rows clear it."""
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {self._access.token}"} if self._access.token else {}
        tls = True if self._access.tls is None else self._access.tls
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(ssl=tls),
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=_LONGEST_LINE,
        )
        self._tasks = [asyncio.create_task(self._follow(kind)) for kind in ("gpunodes", "gpudiagnostics")]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        await self._session.close()

    def check(self) -> None:
        """Raise what ended a watch, if anything did."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def _follow(self, kind: str) -> None:
        url, version = f"{self._access.server}{_GROUP}/{kind}", ""
        while True:
            query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "3600"}
            if version:
                query["resourceVersion"] = version
            with suppress(aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError):
                async with self._session.get(url, params=query) as response:
                    if response.status == HTTPStatus.TOO_MANY_REQUESTS:  # a kind that was established just now
                        await asyncio.sleep(0.5)
                        continue
                    response.raise_for_status()
                    while line := await response.content.readline():
                        version = self._take(kind, line) or version

    def _take(self, kind: str, line: bytes) -> str:
        event, now = msgspec.json.decode(line, type=_Event), time.monotonic()
        if event.type == "ERROR":
            raise AssertionError(f"the watch of {kind} ended: {bytes(event.object).decode()}")
        found = msgspec.json.decode(event.object, type=_Object)
        if found.status is not None and event.type in ("ADDED", "MODIFIED"):
            seen = Seen(now, found.metadata.name, found.status)
            if kind == "gpunodes":
                self.seen[seen.name] = seen
                self.log.append(seen)
            else:
                self.fleet.append(seen)
        return found.metadata.resourceVersion
