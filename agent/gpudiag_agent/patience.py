"""Connections of clients that take their time: a head that does not end, an answer that is not read.

aiohttp gives an idle connection minutes, and one whose client reads nothing for ever. Its handler is wrapped here:
asyncio sees a Guard, the application's middleware tells it when a head was complete.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.typedefs import Handler

_log = logging.getLogger(__name__)

HEAD_SECONDS = 10.0
"""From the connection, or the first byte of another request, to the end of its head."""
UNREAD_SECONDS = 30.0
"""An answer that does not fit into the kernel's buffers waits so long for its client."""
NO_BODIES: dict[str, Any] = {"auto_decompress": False, "lingering_time": 2.0}
"""For ``web.AppRunner``. No request of ours has a body: one that comes is not unpacked, and not received for long."""


class Guard(asyncio.Protocol):
    """One connection: ends it when its client is too slow.

    Args:
        handler: aiohttp's, that everything goes on to.
    """

    def __init__(self, handler: asyncio.Protocol) -> None:
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._head: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._answering = False
        self._last = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: it is there."""
        self._transport = cast("asyncio.Transport", transport)
        # Told of every byte that waits for the client, not only beyond 64 KiB: a close would wait for them, too.
        self._transport.set_write_buffer_limits(high=1, low=0)
        # Over TLS asyncio does not tell what one write left behind: there the kernel ends who takes nothing (tcp(7)).
        with contextlib.suppress(OSError):
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_SECONDS * 1000))
        self._handler.connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """asyncio: the client sent something."""
        self._last = (self._last + data)[-4:]
        if not self._answering:
            self._await_head()
        self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        """asyncio: the client sends no more."""
        return self._handler.eof_received()

    def pause_writing(self) -> None:
        """asyncio: the buffers are full."""
        self._handler.pause_writing()
        self._unread = asyncio.get_running_loop().call_later(UNREAD_SECONDS, self._end, "does not read")

    def resume_writing(self) -> None:
        """asyncio: they are no longer."""
        self._handler.resume_writing()
        self._unread = _cancel(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it is gone."""
        self._head, self._unread = _cancel(self._head), _cancel(self._unread)
        self._transport = None
        self._handler.connection_lost(exc)

    def begin(self) -> None:
        """A head was complete; its request is being answered."""
        self._answering = True
        self._head = _cancel(self._head)

    def done(self) -> None:
        """It was answered; what came behind it may be the beginning of the next one."""
        self._answering = False
        if self._last != b"\r\n\r\n":
            self._await_head()

    def _await_head(self) -> None:
        if self._head is None and self._transport is not None:
            self._head = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._end, "sends no whole request")

    def _end(self, why: str) -> None:
        if self._transport is not None:
            _log.debug("a connection is ended: its client %s", why)
            self._transport.abort()


def guarded(server: web.Server, *, most: int) -> Callable[[], asyncio.Protocol]:
    """A factory of guarded connections that turns away what is one too many.

    Args:
        server: aiohttp's.
        most: so many connections may it have.
    """
    return lambda: Guard(server()) if len(server.connections) < most else _Full()


@web.middleware
async def told(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The middleware that tells a connection's guard of its requests."""
    guard = request.transport.get_protocol() if request.transport is not None else None
    if not isinstance(guard, Guard):
        return await handler(request)
    guard.begin()
    try:
        return await handler(request)
    finally:
        guard.done()


class _Full(asyncio.Protocol):
    """Nobody's."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Gives what stands for no timer."""
    if timer is not None:
        timer.cancel()
    return None
