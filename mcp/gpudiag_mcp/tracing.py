"""W3C trace context: taken from the client, handed on to the API server, and the correlation id of a call.

Unless spans are exported nothing is recorded, but the ids still travel: each call is a span of its own in the
client's trace, so that an audit line of the API server can be found from an assistant's transcript. Where the standard
variables name a collector, our spans of requests and those that the MCP SDK makes of messages go there.
"""

import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from opentelemetry import context, propagate, trace

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_ids = random.SystemRandom()
_tracer = trace.get_tracer("gpudiag-mcp")


@dataclass(frozen=True)
class Request:
    """An HTTP request under way."""

    trace_id: str
    """32 hexadecimal digits."""
    answered: Callable[[int], None]
    """To be told the status of the answer."""


@contextmanager
def request(headers: Mapping[str, str], *, method: str, path: str) -> Iterator[Request]:
    """An HTTP request, in the trace that its headers name; a span of its own where somebody records."""
    about = {"http.request.method": method[:16], "url.path": path}
    with (
        continued(headers),
        _tracer.start_as_current_span(path, kind=trace.SpanKind.SERVER, attributes=about) as span,
        call() as trace_id,
    ):

        def answered(status: int) -> None:
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_attribute("error.type", str(status))
                span.set_status(trace.StatusCode.ERROR)

        yield Request(trace_id, answered)


@contextmanager
def continued(headers: Mapping[str, str]) -> Iterator[None]:
    """Continue the trace that HTTP headers name; anything malformed counts as absent (W3C Trace Context, §3.2)."""
    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)


@contextmanager
def call() -> Iterator[str]:
    """The span of a call: a child of the present one, else the first of a new trace. Gives the trace id (32 hex).

    A span that somebody records (OpenTelemetry was set up around us) is used as it is.
    """
    present = trace.get_current_span()
    parent = present.get_span_context()
    if present.is_recording():
        yield trace.format_trace_id(parent.trace_id)
        return
    own = trace.SpanContext(
        trace_id=parent.trace_id if parent.is_valid else _ids.getrandbits(128) or 1,
        span_id=_ids.getrandbits(64) or 1,
        is_remote=False,
        trace_flags=parent.trace_flags,
        trace_state=parent.trace_state,
    )
    with trace.use_span(trace.NonRecordingSpan(own)):
        yield trace.format_trace_id(own.trace_id)


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables ask for spans to be exported."""
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    elsewhere = environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
    return not disabled and not elsewhere and endpoint(environment) != ""


def endpoint(environment: Mapping[str, str]) -> str:
    """The collector's URL as it was given; empty: none was."""
    return next(filter(None, map(environment.get, ENDPOINTS)), "")


@contextmanager
def exported(*, stop_seconds: float = 2.0) -> Iterator[None]:
    """Export spans by OTLP over HTTP if that is wanted; at the end what is left is sent, for ``stop_seconds`` at most.

    A variable that cannot be used is told in the log: for want of spans nothing else may fail.
    """
    if not wanted(os.environ):
        yield
        return
    from gpudiag_mcp.otlp import Export  # noqa: PLC0415  (costs nothing where it is not wanted)

    try:
        export = Export()
    except (OSError, ValueError) as error:
        log.error("no spans are exported: correct the variables OTEL_*: %s", error)  # noqa: TRY400  (it says it all)
        yield
        return
    trace.set_tracer_provider(export.provider)
    log.info("spans are exported to %s", urlsplit(endpoint(os.environ)).netloc.rpartition("@")[2])
    try:
        yield
    finally:
        export.stop(stop_seconds)
