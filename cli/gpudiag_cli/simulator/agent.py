"""The HTTP contract of an agent (design, section 5), served for one simulated node.

A function of node and request, without an application or routes: the same few lines run for thousands of nodes.
"""

import asyncio
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import TypeVar

import msgspec
from aiohttp import web

from gpudiag_api import durations
from gpudiag_api.times import to_rfc3339
from gpudiag_cli.simulator import details
from gpudiag_cli.simulator.misbehaviour import misbehave
from gpudiag_cli.simulator.node import Body, SimulatedNode, travelling

LONGEST_WAIT_SECONDS = 300.0
_JSON = "application/json"
_PROBLEM = "application/problem+json"
_ECHOED = ("X-Request-Id", "traceparent")


async def answer(node: SimulatedNode, request: web.BaseRequest) -> web.StreamResponse:
    """Answer as the node's agent does now, whatever is wrong with it."""
    node.requests += 1
    if late := node.delay():
        await asyncio.sleep(late)
    while behaviour := node.behaviour:
        if (response := await misbehave(behaviour, node, request)) is not None:
            return response
        # It hung, and does so no more.
    if request.method not in {"GET", "HEAD"}:
        return _problem(request, HTTPStatus.METHOD_NOT_ALLOWED, f"{request.method} is not served; use GET.")
    try:
        return await _answer_path(node, request)
    except ValueError as error:
        return _problem(request, HTTPStatus.BAD_REQUEST, str(error))
    except LookupError as error:
        return _problem(request, HTTPStatus.NOT_FOUND, str(error.args[0]))


async def _answer_path(node: SimulatedNode, request: web.BaseRequest) -> web.StreamResponse:
    query = request.query
    match request.path:
        case "/v1/report":
            return await _report(node, request)
        case "/v1/timeline":
            _known(query, "minutes", "gpu", "points")
            gpu = _whole(query, "gpu", None, 0, 255)
            if gpu is not None and gpu >= node.machine.gpu_count:
                raise LookupError(f"gpu: there is no GPU {gpu}; the last one is {node.machine.gpu_count - 1}.")
            minutes = _whole(query, "minutes", details.RECORDER_MINUTES, 1, details.RECORDER_MINUTES)
            points = _whole(query, "points", 60, 1, details.MAX_POINTS)
            return _detail(request, details.timeline(node, minutes=minutes, points=points, gpu=gpu))
        case "/v1/xids":
            _known(query, "since", "limit")
            limit = _whole(query, "limit", 100, 1, details.MAX_XIDS)
            return _detail(request, details.xids(node, since=query.get("since", ""), limit=limit))
        case "/v1/topology":
            _known(query)
            return _detail(request, details.topology(node))
        case "/v1/processes":
            _known(query)
            return _detail(request, details.processes(node))
        case "/healthz" | "/readyz":
            return web.Response(text="ok\n", headers=_echo(request))
    raise LookupError(f"There is nothing at {request.path}; the report is at /v1/report.")


async def _report(node: SimulatedNode, request: web.BaseRequest) -> web.StreamResponse:
    wait, fresh = _parameters(request.query)
    known = _known_tags(request)
    sampled_at = node.sample(fresh=fresh)
    if wait and node.etag in known:
        if await node.changed(wait) and node.behaviour:
            return await answer(node, request)
        sampled_at = node.sample()
    headers = {"ETag": node.etag, "X-Gpudiag-Sampled-At": to_rfc3339(sampled_at), **_echo(request)}
    if node.etag in known:
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    return _compressible(request, node.body(sampled_at), headers)


def _detail(request: web.BaseRequest, answer: msgspec.Struct) -> web.Response:
    return _compressible(request, travelling(msgspec.json.encode(answer)), _echo(request))


def _compressible(request: web.BaseRequest, body: Body, headers: dict[str, str]) -> web.Response:
    if body.compressed is None:
        return web.Response(body=body.plain, content_type=_JSON, headers=headers)
    headers["Vary"] = "Accept-Encoding"
    if "gzip" not in request.headers.get("Accept-Encoding", ""):
        return web.Response(body=body.plain, content_type=_JSON, headers=headers)
    headers["Content-Encoding"] = "gzip"
    return web.Response(body=body.compressed, content_type=_JSON, headers=headers)


def _parameters(query: Mapping[str, str]) -> tuple[float, bool]:
    """``wait`` in seconds and ``fresh``."""
    _known(query, "wait", "fresh")
    wait = durations.parse(query.get("wait", "0"))
    if wait > LONGEST_WAIT_SECONDS:
        raise ValueError(f"wait is at most {durations.format(LONGEST_WAIT_SECONDS)}.")
    fresh = query.get("fresh", "false")
    if fresh not in {"true", "false"}:
        raise ValueError(f"fresh is true or false, not {fresh!r}.")
    return wait, fresh == "true"


def _known(query: Mapping[str, str], *allowed: str) -> None:
    if unknown := sorted(set(query) - set(allowed)):
        rest = f"Known are {', '.join(allowed)}." if allowed else "There are none here."
        raise ValueError(f"Unknown query parameter: {', '.join(unknown)}. {rest}")


_Default = TypeVar("_Default", int, None)


def _whole(query: Mapping[str, str], name: str, default: _Default, low: int, high: int) -> int | _Default:
    text = query.get(name)
    if text is None:
        return default
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
    if not low <= number <= high:
        raise ValueError(f"{name} is a whole number from {low} to {high}, not {text!r}.")
    return number


def _known_tags(request: web.BaseRequest) -> frozenset[str]:
    header = request.headers.get("If-None-Match", "")
    return frozenset(tag.strip() for tag in header.split(",")) if header else frozenset()


def _echo(request: web.BaseRequest) -> dict[str, str]:
    return {name: request.headers[name] for name in _ECHOED if name in request.headers}


def _problem(request: web.BaseRequest, status: HTTPStatus, detail: str) -> web.Response:
    """An error as RFC 9457 has it."""
    text = json.dumps({"type": "about:blank", "title": status.phrase, "status": status, "detail": detail})
    return web.Response(status=status, text=text, content_type=_PROBLEM, headers=_echo(request))
