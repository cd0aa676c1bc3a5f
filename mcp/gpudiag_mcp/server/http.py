"""The streamable HTTP transport: many clients, stateless, each with the rights of their own token."""

import asyncio
import json
import logging
import os
import time
from dataclasses import replace
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.context import ServerRequestContext
from mcp.server.request_state import RequestStateSecurity
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from gpudiag_mcp.answers.refusals import Refusal
from gpudiag_mcp.cache.reader import Caller, OwnIdentity
from gpudiag_mcp.identity.buckets import Buckets
from gpudiag_mcp.identity.caller import caller
from gpudiag_mcp.identity.rights import Rights
from gpudiag_mcp.identity.tokens import Tokens
from gpudiag_mcp.kube.errors import AccessError, ApiUnavailable
from gpudiag_mcp.options import CannotStartError, Options
from gpudiag_mcp.server.app import build_server
from gpudiag_mcp.server.dispatch import CallerOf
from gpudiag_mcp.service import Service, connect
from gpudiag_mcp.web import openapi
from gpudiag_mcp.web.gate import Gate, Limits
from gpudiag_mcp.web.health import readiness
from gpudiag_mcp.web.hosts import allowed_hosts, allowed_origins
from gpudiag_mcp.web.rejection import App
from gpudiag_mcp.web.serving import Server, listen, metrics_page, run

log = logging.getLogger(__name__)

PATH = "/mcp"
WARM_SECONDS = 30.0
RETRY_SECONDS = 2.0
_KEY_BYTES = 32
_REQUESTS_PER_CALL = 5
"""HTTP requests allowed for each allowed call: a call may be a hand-shake, a list, a completion and a retry."""


async def serve_http(service: Service, options: Options) -> None:
    """Serve until SIGTERM.

    Raises:
        CannotStartError: an address or a file cannot be used.
        AccessError: there is no cluster to talk to.
    """
    security = state_security(options.state_keys)
    at = listen(options.host, options.port)
    metrics_at = listen(*options.metrics_addr) if options.metrics_addr is not None else None
    api = await connect(options)
    # Identities and rights belong to one cluster: over HTTP there is no choice of a context.
    service = replace(service, contexts=service.contexts[:1])
    tokens = Tokens(api, audience=options.audience) if options.auth == "tokenreview" else None
    if tokens is None:
        log.warning("--auth none: everyone who reaches this address has this process's own rights")
    app = web_app(service, options, tokens=tokens, security=security)
    server = Server(app, stop_seconds=options.stop_seconds)
    log.info("serving http://%s:%d%s", options.host, at.getsockname()[1], PATH)
    metrics = None
    if metrics_at is not None:
        log.info("metrics at http://%s:%d/metrics", *metrics_at.getsockname()[:2])
        metrics = Server(metrics_page(service.metrics.registry))
    try:
        async with service.running():
            warm = asyncio.create_task(keep_warm(service))
            try:
                await run(server, at, metrics, metrics_at)
            finally:
                warm.cancel()
                await asyncio.gather(warm, return_exceptions=True)
    finally:
        await api.close()


def web_app(service: Service, options: Options, *, tokens: Tokens | None, security: RequestStateSecurity) -> App:
    """The ASGI application."""
    calls = Buckets(per_minute=options.calls_per_minute, burst=max(2, options.calls_per_minute / 4))
    server = build_server(
        service, caller_of=callers(service, calls, authenticated=tokens is not None), request_state_security=security
    )
    _add_probes(server, service)
    hosts = allowed_hosts(options)
    limits = Limits(at_once=options.max_requests)
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        stateless_http=True,
        max_request_body_size=limits.body_bytes,
        # Given explicitly: without it, any address but loopback would switch the protection off.
        transport_security=TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=allowed_origins(hosts)),
    )
    return Gate(
        app,
        path=PATH,
        tokens=tokens,
        rights=Rights(),
        requests=Buckets(
            per_minute=options.calls_per_minute * _REQUESTS_PER_CALL,
            burst=options.calls_per_minute * _REQUESTS_PER_CALL,
        ),
        metrics=service.metrics,
        limits=limits,
    )


def callers(service: Service, calls: Buckets, *, authenticated: bool) -> CallerOf:
    """Who makes the present call, and not too often."""

    async def caller_of() -> Caller:
        who = caller.get()
        if who is None and authenticated:
            raise Refusal("Unauthorized", "the caller is not known. Repeat the call with a token.")
        if wait := calls.take(who.name if who is not None else ""):
            service.metrics.rate_limited.labels("call").inc()
            raise Refusal("TooManyRequests", f"that are too many calls. Repeat this one in {wait + 0.5:.0f} s.")
        return who or OwnIdentity()

    return caller_of


def state_security(path: Path | None) -> RequestStateSecurity:
    """Seals what an elicitation leaves with the client: for its principal, readable by replicas with the same keys.

    Raises:
        CannotStartError: the file is not usable.
    """
    if path is None:
        log.warning("without --state-keys, approvals only work with one replica, and not across its restart")
        return RequestStateSecurity(keys=[os.urandom(_KEY_BYTES)], bind_principal=_principal)
    try:
        keys = [line.strip() for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise CannotStartError(f"--state-keys {path} cannot be read: {error.strerror}") from error
    if not keys or any(len(key) < _KEY_BYTES for key in keys):
        raise CannotStartError(
            f"--state-keys {path} must hold a key of at least {_KEY_BYTES} bytes on each line; "
            "make one with: openssl rand -hex 32"
        )
    return RequestStateSecurity(keys=keys, bind_principal=_principal)


def _principal(_: ServerRequestContext[object, object]) -> str | None:
    who = caller.get()
    return None if who is None else json.dumps([who.principal.username, who.principal.uid])


async def keep_warm(service: Service) -> None:
    """Keep the one cache open, until cancelled: readiness and the series per node speak of it."""
    said = ""
    while True:
        trouble = ""
        try:
            fleet = await service.caches.use("")
            # An API server that has just started refuses for a moment what it will allow.
            trouble = str(fleet.nodes.refused or fleet.diagnostics.refused or "")
        except (AccessError, ApiUnavailable) as error:
            trouble = str(error)
        if trouble != said:
            log.warning("the cluster cannot be read: %s", trouble) if trouble else log.info("the cluster is read")
            said = trouble
        await asyncio.sleep(WARM_SECONDS if not trouble else RETRY_SECONDS)


def _add_probes(server: MCPServer, service: Service) -> None:
    began = time.monotonic()

    @server.custom_route("/healthz", methods=["GET"])  # type: ignore[untyped-decorator]
    async def healthz(_: Request) -> Response:
        return PlainTextResponse(f"ok, {time.monotonic() - began:.0f} s\n")

    @server.custom_route("/readyz", methods=["GET"])  # type: ignore[untyped-decorator]
    async def readyz(_: Request) -> Response:
        ready, detail = readiness(service.caches.opened())
        return JSONResponse(detail, status_code=200 if ready else 503)

    @server.custom_route("/openapi.json", methods=["GET"])  # type: ignore[untyped-decorator]
    async def described(_: Request) -> Response:
        return JSONResponse(openapi.document(PATH))
