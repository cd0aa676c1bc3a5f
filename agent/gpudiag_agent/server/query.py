"""Query parameters: known ones are checked, unknown ones are refused by name. Pure."""

from collections.abc import Iterable

import msgspec

from gpudiag_agent.recorder.recorder import MAX_POINTS, SPAN
from gpudiag_agent.recorder.xid_log import MAX_EVENTS
from gpudiag_agent.server.problems import bad_request
from gpudiag_api import durations

LONGEST_WAIT = 60.0
"""Seconds. Longer polls look dead to proxies in between."""

_LONGEST_CURSOR = 63


class ReportQuery(msgspec.Struct, frozen=True):
    """What ``GET /v1/report`` was asked."""

    wait: float = 0.0
    """Seconds to wait for a change of meaning."""
    fresh: bool = False


def report_query(pairs: Iterable[tuple[str, str]]) -> ReportQuery:
    """Read the parameters of ``GET /v1/report``.

    Raises:
        ProblemError: a 400 that names the parameter and what is allowed.
    """
    given = known(pairs, ("wait", "fresh"))
    return ReportQuery(wait=_wait(given.get("wait", "0s")), fresh=_flag("fresh", given.get("fresh", "false")))


class TimelineQuery(msgspec.Struct, frozen=True):
    """What ``GET /v1/timeline`` was asked."""

    minutes: int = 30
    gpu: int | None = None
    """Index of the only GPU to show."""
    points: int = 60
    """At most so many per GPU."""


def timeline_query(pairs: Iterable[tuple[str, str]]) -> TimelineQuery:
    """Read the parameters of ``GET /v1/timeline``.

    Raises:
        ProblemError: a 400 that names the parameter and what is allowed.
    """
    given = known(pairs, ("minutes", "gpu", "points"))
    gpu = given.get("gpu")
    return TimelineQuery(
        minutes=_whole("minutes", given.get("minutes", "30"), 1, int(SPAN // 60)),
        gpu=None if gpu is None else _whole("gpu", gpu, 0, 255),
        points=_whole("points", given.get("points", "60"), 1, MAX_POINTS),
    )


class XIDsQuery(msgspec.Struct, frozen=True):
    """What ``GET /v1/xids`` was asked."""

    since: str = ""
    """Cursor of an earlier answer."""
    limit: int = 100


def xids_query(pairs: Iterable[tuple[str, str]]) -> XIDsQuery:
    """Read the parameters of ``GET /v1/xids``.

    Raises:
        ProblemError: a 400 that names the parameter and what is allowed.
    """
    given = known(pairs, ("since", "limit"))
    since = given.get("since", "")
    if len(since) > _LONGEST_CURSOR:
        raise bad_request("query parameter since: give the cursor of an earlier answer, or leave it out")
    return XIDsQuery(since=since, limit=_whole("limit", given.get("limit", "100"), 1, MAX_EVENTS))


def known(pairs: Iterable[tuple[str, str]], allowed: Iterable[str]) -> dict[str, str]:
    """The parameters as a mapping.

    Raises:
        ProblemError: a 400 that names unknown and repeated ones.
    """
    allowed = tuple(allowed)
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in allowed:
            words = f"allowed are: {', '.join(allowed)}" if allowed else "this path takes none"
            raise bad_request(f"unknown query parameter {_shown(name)}; {words}")
        if name in given:
            raise bad_request(f"query parameter {name} is given twice")
        given[name] = value
    return given


def _wait(text: str) -> float:
    try:
        seconds = durations.parse(text)
    except ValueError as error:
        raise bad_request(f"query parameter wait: {error}") from None
    if seconds > LONGEST_WAIT:
        raise bad_request(f"query parameter wait: {_shown(text)} is too long, at most {LONGEST_WAIT:.0f}s")
    return seconds


def _flag(name: str, text: str) -> bool:
    if text not in {"true", "false"}:
        raise bad_request(f"query parameter {name}: {_shown(text)} is neither true nor false")
    return text == "true"


def _whole(name: str, text: str, low: int, high: int) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
    if not low <= number <= high:
        raise bad_request(f"query parameter {name}: {_shown(text)} is no whole number from {low} to {high}")
    return number


def _shown(text: str) -> str:
    return repr(text if len(text) <= 64 else f"{text[:64]}…")
