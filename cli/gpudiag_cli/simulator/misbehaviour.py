"""Every way in which an agent can fail to give a right answer, done on the wire.

Each is what a client really sees from a broken agent, a full disk in front of it or a proxy in between; what the
operator must make of it stands beside the fault in :mod:`gpudiag_cli.simulator.faults`.
"""

import asyncio
import functools
import hashlib
import json
import zlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

from gpudiag_api.wire import WIRE_VERSION
from gpudiag_cli.simulator.faults import Fault
from gpudiag_cli.simulator.node import SimulatedNode

HUGE_BYTES = 100 << 20
RETRY_AFTER_SECONDS = 5
_PIECES = 16
_CHUNK = b" " * (1 << 16)
_JSON = "application/json"
_PAGE = "<!DOCTYPE html><title>Welcome</title><p>This is not the page you are looking for.</p>"

Action = Callable[[SimulatedNode, web.BaseRequest], Awaitable[web.StreamResponse | None]]


async def misbehave(fault: Fault, node: SimulatedNode, request: web.BaseRequest) -> web.StreamResponse | None:
    """Misbehave once; None when the node is to be asked again, because its state has changed meanwhile."""
    try:
        return await _ACTIONS[fault](node, request)
    except ConnectionError:  # the client had enough, as it should
        return web.Response()


async def _hang(node: SimulatedNode, _: web.BaseRequest) -> None:
    await node.changed()


async def _hang_body(node: SimulatedNode, request: web.BaseRequest) -> web.StreamResponse:
    response, rest = await _half(node, request)
    await node.changed()
    await response.write(rest)
    return response


async def _slow_body(node: SimulatedNode, request: web.BaseRequest) -> web.StreamResponse:
    body = node.body(node.sample()).plain
    response = await _begin(node, request, body)
    size = -(-len(body) // _PIECES)
    for start in range(0, len(body), size):
        await response.write(body[start : start + size])
        await asyncio.sleep(node.slowness() / _PIECES)
    return response


async def _close_early(node: SimulatedNode, request: web.BaseRequest) -> web.StreamResponse:
    response, _ = await _half(node, request)
    _close(request)
    return response


async def _disconnect(_: SimulatedNode, request: web.BaseRequest) -> web.StreamResponse:
    _close(request)
    return web.Response()


async def _error(_: SimulatedNode, __: web.BaseRequest) -> web.StreamResponse:
    return _status(HTTPStatus.INTERNAL_SERVER_ERROR, "The simulated agent fails as it was told to.")


async def _unavailable(_: SimulatedNode, __: web.BaseRequest) -> web.StreamResponse:
    response = _status(HTTPStatus.SERVICE_UNAVAILABLE, "The simulated agent is not ready, as it was told.")
    response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


async def _garbage(node: SimulatedNode, _: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=hashlib.sha512(node.name.encode()).digest() * 32, content_type=_JSON)


async def _unauthorized(_: SimulatedNode, __: web.BaseRequest) -> web.StreamResponse:
    return _status(HTTPStatus.UNAUTHORIZED, "The simulated agent trusts nobody, as it was told to.")


async def _html(_: SimulatedNode, __: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text=_PAGE, content_type="text/html")


async def _not_a_report(_: SimulatedNode, __: web.BaseRequest) -> web.StreamResponse:
    return web.json_response({"wireVersion": WIRE_VERSION, "agent": "none", "gpus": 8})


async def _huge(_: SimulatedNode, request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": _JSON})
    response.enable_chunked_encoding()
    await response.prepare(request)
    for _sent in range(0, HUGE_BYTES, len(_CHUNK)):
        await response.write(_CHUNK)
    return response


async def _gzip_bomb(_: SimulatedNode, __: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=_bomb(), content_type=_JSON, headers={"Content-Encoding": "gzip"})


async def _half(node: SimulatedNode, request: web.BaseRequest) -> tuple[web.StreamResponse, bytes]:
    """Send the head and half of the true body; gives the response and the other half."""
    body = node.body(node.sample()).plain
    response = await _begin(node, request, body)
    middle = len(body) // 2
    await response.write(body[:middle])
    return response, body[middle:]


async def _begin(node: SimulatedNode, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    """Send the head of an answer with that body."""
    response = web.StreamResponse(headers={"Content-Type": _JSON, "ETag": node.etag})
    response.content_length = len(body)
    await response.prepare(request)
    return response


def _close(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.close()


def _status(status: HTTPStatus, detail: str) -> web.Response:
    text = json.dumps({"type": "about:blank", "title": status.phrase, "status": status, "detail": detail})
    return web.Response(status=status, text=text, content_type="application/problem+json")


@functools.cache
def _bomb() -> bytes:
    packer = zlib.compressobj(level=1, wbits=31)
    return b"".join(packer.compress(_CHUNK) for _ in range(0, HUGE_BYTES, len(_CHUNK))) + packer.flush()


_ACTIONS: dict[Fault, Action] = {
    Fault.HANG: _hang,
    Fault.HANG_BODY: _hang_body,
    Fault.CLOSE_EARLY: _close_early,
    Fault.DISCONNECT: _disconnect,
    # Nobody listens; who was connected before is cut off.
    Fault.REFUSE: _disconnect,
    Fault.SLOW_BODY: _slow_body,
    Fault.ERROR_500: _error,
    Fault.ERROR_503: _unavailable,
    Fault.GARBAGE: _garbage,
    Fault.UNAUTHORIZED: _unauthorized,
    Fault.HTML: _html,
    Fault.NOT_A_REPORT: _not_a_report,
    Fault.HUGE: _huge,
    Fault.GZIP_BOMB: _gzip_bomb,
}
