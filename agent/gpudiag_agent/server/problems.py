"""Errors as problem details (RFC 9457), each with a sentence that says what to do."""

import msgspec
from aiohttp import web

CONTENT_TYPE = "application/problem+json"


class ProblemError(Exception):
    """A request that cannot be answered as asked.

    Args:
        status: HTTP status code.
        title: the kind of problem, the same every time.
        detail: what is wrong with this request and what to send instead.
        headers: to add to the answer, for example ``Retry-After``.
    """

    def __init__(self, status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = headers or {}


def bad_request(detail: str) -> ProblemError:
    """A 400."""
    return ProblemError(400, "Bad request", detail)


def not_found(detail: str) -> ProblemError:
    """A 404."""
    return ProblemError(404, "Not found", detail)


def unavailable(detail: str, *, retry_after: int = 1) -> ProblemError:
    """A 503; ``retry_after`` in seconds."""
    return ProblemError(503, "Not available now", detail, {"Retry-After": str(retry_after)})


def response(problem: ProblemError, *, request_id: str) -> web.Response:
    """The problem as an answer."""
    body = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "requestId": request_id,
    }
    return web.Response(
        status=problem.status,
        body=msgspec.json.encode(body),
        content_type=CONTENT_TYPE,
        headers={"Cache-Control": "no-store", **problem.headers},
    )
