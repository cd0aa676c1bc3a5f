"""OpenTelemetry's SDK, exporting by OTLP over HTTP. Imported only where that is wanted.

The SDK's queue holds 2,048 spans and drops what is more; a thread of its own sends them (all of that, and the sampler,
by the variables ``OTEL_BSP_*`` and ``OTEL_TRACES_SAMPLER*`` of the OpenTelemetry specification). Nothing here waits for
the collector, except ``stop``.
"""

import logging
import os
import threading

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Status

from gpudiag_api.version import __version__

NAME = "gpudiag-mcp"
LONGEST = 256
"""Characters of a text: clients choose names of tools and methods, and the queue must stay small in bytes, too."""
COMPLAINT_SECONDS = 300.0
_COMPLAINING = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")


class Rarely(logging.Filter):
    """One line per five minutes: a collector that is away would else be told with every batch."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is time again, by the record's own clock."""
        if record.created < self._next:
            return False
        self._next = record.created + COMPLAINT_SECONDS
        return True


class _Batches(BatchSpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        super().on_end(_cut(span))


def _cut(span: ReadableSpan) -> ReadableSpan:
    """A span whose name and status are not too long: the SDK limits attributes only."""
    description = span.status.description or ""
    if max(len(span.name), len(description)) <= LONGEST:
        return span
    return ReadableSpan(
        name=span.name[:LONGEST],
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=span.events,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, description[:LONGEST] or None),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


class Export:
    """A provider of tracers whose spans are exported.

    Raises:
        ValueError, OSError: a variable that cannot be used.
    """

    def __init__(self) -> None:
        self._exporter = OTLPSpanExporter()
        # What a person says (OTEL_SERVICE_NAME) goes first; the SDK would prefer what code says.
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: NAME}
        resource = Resource.create({**named, SERVICE_VERSION: __version__})
        limits = SpanLimits(max_attribute_length=LONGEST)
        self.provider = TracerProvider(resource=resource, span_limits=limits, shutdown_on_exit=False)
        self.provider.add_span_processor(_Batches(self._exporter))
        for name in _COMPLAINING:
            logger = logging.getLogger(name)
            if not any(isinstance(one, Rarely) for one in logger.filters):
                logger.addFilter(Rarely())

    def stop(self, seconds: float) -> None:
        """Send what is left, for so long at most."""
        stopping = threading.Thread(target=self.provider.shutdown, name="last spans", daemon=True)
        stopping.start()
        stopping.join(seconds)
        if stopping.is_alive():
            # Ends its pauses between attempts; the SDK itself would wait for 30 s.
            self._exporter.shutdown()  # type: ignore[no-untyped-call]
