"""The HTTP contract of an agent (design, section 5), served for one simulated node.

A function of node and request, without an application or routes: two paths matter, and the same few lines run for
thousands of nodes.
"""

import asyncio
import json
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from gpudiag_api import durations
from gpudiag_api.times import to_rfc3339
from gpudiag_cli.simulator.misbehaviour import misbehave
from gpudiag_cli.simulator.node import SimulatedNode

LONGEST_WAIT_SECONDS = 300.0
_JSON = "application/json"
_PROBLEM = "application/problem+json"
_ECHOED = ("X-Request-Id", "traceparent")


async def answer(node: SimulatedNode, request: web.BaseRequest) -> web.StreamResponse:
    """Answer as the node's agent does now, whatever is wrong with it."""
    node.requests += 1
    if node.latency:
        await asyncio.sleep(node.latency)
    while behaviour := node.behaviour:
        if (response := await misbehave(behaviour, node, request)) is not None:
            return response
        # It hung, and does so no more.
    if request.method not in {"GET", "HEAD"}:
        return _problem(request, HTTPStatus.METHOD_NOT_ALLOWED, f"{request.method} is not served; use GET.")
    match request.path:
        case "/v1/report":
            return await _report(node, request)
        case "/healthz" | "/readyz":
            return web.Response(text="ok\n", headers=_echo(request))
    return _problem(request, HTTPStatus.NOT_FOUND, f"There is nothing at {request.path}; the report is at /v1/report.")


async def _report(node: SimulatedNode, request: web.BaseRequest) -> web.StreamResponse:
    try:
        wait, fresh = _parameters(request.query)
    except ValueError as error:
        return _problem(request, HTTPStatus.BAD_REQUEST, str(error))
    known = _known_tags(request)
    sampled_at = node.sample(fresh=fresh)
    if wait and node.etag in known:
        if await node.changed(wait) and node.behaviour:
            return await answer(node, request)
        sampled_at = node.sample()
    headers = {"ETag": node.etag, "X-Gpudiag-Sampled-At": to_rfc3339(sampled_at), **_echo(request)}
    if node.etag in known:
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    body = node.body(sampled_at)
    if body.compressed is None:
        return web.Response(body=body.plain, content_type=_JSON, headers=headers)
    headers["Vary"] = "Accept-Encoding"
    if "gzip" not in request.headers.get("Accept-Encoding", ""):
        return web.Response(body=body.plain, content_type=_JSON, headers=headers)
    headers["Content-Encoding"] = "gzip"
    return web.Response(body=body.compressed, content_type=_JSON, headers=headers)


def _parameters(query: Mapping[str, str]) -> tuple[float, bool]:
    """``wait`` in seconds and ``fresh``."""
    if unknown := sorted(set(query) - {"wait", "fresh"}):
        raise ValueError(f"Unknown query parameter: {', '.join(unknown)}. Known are wait and fresh.")
    wait = durations.parse(query.get("wait", "0"))
    if wait > LONGEST_WAIT_SECONDS:
        raise ValueError(f"wait is at most {durations.format(LONGEST_WAIT_SECONDS)}.")
    fresh = query.get("fresh", "false")
    if fresh not in {"true", "false"}:
        raise ValueError(f"fresh is true or false, not {fresh!r}.")
    return wait, fresh == "true"


def _known_tags(request: web.BaseRequest) -> frozenset[str]:
    header = request.headers.get("If-None-Match", "")
    return frozenset(tag.strip() for tag in header.split(",")) if header else frozenset()


def _echo(request: web.BaseRequest) -> dict[str, str]:
    return {name: request.headers[name] for name in _ECHOED if name in request.headers}


def _problem(request: web.BaseRequest, status: HTTPStatus, detail: str) -> web.Response:
    """An error as RFC 9457 has it."""
    text = json.dumps({"type": "about:blank", "title": status.phrase, "status": status, "detail": detail})
    return web.Response(status=status, text=text, content_type=_PROBLEM, headers=_echo(request))
