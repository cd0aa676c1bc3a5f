"""Logs as JSON lines on stderr, one object per line: time, level, logger, message, and the extras of the call."""

import json
import logging
import sys

from gpudiag_api.times import to_rfc3339

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JSONFormatter(logging.Formatter):
    """A record as one line of JSON. What the caller passed as ``extra`` becomes fields."""

    def format(self, record: logging.LogRecord) -> str:
        """See :class:`logging.Formatter`."""
        line = {
            "time": to_rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(level: str) -> None:
    """Send everything from ``level`` (a name such as ``info``) to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        logging.getLogger("aiohttp").setLevel("WARNING")
        skip_malformed_requests()


def skip_malformed_requests() -> None:
    """Aiohttp says with a traceback what the client was told: whoever sends nonsense must not fill the log."""
    logging.getLogger("aiohttp.server").addFilter(_no_malformed_request)


def _no_malformed_request(record: logging.LogRecord) -> bool:
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__module__ != "aiohttp.http_exceptions"
