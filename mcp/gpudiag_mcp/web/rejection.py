"""Requests that do not get as far as the protocol. The body is a JSON-RPC error, so that hosts show the sentence."""

import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
"""ASGI 3."""

_CODE = -32000
"""Server error of JSON-RPC 2.0; the HTTP status says the rest."""


class Rejection(Exception):  # noqa: N818  (an answer, not a mistake)
    """An HTTP status and a sentence that says what to do; ``retry_after`` in seconds."""

    def __init__(
        self, status: int, message: str, *, retry_after: float | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers
        if retry_after is not None:
            self.headers = (*headers, ("retry-after", str(max(1, math.ceil(retry_after)))))

    async def answer(self, send: Send) -> None:
        """Send it, and close the connection: the request's body may not have been read."""
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": None, "error": {"code": _CODE, "message": self.message}})
        own = (("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close"))
        headers = [(name.encode(), value.encode()) for name, value in (*own, *self.headers)]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
