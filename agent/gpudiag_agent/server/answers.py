"""Bodies as they are sent: compressed where that is asked for and worth it."""

import gzip
from collections.abc import Callable

from aiohttp import web

from gpudiag_agent.server import negotiation

JSON = "application/json"


def compressible(
    request: web.Request,
    body: bytes,
    content_type: str,
    *,
    charset: str | None = None,
    headers: dict[str, str] | None = None,
    compressed: Callable[[], bytes] | None = None,
) -> web.Response:
    """An answer that is gzipped for those who accept it.

    Args:
        request: says what the client accepts.
        body: the answer.
        content_type: its type, without parameters.
        charset: added to the type.
        headers: more headers.
        compressed: gives the gzipped body, where that is kept.
    """
    head = {"Vary": "Accept-Encoding", **(headers or {})}
    head["Content-Type"] = content_type if charset is None else f"{content_type}; charset={charset}"
    wanted = negotiation.accepts_gzip(request.headers.get("Accept-Encoding", ""))
    if wanted and len(body) >= negotiation.COMPRESS_FROM:
        head["Content-Encoding"] = "gzip"
        body = compressed() if compressed is not None else gzip.compress(body, 5, mtime=0)
    return web.Response(body=body, headers=head)
