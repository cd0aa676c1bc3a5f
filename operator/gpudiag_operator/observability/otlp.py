"""Spans with OpenTelemetry's SDK, exported by OTLP over HTTP. Imported only where that is wanted.

The SDK's queue holds 2,048 spans and drops what is more; a thread of its own sends them (all of that, and the sampler,
by the variables ``OTEL_BSP_*`` and ``OTEL_TRACES_SAMPLER*`` of the OpenTelemetry specification). Nothing here waits for
the collector, except ``stop``.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanKind, StatusCode

from gpudiag_api.version import __version__
from gpudiag_operator.collect.outcome import FetchError
from gpudiag_operator.collect.trace_context import trace_id, traceparent
from gpudiag_operator.diagnostics.once import RunNotes
from gpudiag_operator.diagnostics.registry import Key

NAME = "gpudiag-operator"
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


class _RunIDs(RandomIdGenerator):
    """A run's trace has the id of the run; there are no other traces."""

    run = 0

    def generate_trace_id(self) -> int:
        return self.run or super().generate_trace_id()


class OTLPSpans:
    """``tracing.Spans``, with a provider of its own: the global one belongs to nobody here.

    Raises:
        ValueError, OSError: a variable that cannot be used.
    """

    def __init__(self) -> None:
        self._exporter = OTLPSpanExporter()
        self._ids = _RunIDs()
        # What a person says (OTEL_SERVICE_NAME) goes first; the SDK would prefer what code says.
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: NAME}
        self._provider = TracerProvider(
            resource=Resource.create({**named, SERVICE_VERSION: __version__}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer(NAME, __version__)
        for name in _COMPLAINING:
            logger = logging.getLogger(name)
            if not any(isinstance(one, Rarely) for one in logger.filters):
                logger.addFilter(Rarely())

    def stop(self, seconds: float) -> None:
        """Send what is left, for so long at most."""
        stopping = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        stopping.start()
        stopping.join(seconds)
        if stopping.is_alive():
            # Ends its pauses between attempts; the SDK itself would wait for 30 s.
            self._exporter.shutdown()  # type: ignore[no-untyped-call]

    @contextmanager
    def run(self, key: Key, run_id: str, wanted: int) -> Iterator[RunNotes]:
        """See ``once.RunSpans``."""
        notes = RunNotes()
        self._ids.run = int(trace_id(run_id), 16)
        with self._tracer.start_as_current_span(
            "diagnostic run",
            context=Context(),
            attributes={
                "k8s.namespace.name": key.namespace,
                "gpudiag.diagnostic.name": key.name,
                "gpudiag.run_id": run_id,
                "gpudiag.nodes.wanted": wanted,
            },
        ) as span:
            try:
                yield notes
            except asyncio.CancelledError:
                span.set_status(StatusCode.ERROR, "cancelled: the diagnostic is gone or another, or the operator stops")
                raise
            span.set_attribute("gpudiag.nodes.answered", notes.answered)
            span.set_attribute("gpudiag.verdict", notes.verdict)

    @contextmanager
    def call(self, node: str, path: str, run_id: str) -> Iterator[str]:
        """See ``trace_context.CallSpans``. A poll has no span."""
        if not run_id:
            yield traceparent(run_id)
            return
        with self._tracer.start_as_current_span(
            "agent call",
            kind=SpanKind.CLIENT,
            attributes={"k8s.node.name": node, "url.path": path, "gpudiag.run_id": run_id},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            here = span.get_span_context()
            try:
                yield f"00-{here.trace_id:032x}-{here.span_id:016x}-{here.trace_flags:02x}"
            except FetchError as error:
                span.set_attribute("error.type", error.reason)
                span.set_status(StatusCode.ERROR, error.message)
                raise
            except asyncio.CancelledError:
                span.set_attribute("error.type", "cancelled")
                span.set_status(StatusCode.ERROR, "not back when the run ended")
                raise
            span.set_status(StatusCode.OK)
