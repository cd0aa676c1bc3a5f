"""Pages of a list that is ordered by meaning. A token holds the place after the last row, not a snapshot.

So a list that changes between two calls loses no row that stayed where it was, and a token never expires; one that
belongs to other arguments is refused like an expired one.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from gpudiag_mcp.answers.refusals import Refusal

T = TypeVar("T")

LONGEST_TOKEN = 1024


@dataclass(frozen=True)
class Cut(Generic[T]):
    """Some rows, and the token of the next; an empty token: that was all."""

    items: Sequence[T]
    token: str


def cut(items: Sequence[T], *, key: Callable[[T], Any], limit: int, token: str, of: str) -> Cut[T]:
    """The page after ``token`` of items that are sorted by ``key``.

    Raises:
        Refusal: the token is not one of this list.
    """
    if token:
        after = _after(token, of)
        items = [item for item in items if list(key(item)) > after]
    page = items[:limit]
    more = len(items) > len(page)
    return Cut(page, _token(list(key(page[-1])), of) if more and page else "")


def _token(place: list[Any], of: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([of, place])).decode().rstrip("=")


def _after(token: str, of: str) -> list[Any]:
    try:
        padded = token[:LONGEST_TOKEN] + "=" * (-len(token) % 4)
        wanted, place = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=tuple[str, list[Any]])
        if wanted == of:
            return place
    except (binascii.Error, ValueError, msgspec.DecodeError):
        pass
    raise Refusal("Expired", "this continue_token is not of this list. List again without continue_token.")
