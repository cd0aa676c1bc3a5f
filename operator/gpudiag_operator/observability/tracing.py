"""Spans of ``Once`` runs, and where they go: nowhere, unless the standard variables name a collector.

One span for each run and below it one for each call to an agent. Polls make none: 5,000 nodes are called all the time,
and what comes of it is in the metrics.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol
from urllib.parse import urlsplit

from gpudiag_operator.collect.trace_context import CallSpans, unrecorded
from gpudiag_operator.diagnostics.once import RunSpans, unobserved

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Spans(Protocol):
    """Makes spans."""

    @property
    def run(self) -> RunSpans:
        """Around a run."""
        ...

    @property
    def call(self) -> CallSpans:
        """Around a call to an agent."""
        ...


class NoSpans:
    """Makes none."""

    run: RunSpans = staticmethod(unobserved)
    call: CallSpans = staticmethod(unrecorded)


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables ask for spans to be exported."""
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    elsewhere = environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
    return not disabled and not elsewhere and endpoint(environment) != ""


def endpoint(environment: Mapping[str, str]) -> str:
    """The collector's URL as it was given; empty: none was."""
    return next(filter(None, map(environment.get, ENDPOINTS)), "")


@contextmanager
def exported(*, stop_seconds: float = 2.0) -> Iterator[Spans]:
    """Export spans by OTLP over HTTP if that is wanted; at the end what is left is sent, for ``stop_seconds`` at most.

    A variable that cannot be used is told in the log: for want of spans nothing else may fail.
    """
    if not wanted(os.environ):
        yield NoSpans()
        return
    from gpudiag_operator.observability.otlp import OTLPSpans  # noqa: PLC0415  (costs nothing where it is not wanted)

    try:
        spans = OTLPSpans()
    except (OSError, ValueError) as error:
        log.error("no spans are exported: correct the variables OTEL_*: %s", error)  # noqa: TRY400  (it says it all)
        yield NoSpans()
        return
    log.info("spans are exported to %s", urlsplit(endpoint(os.environ)).netloc.rpartition("@")[2])
    try:
        yield spans
    finally:
        spans.stop(stop_seconds)
