"""The same facts for hosts that show only text: generated from the structured answer, so the two cannot differ."""

from collections.abc import Mapping
from typing import Any

_SEPARATE = ("verdict", "summary", "next", "source")


def rendered(body: Mapping[str, Any]) -> str:
    """Verdict and summary, one line per fact, the next step, the source."""
    verdict = f"[{body['verdict']}] " if body.get("verdict") else ""
    lines = [f"{verdict}{body.get('summary', '')}"]
    for key, value in body.items():
        if key not in _SEPARATE:
            lines += _lines(key, value)
    if step := body.get("next"):
        lines.append(f"Next: {_value(step)}")
    if source := body.get("source"):
        lines.append(f"Source: {_value(source)}")
    return "\n".join(lines)


def _lines(key: str, value: Any) -> list[str]:
    if isinstance(value, list):
        return [f"{key}:", *(f"- {_value(row)}" for row in value)] if value else []
    return [f"{key}: {_value(value)}"]


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}={_nested(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return str(value)


def _nested(value: Any) -> str:
    return f"({_value(value)})" if isinstance(value, Mapping) else _value(value)
