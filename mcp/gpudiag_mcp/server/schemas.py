"""JSON schemas without what nobody needs: they are sent with every ``tools/list``."""

from typing import Any

_MAPS = ("properties", "$defs")
"""Keywords whose value maps names to schemas: a property may be called ``title``."""


def lean(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without titles, which repeat the names, and without defaults of fields that are left out."""
    return {key: _lean(key, value) for key, value in schema.items() if not _needless(key, value)}


def _lean(key: str, value: Any) -> Any:
    if key in _MAPS:
        return {name: lean(one) for name, one in value.items()}
    if isinstance(value, dict):
        return lean(value) if key != "default" else value
    if isinstance(value, list):
        return [lean(one) if isinstance(one, dict) else one for one in value]
    return value


def _needless(key: str, value: Any) -> bool:
    return key == "title" or (key == "default" and value in ("", None, False, [], {}))
