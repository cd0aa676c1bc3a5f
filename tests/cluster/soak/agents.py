"""Small agents, and the proxy between each of them and the operator.

The agent listens on 127.0.0.1; what the Pod's IP reaches is a relay of bytes, which refuses, hangs, babbles, dawdles or
cuts for a while. A Pod that moves has a relay at another address.
"""

import asyncio
import contextlib
import random
import time
from itertools import count

import msgspec
from aiohttp import web
from tests.cluster.operator.conftest import BOOT, healthy, lost

from gpudiag_api import wire
from gpudiag_api.meaning import etag
from gpudiag_api.times import to_rfc3339
from gpudiag_api.vocabulary import Action, Blame, Health, Severity

_addresses = count(random.SystemRandom().randrange(12_000))
"""Test runs side by side on a machine start elsewhere; a port that is taken there is tried elsewhere, too."""
SEEN = to_rfc3339(1_700_000_000)
GARBAGE = b"\x15\x03\x01\x00\x02\x02\x0a" * 40


def address() -> str:
    number = next(_addresses) % 25_000
    return f"127.{150 + number // 250}.{number % 250 + 1}.1"


def turned(report: wire.Report, to: str) -> wire.Report:
    """The report after something happened to its first GPU."""
    sick = report.gpus[0]
    subject = wire.Subject(gpu_index=sick.index, gpu_uuid=sick.uuid, pci=sick.pci)
    match to:
        case "healthy":
            return healthy(report.agent.node_name)
        case "lost":
            return lost(report)
        case "driver":
            return msgspec.structs.replace(report, driver=wire.Driver(version="560.1.1", cuda_version="12.6"))
        case "warm":
            finding = _finding("Temperature", "NearSlowdown", Severity.WARNING, subject)
            return _with(report, Health.DEGRADED, finding)
        case "xid":
            finding = _finding("XID", "XID79", Severity.CRITICAL, subject)
            return _with(report, Health.UNHEALTHY, finding, _xid(79, Severity.CRITICAL, Blame.HARDWARE, subject))
        case "app xid":
            xid = _xid(31, Severity.INFO, Blame.APPLICATION, subject)
            return msgspec.structs.replace(report, xids=(xid,))
    raise AssertionError(to)


def _with(report: wire.Report, health: Health, finding: wire.Finding, *xids: wire.XIDEvent) -> wire.Report:
    sick = msgspec.structs.replace(report.gpus[0], health=health)
    gpus = (sick, *report.gpus[1:])
    return msgspec.structs.replace(report, health=health, gpus=gpus, findings=(finding,), xids=xids)


def _finding(check: str, reason: str, severity: Severity, subject: wire.Subject) -> wire.Finding:
    return wire.Finding(
        check=check,
        reason=reason,
        severity=severity,
        blame=Blame.HARDWARE,
        action=Action.DRAIN_AND_RESET_GPU,
        message=f"GPU 0: {reason}",
        subject=subject,
        first_seen=SEEN,
        last_seen=SEEN,
    )


def _xid(code: int, severity: Severity, blame: Blame, subject: wire.Subject) -> wire.XIDEvent:
    return wire.XIDEvent(
        id=f"{BOOT}/{code}",
        code=code,
        severity=severity,
        blame=blame,
        action=Action.NONE,
        message=f"NVRM: Xid {code}",
        subject=subject,
        first_seen=SEEN,
        last_seen=SEEN,
    )


class Agent:
    """One agent and its relay."""

    def __init__(self, node: str, *, job: tuple[str, str] | None = None) -> None:
        self.node = node
        self.requests = 0
        self.relay = Relay()
        self._report = self._allocated(healthy(node), job)
        self._job = job
        self._changed = asyncio.Event()
        self._runner: web.ServerRunner | None = None

    @staticmethod
    def _allocated(report: wire.Report, job: tuple[str, str] | None) -> wire.Report:
        if job is None:
            return report
        held = wire.Allocation(gpu_uuid=report.gpus[0].uuid, namespace=job[0], pod=job[1], container="main")
        return msgspec.structs.replace(report, allocations=(held,))

    async def open(self) -> None:
        server = web.Server(self._answer, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        await self.relay.open(self._runner.addresses[0][1])

    async def close(self) -> None:
        await self.relay.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def turn(self, to: str) -> None:
        self._report = self._allocated(turned(self._report, to), self._job)
        self._changed.set()
        self._changed = asyncio.Event()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests += 1
        if request.path != "/v1/report":
            return web.Response(status=404)
        tag = request.headers.get("If-None-Match")
        wait = float(request.query.get("wait", "0s").removesuffix("s"))
        if tag == etag(self._report) and wait:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait)
        now = to_rfc3339(time.time())
        headers = {"ETag": etag(self._report), "X-Gpudiag-Sampled-At": now}
        if tag == etag(self._report):
            return web.Response(status=304, headers=headers)
        body = wire.encode(msgspec.structs.replace(self._report, sampled_at=now))
        return web.Response(body=body, content_type="application/json", headers=headers)


class Relay:
    """Bytes between an address of a Pod and the agent."""

    def __init__(self) -> None:
        self.address = address()
        self.port = 0
        self._fault = ""
        self._behind = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self, behind: int) -> None:
        self._behind = behind
        await self._listen()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._cut()

    async def fault(self, what: str) -> None:
        """From now on; '' ends it. Connections that are open are reset."""
        self._fault = what
        if what == "refuse":
            await self.close()
        else:
            self._cut()
            if self._server is None:
                await self._listen()

    async def move(self) -> None:
        """To another address, the same port; who knows the old one meets nobody."""
        await self.close()
        self.address = address()
        await self._listen()

    async def _listen(self) -> None:
        for _ in range(20):
            try:
                self._server = await asyncio.start_server(self._serve, self.address, self.port)
                self.port = self._server.sockets[0].getsockname()[1]
                return
            except OSError:
                if self.port:
                    await asyncio.sleep(0.1)
                else:
                    self.address = address()
        raise AssertionError(f"{self.address}:{self.port} cannot be listened on")

    def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            match self._fault:
                case "hang":
                    await reader.read(-1)
                case "garbage":
                    await reader.read(100)
                    writer.write(GARBAGE)
                    await writer.drain()
                case _:
                    await self._relay(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._behind)
        pumps = {asyncio.create_task(_pump(reader, back)), asyncio.create_task(self._pump_back(there, writer))}
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            back.transport.abort()

    async def _pump_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self._fault == "slow":
                await asyncio.sleep(0.3)
            if self._fault == "cut":
                writer.write(data[: len(data) // 2])
                await writer.drain()
                return
            writer.write(data)
            await writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
