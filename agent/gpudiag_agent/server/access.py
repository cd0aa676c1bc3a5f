"""The middlewares that ask for a token and a client certificate, except on paths that are open to everybody."""

from collections.abc import Awaitable, Callable, Collection

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gpudiag_agent.auth import bearer
from gpudiag_agent.server.problems import ProblemError

Admit = Callable[[str | None, str], Awaitable[None]]
"""Takes the token of a request and its path; raises ProblemError when it is not to be answered."""


def tokens(admit: Admit, *, anonymous: Collection[str]) -> Middleware:
    """The middleware; paths that do not exist are not told apart from those that do.

    Args:
        admit: see there.
        anonymous: paths that need no token.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in anonymous:
            await admit(bearer.token_of(request.headers), request.path)
        return await handler(request)

    return middleware


def certificates(*, anonymous: Collection[str]) -> Middleware:
    """The middleware of mutual TLS: OpenSSL has verified a certificate that was shown, here is seen whether one was.

    Args:
        anonymous: paths that need none.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in anonymous and not request.get_extra_info("peercert"):
            detail = "no client certificate was shown; show one that ca.crt of the agent's --tls-cert-dir vouches for"
            raise ProblemError(401, "Unauthorized", detail)
        return await handler(request)

    return middleware
