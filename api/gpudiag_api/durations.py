"""Durations as Go and Kubernetes write them: ``30s``, ``1h30m``, ``500ms``.

One parser for flags, query parameters and resources, so that the same text means the same everywhere. Signs are
refused: nothing in this project waits for a negative time, and a stray ``-`` is a typing error better said early.
"""

import re

_NANOSECONDS = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "µs": 1_000,  # micro sign, U+00B5
    "μs": 1_000,  # Greek mu, U+03BC: both are in use, and Go takes both
    "ns": 1,
}
_UNIT = "|".join(sorted(_NANOSECONDS, key=len, reverse=True))
_PART = re.compile(rf"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)({_UNIT})")
_WHOLE = re.compile(rf"(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:{_UNIT}))+")
_LONGEST = 64
"""Characters. Longer text is no duration anybody wrote."""
_LIMIT = 2**63 - 1
"""Nanoseconds: what Go's ``time.Duration`` holds, about 292 years."""


def parse(text: str) -> float:
    """Read a duration.

    Args:
        text: numbers with units, the largest first by custom: ``30s``, ``1h30m``, ``1.5s``, ``500ms``; or ``0``.
            Units: h, m, s, ms, us (or µs), ns.

    Returns:
        Seconds, never negative.

    Raises:
        ValueError: anything else; the message says what to write instead.
    """
    if text == "0":
        return 0.0
    if len(text) > _LONGEST or not _WHOLE.fullmatch(text):
        shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
        raise ValueError(f"{shown!r} is not a duration: write a number with a unit, such as 30s, 5m, 1h30m or 500ms")
    nanoseconds = sum(_nanoseconds(number, unit) for number, unit in _PART.findall(text))
    if nanoseconds > _LIMIT:
        raise ValueError(f"{text!r} is too long a duration: the longest is about 2562047h")
    return nanoseconds / 1e9


def _nanoseconds(number: str, unit: str) -> int:
    whole, _, fraction = number.partition(".")
    scale = _NANOSECONDS[unit]
    # Integers throughout: 0.3s is 300 ms, not 299,999,999 ns.
    return int(whole or "0") * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)


def format(seconds: float) -> str:  # noqa: A001 - durations.format reads as what it does
    """Write a duration the way people do: ``30s``, ``1h30m``, ``1m0.5s``, ``500ms``.

    Args:
        seconds: not negative, finite; rounded to nanoseconds.

    Raises:
        ValueError: negative, infinite, not a number, or longer than 292 years.
    """
    if not 0 <= seconds <= _LIMIT / 1e9:
        raise ValueError(f"{seconds!r} is not a duration in seconds: it must be 0 or more")
    nanoseconds = min(round(seconds * 1e9), _LIMIT)
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < _NANOSECONDS["s"]:
        unit = next(unit for unit in ("ms", "us", "ns") if nanoseconds >= _NANOSECONDS[unit])
        return _decimal(nanoseconds, unit)
    hours, rest = divmod(nanoseconds, _NANOSECONDS["h"])
    minutes, rest = divmod(rest, _NANOSECONDS["m"])
    parts = [f"{hours}h"] if hours else []
    if minutes:
        parts.append(f"{minutes}m")
    if rest:
        parts.append(_decimal(rest, "s"))
    return "".join(parts)


def _decimal(nanoseconds: int, unit: str) -> str:
    whole, rest = divmod(nanoseconds, _NANOSECONDS[unit])
    digits = len(str(_NANOSECONDS[unit])) - 1
    fraction = f"{rest:0{digits}d}".rstrip("0") if rest else ""
    return f"{whole}.{fraction}{unit}" if fraction else f"{whole}{unit}"
