"""The gate before the protocol: who is it, is it too much, is it too large, is it too slow."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gpudiag_mcp import logs, tracing
from gpudiag_mcp.identity.buckets import Buckets
from gpudiag_mcp.identity.caller import Authenticated, caller
from gpudiag_mcp.identity.rights import Rights
from gpudiag_mcp.identity.tokens import TokenRefused, Tokens, TokenUnverified
from gpudiag_mcp.metrics import Metrics
from gpudiag_mcp.web.rejection import App, Message, Receive, Rejection, Scope, Send

log = logging.getLogger(__name__)

_SCHEME = "bearer "
_REALM = 'Bearer realm="gpudiag-mcp"'


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, one principal and all of them may take."""

    header_bytes: int = 32 << 10
    """Ample: a service account's token has about 1 KiB, one of an identity provider with many groups up to 16."""
    body_bytes: int = 256 << 10
    """The longest call takes some hundred bytes; a retry brings sealed state of a few KiB."""
    body_seconds: float = 10.0
    at_once: int = 64
    at_once_each: int = 16


class Gate:
    """ASGI middleware for one path; everything else passes.

    Args:
        app: the protocol.
        path: that is guarded.
        tokens: verifies callers; None: nobody is asked who they are.
        rights: of callers.
        requests: how many requests each principal may make; far more than calls, which are refused more politely.
        metrics: told of attempts, failures and limits.
        limits: of requests.
    """

    def __init__(
        self,
        app: App,
        *,
        path: str,
        tokens: Tokens | None,
        rights: Rights,
        requests: Buckets,
        metrics: Metrics,
        limits: Limits = Limits(),
    ) -> None:
        self._app = app
        self._path = path
        self._tokens = tokens
        self._rights = rights
        self._requests = requests
        self._metrics = metrics
        self._limits = limits
        self._active: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] != self._path:
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with (
            tracing.request(headers, method=scope["method"], path=self._path) as request,
            logs.bound(correlationID=request.trace_id),
        ):
            try:
                await self._pass(scope, headers, receive, _named(send, request))
            except Rejection as rejection:
                log.info("%d: %s", rejection.status, rejection.message)
                await rejection.answer(_named(send, request))

    async def _pass(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            # Stateless: there is no stream to open and no session to end (MCP 2025-11-25, Streamable HTTP).
            raise Rejection(405, "there are no sessions here: use POST", headers=(("allow", "POST"),))
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self._limits.header_bytes:
            raise Rejection(431, f"TooLarge: headers may have at most {self._limits.header_bytes} bytes.")
        who = await self._who(headers)
        name = who.name if who is not None else ""
        with self._room(name):
            if wait := self._requests.take(name):
                self._metrics.rate_limited.labels("request").inc()
                raise Rejection(429, f"TooManyRequests: repeat in {wait:.0f} s or later.", retry_after=wait)
            body = await self._body(headers, receive)
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                raise Rejection(415, "NotJSON: send the message with Content-Type: application/json.")
            token = caller.set(who)
            try:
                await self._app(scope, _replayed(body, receive), send)
            finally:
                caller.reset(token)

    async def _who(self, headers: dict[str, str]) -> Authenticated | None:
        if self._tokens is None:
            return None
        self._metrics.auth_attempts.inc()
        given = headers.get("authorization", "")
        token = given[len(_SCHEME) :].strip() if given.lower().startswith(_SCHEME) else ""
        try:
            return Authenticated(await self._tokens.principal(token), self._rights)
        except TokenRefused as error:
            self._metrics.auth_failures.labels(error.reason).inc()
            # RFC 6750 §3.1: no error code where no token was sent.
            why = "" if error.reason == "Missing" else f', error="invalid_token", error_description="{error}"'
            raise Rejection(
                401, f"Unauthorized: {error}.", headers=(("www-authenticate", f"{_REALM}{why}"),)
            ) from error
        except TokenUnverified as error:
            self._metrics.auth_failures.labels("Unavailable").inc()
            raise Rejection(503, f"Unavailable: {error}.", retry_after=error.retry_after) from error

    @contextmanager
    def _room(self, name: str) -> Iterator[None]:
        each = self._limits.at_once_each if self._tokens is not None else self._limits.at_once
        if self._active.total() >= self._limits.at_once:
            self._metrics.rate_limited.labels("concurrency").inc()
            raise Rejection(503, "Unavailable: too many requests at once. Repeat in a second.", retry_after=1)
        if self._active[name] >= each:
            self._metrics.rate_limited.labels("concurrency").inc()
            raise Rejection(429, f"TooManyRequests: {each} of yours are at work. Wait for them.", retry_after=1)
        self._active[name] += 1
        try:
            yield
        finally:
            self._active[name] -= 1
            if not self._active[name]:
                del self._active[name]

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        limit = self._limits.body_bytes
        declared = headers.get("content-length", "")
        too_large = Rejection(413, f"TooLarge: a request may have at most {limit} bytes.")
        if declared.isdecimal() and int(declared) > limit:
            raise too_large
        body: bytes = b""
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Rejection(400, "the request ended before its body did")
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise too_large
                    if not message.get("more_body", False):
                        return body
        except TimeoutError as error:
            seconds = self._limits.body_seconds
            raise Rejection(408, f"Timeout: the body did not arrive within {seconds:g} s.") from error


def _replayed(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _named(send: Send, request: tracing.Request) -> Send:
    """Tell the client under which id the logs speak of its request; and call nothing JSON that has no body."""

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            request.answered(message["status"])
            empty = message["status"] == 202
            headers = [one for one in message.get("headers", ()) if not (empty and one[0].lower() == b"content-type")]
            message["headers"] = [*headers, (b"x-request-id", request.trace_id.encode())]
        await send(message)

    return named
