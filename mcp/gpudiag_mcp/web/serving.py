"""Listening, and stopping without cutting off what is at work."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from gpudiag_mcp.options import CannotStartError
from gpudiag_mcp.web.patience import PatientProtocol
from gpudiag_mcp.web.rejection import App, Receive, Scope, Send

log = logging.getLogger(__name__)

HEADER_BYTES = 32 << 10
"""Of headers that have not ended yet; the gate bounds those that have."""
CONNECTIONS = 1024
KEEP_ALIVE_SECONDS = 75


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        CannotStartError: naming the address.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        # With the protocol: asyncio sets TCP_NODELAY only where the socket names it. Without that each answer waits for
        # the client's delayed acknowledgement (40 ms on Linux).
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(1024)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise CannotStartError(f"cannot listen on {host}:{port} ({error.strerror}); choose another address") from error
    return listening


class Server(uvicorn.Server):
    """An ASGI server that leaves signals to :func:`run`."""

    def __init__(self, app: App, *, stop_seconds: int = 2) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=PatientProtocol,
                ws="none",
                loop="none",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=HEADER_BYTES,
                limit_concurrency=CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=stop_seconds,
                reset_contextvars=True,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: uvicorn would end the process with the signal again after it has stopped."""
        yield


async def run(
    server: Server, at: socket.socket, beside: Server | None = None, metrics: socket.socket | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is at work, for at most the server's ``stop_seconds``.

    Args:
        server: stops first.
        at: where it listens.
        beside: the server of the metrics, which tell of the end as well.
        metrics: where that one listens.
    """

    def stop() -> None:
        log.info("stopping: finishing requests in flight")
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with serving(beside, metrics):
        await server.serve([at])
    log.info("stopped")


@contextlib.asynccontextmanager
async def serving(server: Server | None, at: socket.socket | None) -> AsyncIterator[None]:
    """A server that runs meanwhile, or none."""
    if server is None or at is None:
        yield
        return
    task = asyncio.create_task(server.serve([at]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


def metrics_page(registry: CollectorRegistry) -> App:
    """``GET /metrics``."""

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        found = scope["path"] == "/metrics"
        headers = [(b"content-type", CONTENT_TYPE_LATEST.encode())]
        await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
        await send({"type": "http.response.body", "body": generate_latest(registry) if found else b""})

    return page
