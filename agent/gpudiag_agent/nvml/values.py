"""What NVML answered, made fit for a sample: within physical bounds, printable, or nothing at all.

NVML says "not available" in many tongues: all bits set, a limit of 0, ``N/A``, bytes of a corrupted InfoROM. None of
them may pass as a reading, and none may break the report, whose strings and integers have bounds.
"""

import re
from typing import Any

from gpudiag_api.pci import normalise

_MAX_CELSIUS = 200
MAX_MILLIWATTS = 10_000_000
MAX_MHZ = 100_000
_MAX_BYTES = 1 << 50
_MAX_COUNT = (1 << 63) - 1
_MAX_ROWS = (1 << 31) - 1
_MAX_WORD = 63
"""Longest text that the wire takes for an identity or a version."""
_MAX_TEXT = 253
_UUID = re.compile(r"[A-Za-z0-9][A-Za-z0-9/_-]*")
_NO_TEXT = frozenset({"", "0", "n/a", "[n/a]", "unknown", "[unknown error]"})


def within(value: int | None, low: int, high: int) -> int | None:
    """The value, or None outside the bounds (0xFFFFFFFF is NVML's "not available" for many unsigned values)."""
    return int(value) if value is not None and low <= value <= high else None


def celsius(value: int | None) -> int | None:
    """A temperature in °C."""
    return within(value, 0, _MAX_CELSIUS)


def limit_celsius(value: int | None) -> int | None:
    """A temperature limit in °C; 0 means that none is set."""
    return within(value, 1, _MAX_CELSIUS)


def margin_celsius(value: int | None) -> int | None:
    """A distance between temperatures in °C, signed."""
    return within(value, -_MAX_CELSIUS, _MAX_CELSIUS)


def percent(value: int | None) -> int | None:
    """A share in per cent."""
    return within(value, 0, 100)


def size_bytes(value: int | None) -> int | None:
    """A size of memory in bytes, at most 1 PiB."""
    return within(value, 0, _MAX_BYTES)


def count(value: int | None) -> int | None:
    """A 64-bit counter; all bits set is none."""
    return within(value, 0, _MAX_COUNT)


def rows(value: int | None) -> int | None:
    """A 32-bit counter; all bits set is none."""
    return within(value, 0, _MAX_ROWS)


def setting(value: int | None, highest: int) -> int | None:
    """A number that is never 0 where there is one: a limit, a clock that was set, a width, a generation."""
    return within(value, 1, highest)


def bit_error_rate(value: int | None) -> float | None:
    """The encoding of the NVLink 5 fields: bits 8 to 11 times ten to the minus bits 0 to 7 (NVML_NVLINK_BER_*)."""
    if value is None or not 0 <= value < 1 << 12:
        return None
    return (value >> 8) * 10.0 ** -(value & 0xFF)


def flag(value: int | None) -> bool | None:
    """``nvmlEnableState_t`` or a boolean as unsigned int: 0 or 1, all else is no answer."""
    return None if value is None or value not in (0, 1) else bool(value)


def text(value: str | bytes | None, longest: int = _MAX_TEXT) -> str:
    """Printable text for people, at most that long; empty where there is none."""
    raw = value.decode(errors="replace") if isinstance(value, bytes) else value or ""
    clean = "".join(character for character in raw if character.isprintable()).strip()[:longest]
    return "" if clean.lower() in _NO_TEXT else clean


def word(value: str | bytes | None) -> str:
    """A serial number or a version: short text."""
    return text(value, _MAX_WORD)


def uuid(value: str | bytes | None) -> str:
    """An identity that machines compare; empty unless it is one, for example ``GPU-5c2e…`` or ``MIG-…``."""
    found = text(value)
    return found if len(found) <= _MAX_WORD and _UUID.fullmatch(found) else ""


def pci(info: Any | None) -> str:
    """The address of an ``nvmlPciInfo_t`` in the project's form, empty where it has none."""
    for name in ("busId", "busIdLegacy"):
        try:
            return normalise(text(getattr(info, name, "")))
        except ValueError:
            continue
    return ""
