"""Points in time as the wire and the resources carry them: RFC 3339, UTC, a ``Z`` at the end.

Inside the programs a time is a float of Unix seconds; text appears only at the edges. One pair of functions, so
that two parts never disagree about precision.
"""

import re
from datetime import UTC, datetime, timedelta, timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)


def to_rfc3339(seconds: float) -> str:
    """Write Unix seconds as ``2026-01-31T09:30:00.250Z``: UTC, milliseconds.

    Raises:
        ValueError: not a number, infinite, or outside the years 1 to 9999.
    """
    try:
        moment = _EPOCH + round(seconds * 1000) * _MILLISECOND
    except (OverflowError, ValueError):
        raise ValueError(f"{seconds!r} is not a time in Unix seconds") from None
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z".rjust(24, "0")


def from_rfc3339(text: str) -> float:
    """Read an RFC 3339 time, with any offset and up to 9 decimal places, as Unix seconds.

    Raises:
        ValueError: the text is not such a time; the message shows one that is.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:64]!r} is not a time such as 2026-01-31T09:30:00Z")
    *date, fraction, sign, hours, minutes = match.groups()
    try:
        offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        zone = timezone(-offset if sign == "-" else offset)
        year, month, day, hour, minute, second = map(int, date)
        moment = datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time such as 2026-01-31T09:30:00Z: {error}") from None
    return (moment - _EPOCH).total_seconds() + int((fraction or "0").ljust(9, "0")) / 1e9
