"""A collector of traces on loopback: OTLP over HTTP, in a thread of its own, since stopping waits for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A span as it came over the wire; ids in hexadecimal digits."""

    name: str
    trace: str
    id: str
    parent: str
    about: dict[str, Any]
    error: str | None
    """The description of a status that is an error."""
    service: str


class Receiver:
    """What came."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.paths: list[str] = []
        self.url = ""

    def take(self, path: str, body: bytes) -> None:
        self.paths.append(path)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _values(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                self.spans += [
                    Span(
                        name=one.name,
                        trace=one.trace_id.hex(),
                        id=one.span_id.hex(),
                        parent=one.parent_span_id.hex(),
                        about=_values(one.attributes),
                        error=one.status.message if one.status.code == one.status.STATUS_CODE_ERROR else None,
                        service=service,
                    )
                    for one in scope.spans
                ]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


def _values(pairs: Any) -> dict[str, Any]:
    def value(pair: KeyValue) -> Any:
        return getattr(pair.value, pair.value.WhichOneof("value") or "string_value")

    return {pair.key: value(pair) for pair in pairs}


def ended() -> bool:
    """Whether nothing goes on sending spans, a moment after the end."""
    for thread in threading.enumerate():
        if thread.name == "last spans":
            thread.join(3)
    return not any(thread.name == "last spans" for thread in threading.enumerate())


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A collector at ``url``, until the end."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
