"""One call to one agent over HTTP, as cheap as aiohttp allows and as distrustful as an open network asks for.

Built on aiohttp with one session for all nodes. What it adds: the slot of the global limit is given back between the
last byte of the request and the first of the answer (aiohttp tells that moment by starting the response object, which
is ours), bounded reading, and a classification of everything that can go wrong.
"""

import asyncio
import math
import random
import socket
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import lru_cache
from typing import TypeVar

import aiohttp
from yarl import URL

from gpudiag_api.vocabulary import NotRead
from gpudiag_api.wire import Report
from gpudiag_operator.collect import body, classify
from gpudiag_operator.collect.classify import Stage
from gpudiag_operator.collect.limiter import Pace, Slot
from gpudiag_operator.collect.outcome import Answer, FetchError, TokenSource
from gpudiag_operator.collect.routes import Place, Route
from gpudiag_operator.collect.settings import CollectSettings
from gpudiag_operator.collect.staleness import check_fresh
from gpudiag_operator.collect.standstill import Standstill
from gpudiag_operator.collect.trace_context import CallSpans, unrecorded
from gpudiag_operator.domain import AgentPod

NEW_CONNECTIONS_PER_SECOND = 400.0
"""So that the start of an operator is no storm: each new one costs an entry of the node's connection tracking for two
minutes, and a full table drops everybody's packets. 2,180 a second fill a usual one."""

_PROBLEM_BYTES = 4096
_LIFETIME_JITTER = 0.2

_T = TypeVar("_T")


class _Call:
    """The progress of one call: its stage, and the slot it holds or not."""

    __slots__ = ("_stages", "slot", "stage")

    def __init__(self, slot: Slot, stages: dict[Stage, int]) -> None:
        self.slot = slot
        self.stage = Stage.CONNECTING
        self._stages = stages
        stages[Stage.CONNECTING] += 1

    def enter(self, stage: Stage) -> None:
        self._stages[self.stage] -= 1
        self._stages[stage] += 1
        self.stage = stage

    def end(self) -> None:
        self._stages[self.stage] -= 1

    def sent(self) -> None:
        self.enter(Stage.SENT)
        self.slot.drop()


_current: ContextVar[_Call] = ContextVar("_current")


class _Response(aiohttp.ClientResponse):
    """aiohttp starts a response when the request is on its way: the moment to let others connect."""

    async def start(self, connection: aiohttp.connector.Connection) -> "aiohttp.ClientResponse":
        _current.get().sent()
        return await super().start(connection)


class _Endpoint:
    """URLs of one agent, made once, and when its kept connection is due for renewal."""

    __slots__ = ("base", "renew_at", "urls", "where")

    def __init__(self, place: Place, renew_at: float) -> None:
        self.where = place.where
        self.base = place.base
        self.renew_at = renew_at
        self.urls: dict[str, URL] = {}

    def url(self, path: str) -> URL:
        found = self.urls.get(path)
        if found is None:
            found = self.urls[path] = URL(self.base + path, encoded=True)
        return found


