"""Certificates of every kind, and a node that is served over real TLS on loopback."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from tests.unit.agent.served_node import Node

from gpudiag_agent import options
from gpudiag_agent.clock import ManualClock
from gpudiag_agent.serving import Serving
from gpudiag_operator.agent_tls import pairs
from gpudiag_operator.agent_tls.pairs import Pair

NAME = "gpudiag-agent.gpudiag-system.svc"
DAY = 86_400.0


def pair(name: str = NAME, *, made: float = 0.0, lifetime: float = DAY) -> Pair:
    """A certificate made ``made`` seconds from now (before: negative)."""
    return pairs.issue(name, now=time.time() + made, lifetime=lifetime)


def put(folder: Path, made: Pair) -> None:
    """As the kubelet does: a new folder, then a link that moves."""
    target = folder / f"..{time.monotonic_ns()}"
    target.mkdir(parents=True)
    for name, content in (("tls.crt", made.certificate), ("tls.key", made.key), ("ca.crt", made.authority)):
        (target / name).write_bytes(content)
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(Path("..data") / name)
    fresh = folder / "..data_tmp"
    fresh.symlink_to(target.name)
    fresh.rename(folder / "..data")


def believing(*made: Pair, client: Path | None = None) -> ssl.SSLContext:
    """What an operator uses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=b"".join(one.authority for one in made).decode())
    if client is not None:
        context.load_cert_chain(client / "tls.crt", client / "tls.key")
    return context


class TLSNode(Node):
    """A node behind a Listener."""

    serving: Serving
    port: int
    health: str


@asynccontextmanager
async def tls_node(folder: Path, *flags: str) -> AsyncIterator[TLSNode]:
    """Serve with the certificates of a folder; the clock is turned by hand."""
    node = TLSNode()
    with socket.create_server(("127.0.0.1", 0)) as free:
        health = free.getsockname()[1]
    asked = options.parse(
        ("--tls-cert-dir", str(folder), "--host", "127.0.0.1", "--health-port", str(health), *flags), {}
    )
    node.serving = Serving(asked, clock=node.clock)
    node.server._unready = node.serving.unready
    node.server._mutual, node.server._anonymous = asked.tls_client_auth == "require", frozenset({"/metrics"})
    runner = web.AppRunner(node.server.application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    sock = socket.create_server(("127.0.0.1", 0))
    node.port, node.health = sock.getsockname()[1], f"http://127.0.0.1:{health}"
    node.url = f"https://127.0.0.1:{node.port}"
    parts = [asyncio.create_task(part) for part in await node.serving.start(runner, sock, node.server.probes())]
    try:
        yield node
    finally:
        for part in parts:
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
        await node.serving.close()
        await runner.cleanup()
        sock.close()


async def turn(clock: ManualClock, seconds: float) -> None:
    """Let whoever waits for the clock have its turn."""
    async with asyncio.timeout(5):
        while not clock.sleeping:
            await asyncio.sleep(0)
    clock.advance(seconds)
    for _ in range(3):
        await asyncio.sleep(0)


async def handshake(port: int, context: ssl.SSLContext, name: str = NAME) -> tuple[dict[str, object], str]:
    """The certificate that is shown, and the version of TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    try:
        shown = writer.get_extra_info("peercert")
        return shown, writer.get_extra_info("ssl_object").version()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        del reader
