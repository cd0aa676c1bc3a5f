"""Logs for machines first: one JSON object per line, with the run and the node that a line is about.

The context travels in a context variable, so code five calls deep logs with ``runID`` without passing it along, and
tasks started inside a run inherit it.
"""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

import msgspec

from gpudiag_api.times import to_rfc3339

_context: ContextVar[Mapping[str, str]] = ContextVar("gpudiag_log_context")

_EXTRA = ("runID", "node", "diagnostic", "reason")
"""Fields that a single record may bring by ``extra=``; other attributes belong to libraries."""


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Add fields to every record within, tasks started within included.

    Args:
        fields: names as they appear in the log, for example ``runID=…, diagnostic="ns/name"``.
    """
    token = _context.set({**_context.get({}), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def context() -> Mapping[str, str]:
    """The fields bound here."""
    return _context.get({})


def _fields(record: logging.LogRecord) -> dict[str, str]:
    own = {name: str(getattr(record, name)) for name in _EXTRA if hasattr(record, name)}
    return {**_context.get({}), **own}


class JSONFormatter(logging.Formatter):
    """``{"time", "level", "logger", "message", …context, "exception"?}``; time is RFC 3339 in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        line = {
            "time": to_rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class TextFormatter(logging.Formatter):
    """For people at a terminal: time, level, message, context."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; an exception follows on lines of its own."""
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{to_rfc3339(record.created)} {record.levelname:<7} {record.name}: {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _not_about_signals(record: logging.LogRecord) -> bool:
    """False for kopf's warning that signals do not reach its thread: they are handled by the application."""
    return not record.getMessage().startswith("OS signals are ignored")


def _not_about_its_end(record: logging.LogRecord) -> bool:
    """False for a request that kopf still had under way when it closed its own session, to stop or to log in anew."""
    return not any(words in record.getMessage() for words in ("Connector is closed", "TCP closed", "SSL closed"))


def configure(*, level: str, json: bool, stream: TextIO | None = None) -> None:
    """Send all records to ``stream`` (default: standard error), replacing what was configured before.

    Args:
        level: debug, info, warning or error.
        json: one JSON object per line, else text.
        stream: where to.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JSONFormatter() if json else TextFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    debug = level == "debug"
    root.setLevel(level.upper())
    # kopf logs a line per event and per object; its faults are warnings and worse.
    for name in ("kopf", "kubernetes", "urllib3", "aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(logging.INFO if debug else logging.WARNING)
    running = logging.getLogger("kopf._core.reactor.running")
    running.filters = [_not_about_signals]
    observing = logging.getLogger("kopf._core.reactor.observation")
    observing.filters = [_not_about_its_end]