class AgentClient:
    """The Fetcher over HTTP. Make it inside a running loop; ``close`` it.

    Args:
        settings: see there.
        route: the way to the agents.
        token: shown to agents.
        spans: made around calls, to tell of them elsewhere.
        rng: jitter.
        wall: Unix seconds.
    """

    def __init__(
        self,
        settings: CollectSettings,
        *,
        route: Route,
        token: TokenSource = lambda: None,
        spans: CallSpans = unrecorded,
        rng: random.Random | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.calls = dict.fromkeys(Stage, 0)
        """Calls under way by stage: connecting, sent and waiting for the first byte, reading the body."""
        self.opened = 0
        """Connections that were opened, all together."""
        self._settings = settings
        self._route = route
        self._token = token
        self._span = spans
        self._rng = rng or random.Random()  # noqa: S311  (ids and jitter, no secrets)
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._endpoint = lru_cache(maxsize=16_384)(self._new_endpoint)
        self._standstill = Standstill()
        self._pace = Pace(NEW_CONNECTIONS_PER_SECOND, clock=self._loop.time)
        self._kept = self._session(force_close=False)
        self._short = self._session(force_close=True)

    async def close(self) -> None:
        """Close all connections."""
        self._standstill.close()
        await self._kept.close()
        await self._short.close()

    async def fetch(
        self,
        pod: AgentPod,
        slot: Slot,
        *,
        seconds: float,
        wait: float = 0.0,
        fresh: bool = False,
        etag: str | None = None,
        known: Report | None = None,
        run_id: str = "",
    ) -> Answer:
        """See ``Fetcher.fetch``."""
        endpoint = self._endpoint(self._route.place(pod))
        query = "?fresh=true" if fresh else f"?wait={wait:g}s" if wait and etag else ""
        session = self._short if fresh else self._kept

        async def read(response: aiohttp.ClientResponse) -> Answer:
            return await self._answer(response, pod.node, endpoint.where, known=known if etag else None)

        path = f"/v1/report{query}"
        with self._span(pod.node, path, run_id) as traceparent:
            headers = await self._headers(etag, run_id, traceparent)
            if self._loop.time() >= endpoint.renew_at:
                headers["Connection"] = "close"
                endpoint.renew_at = self._renewal()
            request = self._request(session, endpoint.url(path), headers)
            held = wait if etag else 0.0
            return await self._exchange(request, read, slot, endpoint.where, seconds=seconds, wait=held)

    async def get(self, pod: AgentPod, slot: Slot, path: str, *, seconds: float, run_id: str) -> bytes:
        """See ``Fetcher.get``."""
        endpoint = self._endpoint(self._route.place(pod))

        async def read(response: aiohttp.ClientResponse) -> bytes:
            if response.status != 200:
                raise await self._refused(response, endpoint.where)
            content = await body.read_bounded(response)
            response.release()
            return content

        with self._span(pod.node, path, run_id) as traceparent:
            headers = await self._headers(None, run_id, traceparent)
            request = self._request(self._short, endpoint.url(path), headers)
            return await self._exchange(request, read, slot, endpoint.where, seconds=seconds, wait=0.0)

    def _request(
        self, session: aiohttp.ClientSession, url: URL, headers: dict[str, str]
    ) -> Awaitable[aiohttp.ClientResponse]:
        secured = self._route.secured()
        return session.get(
            url,
            headers=headers,
            allow_redirects=False,
            ssl=secured.context or True,
            server_hostname=secured.server_name,
        )

    async def _exchange(
        self,
        request: Awaitable[aiohttp.ClientResponse],
        read: Callable[[aiohttp.ClientResponse], Awaitable[_T]],
        slot: Slot,
        where: str,
        *,
        seconds: float,
        wait: float,
    ) -> _T:
        """Send a request and read its answer, each part within its time, the slot held only where it must be."""
        call = _Call(slot, self.calls)
        _current.set(call)
        total = seconds + wait
        limit = self._standstill.watch(asyncio.timeout(total))
        try:
            async with limit:
                response = await request
                try:
                    call.enter(Stage.BODY)
                    await self._hold(slot, limit)
                    # What began to come must come now, however much of the poll's wait is left: it holds the slot.
                    # A 304 is all there already, and a loop's timers are not cheap.
                    if response.status != 304:
                        limit.reschedule(min(limit.when() or math.inf, self._loop.time() + seconds))
                    return await read(response)
                except BaseException:
                    response.close()
                    raise
        except TimeoutError:
            spent = self._settings.node_timeout if call.stage is Stage.CONNECTING else total
            raise classify.timed_out(call.stage, spent, where) from None
        except (aiohttp.ClientError, OSError) as error:
            raise classify.transport(error, where, call.stage) from error
        finally:
            self._standstill.release(limit)
            call.end()

    async def _hold(self, slot: Slot, limit: asyncio.Timeout) -> None:
        """Take the slot again; the wait for it is our congestion, so it is not on the node's clock."""
        if slot.try_hold():
            return
        before, deadline = self._loop.time(), limit.when()
        limit.reschedule(None)
        await slot.hold()
        if deadline is not None:
            limit.reschedule(deadline + self._loop.time() - before)

    async def _answer(self, response: aiohttp.ClientResponse, node: str, where: str, *, known: Report | None) -> Answer:
        headers = response.headers
        if response.status == 304 and known is not None:
            report, etag = None, headers.get("ETag")
        elif response.status == 200:
            content = await body.read_bounded(response)
            report = body.parse(content, content_type=headers.get("Content-Type", ""), node=node)
            etag = headers.get("ETag")
        else:
            raise await self._refused(response, where)
        confirmed = known if report is None else report
        if confirmed is not None:
            sampled_at, date = headers.get("X-Gpudiag-Sampled-At"), headers.get("Date")
            check_fresh(confirmed, sampled_at=sampled_at, date=date, now=self._wall())
        response.release()
        return Answer(report=report, etag=etag)

    async def _refused(self, response: aiohttp.ClientResponse, where: str) -> FetchError:
        return self._route.refused(response.status, await response.content.read(_PROBLEM_BYTES), where)

    async def _headers(self, etag: str | None, run_id: str, traceparent: str) -> dict[str, str]:
        headers = await self._route.headers()
        headers["X-Request-Id"] = run_id or traceparent.split("-")[1]
        headers["traceparent"] = traceparent
        if etag is not None:
            headers["If-None-Match"] = etag
        try:
            token = self._token()
        except OSError as error:
            raise FetchError(
                NotRead.AUTH_UNAVAILABLE,
                f"the operator's token for agents cannot be read: {error.strerror or error}",
                advice="check the projected token volume of the operator's Pod",
            ) from error
        if token:
            headers[self._route.token_header] = f"Bearer {token}"
        return headers

    def _new_endpoint(self, place: Place) -> _Endpoint:
        return _Endpoint(place, self._renewal())

    def _renewal(self) -> float:
        """When the connection made now is due: lifetimes differ, so that a fleet is not reconnected at once."""
        spread = self._rng.uniform(1 - _LIFETIME_JITTER, 1 + _LIFETIME_JITTER)
        return self._loop.time() + self._settings.connection_lifetime * spread

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        self.opened += 1
        return _socket(address)

    async def _open_in_turn(self, *_: object) -> None:
        """Called when aiohttp is about to open a connection."""
        await self._pace.turn()

    def _session(self, *, force_close: bool) -> aiohttp.ClientSession:
        # No limit per host: a poller has one request in flight by construction, and two Pods that claim one
        # address must each be told apart (IdentityMismatch), not wait for each other.
        connector = aiohttp.TCPConnector(
            limit=0,
            force_close=force_close,
            keepalive_timeout=None if force_close else self._settings.connection_idle,
            socket_factory=self._socket,
        )
        # Who waits for its turn holds a slot of the global limit, so waits are short (256 slots: about half a second).
        opening = aiohttp.TraceConfig()
        opening.on_connection_create_start.append(self._open_in_turn)
        return aiohttp.ClientSession(
            connector=connector,
            trace_configs=[opening],
            response_class=_Response,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "gpudiag-operator"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._settings.node_timeout),
        )


_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 2), ("TCP_USER_TIMEOUT", 15_000))


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices within 20 s that its node is gone, also while a poll waits and nothing is sent."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made
