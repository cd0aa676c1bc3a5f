"""Request headers, read by their standards. Pure; hostile input gives the plain answer, never an error."""

import re
import secrets

COMPRESS_FROM = 1024
"""Bytes from which a body is worth compressing."""

_TAG = re.compile(r'(?:W/)?("[^"]{0,256}")')
_UNSAFE = re.compile(r"[^A-Za-z0-9._:/+=@-]")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_LONGEST_ID = 128


def accepts_gzip(header: str) -> bool:
    """Whether ``Accept-Encoding`` allows gzip (RFC 9110, section 12.5.3)."""
    any_encoding = False
    for part in header.lower().split(","):
        name, _, parameters = part.partition(";")
        name = name.strip()
        if name in {"gzip", "x-gzip"}:
            return not _refused(parameters)
        any_encoding |= name == "*" and not _refused(parameters)
    return any_encoding


def _refused(parameters: str) -> bool:
    return re.fullmatch(r"\s*q\s*=\s*0(?:\.0{0,3})?\s*", parameters) is not None


def matches(header: str | None, etag: str) -> bool:
    """Whether ``If-None-Match`` names this tag, compared weakly (RFC 9110, section 13.1.2)."""
    if header is None:
        return False
    if header.strip() == "*":
        return True
    return etag.removeprefix("W/") in _TAG.findall(header)


def request_id(header: str | None) -> str:
    """The caller's ``X-Request-Id``, made safe for logs and bounded; a new one where there is none."""
    return _UNSAFE.sub("", (header or "")[:_LONGEST_ID]) or secrets.token_hex(16)


def traceparent(header: str | None) -> str | None:
    """A valid W3C ``traceparent`` as it came, None for anything else."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else None
