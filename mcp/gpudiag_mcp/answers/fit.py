"""The one place that decides how large an answer may be, and what goes first when it is larger.

A result carries the same facts twice: as structured content, and as text for hosts that show only text. Both together
stay within 32 KB. Rows go from the tail of the list that takes most space (lists are worst first), never a part of a
row, so the JSON is whole and the counts stay true.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from gpudiag_mcp.answers.models import Answer, Source
from gpudiag_mcp.answers.text import rendered

LIMIT = 32 << 10
"""Bytes of a whole result."""
_ENVELOPE = 512
"""Bytes for what the protocol adds around text and structured content."""
_FIRST = ("verdict", "summary")
_LAST = ("next", "needs_diagnostic", "warnings", "truncated", "narrow", "source")
_SMALLER = "Rows were left out to stay within 32 KB; pass a smaller limit, then continue_token."
_NARROW = "Rows were left out to stay within 32 KB; {}."


@dataclass(frozen=True)
class Fitted:
    """An answer within the limit; ``size`` in bytes as sent."""

    structured: dict[str, Any]
    text: str
    size: int


def fit(answer: Answer, source: Source | None = None, *, limit: int = LIMIT) -> Fitted:
    """Order, compact, and if need be shorten an answer."""
    body = _ordered(answer if source is None else answer.model_copy(update={"source": source}))
    while True:
        text = rendered(body)
        size = len(msgspec.json.encode(body)) + len(msgspec.json.encode(text)) + _ENVELOPE
        if size <= limit or not _shorten(body, keep=limit / size):
            return Fitted(body, text, size)
        body["truncated"] = True
        # The token would skip the rows that were just cut.
        lost_place = body.pop("continue_token", None) is not None
        body["narrow"] = _SMALLER if lost_place else body.get("narrow") or _NARROW.format(answer.NARROWED_BY)
        body["source"] = body.pop("source", None)  # stays last
        if body["source"] is None:
            del body["source"]


def _ordered(answer: Answer) -> dict[str, Any]:
    """Verdict, evidence, then what to do; what says nothing is left out."""
    values = answer.model_dump(mode="json", exclude_defaults=True)
    middle = [key for key in values if key not in _FIRST and key not in _LAST]
    return {key: values[key] for key in (*_FIRST, *middle, *_LAST) if key in values}


def _shorten(body: dict[str, Any], *, keep: float) -> bool:
    """Cut the tail of the largest list to about the share ``keep``; False when there is nothing left to cut."""
    lists = {key: len(msgspec.json.encode(value)) for key, value in body.items() if isinstance(value, list) and value}
    if not lists:
        return False
    largest = max(lists, key=lists.__getitem__)
    rows = body[largest]
    body[largest] = rows[: min(len(rows) - 1, int(len(rows) * keep * 0.95))]
    return True
