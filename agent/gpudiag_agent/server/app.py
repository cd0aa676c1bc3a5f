"""The paths of the HTTP contract."""

import functools
from collections.abc import Callable, Collection

import msgspec
from aiohttp import web

from gpudiag_agent import patience
from gpudiag_agent.publisher import Publisher, Snapshot, TooManyWaitersError
from gpudiag_agent.sampler import Sampler
from gpudiag_agent.server import access, middleware, negotiation, openapi, query
from gpudiag_agent.server.answers import JSON, compressible
from gpudiag_agent.server.details import Details
from gpudiag_agent.server.metrics import Metrics
from gpudiag_agent.server.problems import unavailable


class Server:
    """Handlers over the publisher's current snapshot.

    Args:
        publisher: has the report.
        sampler: for ``?fresh=true``.
        metrics: for ``/metrics``, and counts requests.
        details: the paths besides the report.
        admit: decides by a request's token; None: everybody may read.
        mutual: whether clients must have shown a certificate.
        anonymous: paths that need neither.
        unready: why clients cannot be answered although there is a report; None: they can.
    """

    def __init__(
        self,
        *,
        publisher: Publisher,
        sampler: Sampler,
        metrics: Metrics,
        details: Details,
        admit: access.Admit | None = None,
        mutual: bool = False,
        anonymous: Collection[str] = (),
        unready: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._publisher = publisher
        self._sampler = sampler
        self._metrics = metrics
        self._details = details
        self._admit = admit
        self._mutual = mutual
        self._anonymous = frozenset(anonymous)
        self._unready = unready

    def application(self) -> web.Application:
        """The aiohttp application."""
        chain = [patience.told, middleware.answers(sampled_at=self._sampled_at, count=self._metrics.answered)]
        if self._mutual:
            chain.append(access.certificates(anonymous=self._anonymous))
        if self._admit is not None:
            chain.append(access.tokens(self._admit, anonymous=self._anonymous))
        app = web.Application(middlewares=chain, client_max_size=1)
        app.router.add_get("/v1/report", self._report)
        self._details.add_to(app)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_get("/openapi.json", self._openapi)
        return app

    def probes(self) -> web.Application:
        """What the kubelet's port serves: not even the time of the last sample besides."""
        answers = middleware.answers(sampled_at=lambda: None, count=self._metrics.answered)
        app = web.Application(middlewares=[patience.told, answers], client_max_size=1)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        return app

    def _sampled_at(self) -> str | None:
        current = self._publisher.current
        return current.report.sampled_at if current else None

    async def _report(self, request: web.Request) -> web.Response:
        asked = query.report_query(request.query.items())
        if asked.fresh:
            await self._sampler.fresh()
        current = self._current()
        known = request.headers.get("If-None-Match")
        if negotiation.matches(known, current.etag):
            if asked.wait:
                current = await self._changed(asked.wait)
            if negotiation.matches(known, current.etag):
                return web.Response(status=304, headers=_caching(current))
        return compressible(
            request, current.body, JSON, headers=_caching(current), compressed=lambda: current.compressed
        )

    async def _changed(self, seconds: float) -> Snapshot:
        try:
            await self._publisher.wait_for_change(seconds)
        except TooManyWaitersError:
            raise unavailable("too many requests wait for a change already; ask without wait, or later") from None
        return self._current()

    def _current(self) -> Snapshot:
        if self._publisher.current is None:
            raise unavailable("the first sample is not finished yet")
        return self._publisher.current

    async def _healthz(self, request: web.Request) -> web.Response:
        query.known(request.query.items(), ())
        return _json({"status": "ok"})

    async def _readyz(self, request: web.Request) -> web.Response:
        query.known(request.query.items(), ())
        self._current()
        if (why := self._unready()) is not None:
            raise unavailable(why)
        return _json({"status": "ready"})

    async def _metrics_page(self, request: web.Request) -> web.Response:
        query.known(request.query.items(), ())
        page = self._metrics.page()
        return compressible(request, page, "text/plain; version=0.0.4", charset="utf-8")

    async def _openapi(self, request: web.Request) -> web.Response:
        query.known(request.query.items(), ())
        return compressible(request, _document(tokens=self._admit is not None), JSON)


@functools.cache
def _document(*, tokens: bool) -> bytes:
    return openapi.document(tokens=tokens)


def _caching(snapshot: Snapshot) -> dict[str, str]:
    return {"ETag": snapshot.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}


def _json(content: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), content_type=JSON, headers={"Cache-Control": "no-store"})
