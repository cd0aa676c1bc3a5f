"""W3C trace context: taken from the client, handed on to the API server, and the correlation id of a call.

Without an OpenTelemetry SDK nothing is recorded, but the ids still travel: each call is a span of its own in the
client's trace, so that an audit line of the API server can be found from an assistant's transcript.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, propagate, trace

_ids = random.SystemRandom()


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
