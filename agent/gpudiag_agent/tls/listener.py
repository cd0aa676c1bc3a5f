"""Accepts TLS connections with limits that asyncio's own server has not: of connections, and of handshakes at once.

asyncio keeps 256 KiB for each TLS connection (3.11, sslproto), so a few hundred that nobody asked for would be the end
of an agent. Each new connection takes the certificate of that moment, so a renewal drops none.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Sized

from gpudiag_agent.clock import Clock

_log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 5.0
MOST_HANDSHAKES = 32
"""At once; a client that gets no turn is closed, and comes again."""
MOST_CONNECTIONS = 128
"""An operator has one or two, each reader of metrics one."""

_PAUSE = 0.5
"""Seconds without accepting when the process has no file left."""


class Listener:
    """Serves a listening socket.

    Args:
        sock: listens; closed by its owner.
        protocols: makes the protocol of a connection.
        connections: those that are served.
        context: gives the TLS context of this moment; None: close whoever comes.
        clock: for a pause.
        handshake_seconds: how long a client may take to shake hands.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        protocols: Callable[[], asyncio.Protocol],
        connections: Callable[[], Sized],
        context: Callable[[], ssl.SSLContext | None],
        clock: Clock,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        self._sock = sock
        self._protocols = protocols
        self._connections = connections
        self._context = context
        self._clock = clock
        self._seconds = handshake_seconds
        self._handshakes: set[asyncio.Task[None]] = set()
        self.turned_away = 0
        """Connections that were closed at once."""
        self.failed_handshakes = 0

    async def run(self) -> None:
        """Accept until cancelled; handshakes under way end with it, connections do not."""
        self._sock.settimeout(0)
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    accepted, _ = await loop.sock_accept(self._sock)
                except OSError as error:  # no file left, or the client has gone
                    _log.warning("a connection could not be accepted", extra={"reason": error.strerror})
                    await self._clock.sleep(_PAUSE)
                else:
                    self._take(accepted)
        finally:
            for task in self._handshakes:
                task.cancel()
            await asyncio.gather(*self._handshakes, return_exceptions=True)

    def _take(self, accepted: socket.socket) -> None:
        context = self._context()
        served = len(self._connections()) + len(self._handshakes)
        if context is None or len(self._handshakes) >= MOST_HANDSHAKES or served >= MOST_CONNECTIONS:
            self.turned_away += 1
            accepted.close()
            return
        task = asyncio.create_task(self._shake_hands(accepted, context))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, accepted: socket.socket, context: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await loop.connect_accepted_socket(
                self._protocols,
                accepted,
                ssl=context,
                ssl_handshake_timeout=self._seconds,
                ssl_shutdown_timeout=1.0,
            )
        except OSError as error:  # TLS errors and the end of the time are OSErrors
            self.failed_handshakes += 1
            _log.debug("no TLS connection came about", extra={"reason": str(error)[:200]})
