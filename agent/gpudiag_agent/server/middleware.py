"""What every answer has, errors included: its identity, the age of the data, problem details."""

import logging
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gpudiag_agent.server import negotiation, problems
from gpudiag_agent.server.problems import ProblemError

_log = logging.getLogger(__name__)

SERVER = "gpudiag-agent"


def answers(*, sampled_at: Callable[[], str | None], count: Callable[[str, int], None]) -> Middleware:
    """The middleware around every handler.

    Args:
        sampled_at: when NVML last answered, RFC 3339; None: never.
        count: told the path (``other`` for unknown ones) and the status of every answer.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = negotiation.request_id(request.headers.get("X-Request-Id"))
        try:
            response = await handler(request)
        except ProblemError as problem:
            response = problems.response(problem, request_id=request_id)
        except web.HTTPException as error:
            response = problems.response(_from_http(request, error), request_id=request_id)
        except Exception:  # noqa: BLE001 - whatever it is, the caller gets an answer and the log the trace
            _log.exception("a request failed", extra={"path": request.path, "requestId": request_id})
            mine = ProblemError(500, "Internal error", "The agent failed; its log has more under this requestId.")
            response = problems.response(mine, request_id=request_id)
        response.headers["Server"] = SERVER
        response.headers["X-Request-Id"] = request_id
        if trace := negotiation.traceparent(request.headers.get("traceparent")):
            response.headers["traceparent"] = trace
        if sampled := sampled_at():
            response.headers["X-Gpudiag-Sampled-At"] = sampled
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "other"
        count(path, response.status)
        _log.debug("answered", extra={"path": path, "status": response.status, "requestId": request_id})
        return response

    return middleware


def _from_http(request: web.Request, error: web.HTTPException) -> ProblemError:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        detail = f"{request.method[:16]} is not possible here; allowed: {allowed}"
        return ProblemError(405, "Method not allowed", detail, {"Allow": allowed})
    if isinstance(error, web.HTTPNotFound):
        detail = "there is no such path; /openapi.json lists what there is"
        return ProblemError(404, "Not found", detail)
    return ProblemError(error.status, error.reason, error.reason)
