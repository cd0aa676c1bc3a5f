"""Bearer tokens as they come in headers. Pure; nothing here says that a token is good."""

import base64
import hashlib
import re
from collections.abc import Mapping

import msgspec

HEADERS = ("Authorization", "X-Gpudiag-Authorization")
"""The API server's Pod proxy strips the first one, which is its own (measured, facts/performance-and-api.md)."""
MAX_TOKEN = 8192
"""Characters. A service account's token has about 1,000; aiohttp takes no header line beyond 8,190 bytes."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""``token68`` of RFC 9110, section 11.2."""


class _Claims(msgspec.Struct):
    exp: float | None = None


_claims = msgspec.json.Decoder(_Claims)


def token_of(headers: Mapping[str, str]) -> str | None:
    """The token that a request shows; None: none, or nothing that can be one."""
    value = next((headers[name] for name in HEADERS if name in headers), "")
    scheme, _, token = value.partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or len(token) > MAX_TOKEN or _TOKEN.fullmatch(token) is None:
        return None
    return token


def fingerprint(token: str) -> bytes:
    """What stands for a token in memory, so that no memory dump holds one: SHA-256, 32 bytes."""
    return hashlib.sha256(token.encode()).digest()


def expiry(token: str) -> float | None:
    """When a JWT says that it ends, Unix seconds; None: it does not say, or is no JWT.

    Read, not verified: only of tokens for which the API server has vouched.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        return _claims.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))).exp
    except (ValueError, msgspec.DecodeError, RecursionError):
        return None
