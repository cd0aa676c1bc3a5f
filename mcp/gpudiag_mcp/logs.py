"""Logs for machines: one JSON object per line on standard error, with the id of the call that a line is about."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

import msgspec

from gpudiag_api.times import to_rfc3339

_context: ContextVar[Mapping[str, str]] = ContextVar("gpudiag_mcp_log_context")


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Add fields to every record within, for example ``correlationID=…, tool=…``."""
    token = _context.set({**_context.get({}), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def correlation_id() -> str:
    """The id of the present call; empty outside of one."""
    return _context.get({}).get("correlationID", "")


class JSONFormatter(logging.Formatter):
    """``{"time", "level", "logger", "message", …context, "exception"?}``; time is RFC 3339 in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        line = {
            "time": to_rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_context.get({}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure(*, level: str, stream: TextIO | None = None) -> None:
    """Send all records to ``stream`` (default: standard error), replacing what was configured before.

    Args:
        level: debug, info, warning or error.
        stream: where to; never standard output, which is the protocol.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JSONFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # One line per request and message of these belongs to debugging.
    for name in ("httpx2", "httpcore2", "mcp", "urllib3", "uvicorn.access", "asyncio"):
        logging.getLogger(name).setLevel(logging.INFO if level == "debug" else logging.WARNING)
