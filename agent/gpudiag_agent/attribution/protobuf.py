"""Reads protocol buffers, as much of them as the kubelet's answers need.

Wire format: https://protobuf.dev/programming-guides/encoding/. Which message nests where is written in the code that
calls this, so hostile input can neither recurse nor name a type. Nothing is copied until a text is taken.
"""

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT = 10
"""Bytes of the longest varint there is (64 bits)."""


class MalformedError(ValueError):
    """Not a protocol buffer; the message says where."""


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value of every field, in the order sent.

    Varints are given as unsigned numbers, what has a length as a view; fixed-width fields are skipped.

    Raises:
        MalformedError: it ends within a field, or has a wire type that proto3 has not.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise MalformedError(f"field number 0 at byte {at}")
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise MalformedError(f"wire type {kind} at byte {at}")
        if size > len(message) - at:
            raise MalformedError(f"a field of {size} bytes at byte {at} of {len(message)}")
        if kind == _BYTES:
            yield number, message[at : at + size]
        at += size


def messages(message: memoryview, number: int) -> Iterator[memoryview]:
    """Every value of a repeated field of messages or texts; other fields are skipped.

    Raises:
        MalformedError: see :func:`fields`.
    """
    for found, value in fields(message):
        if found == number and isinstance(value, memoryview):
            yield value


def text(value: int | memoryview, *, limit: int = 253) -> str:
    """A text, clipped to so many characters.

    Raises:
        MalformedError: it is a number, or not UTF-8.
    """
    if isinstance(value, int):
        raise MalformedError("a number where a text belongs")
    try:
        return str(value[: 4 * limit], "utf-8", "strict" if len(value) <= 4 * limit else "ignore")[:limit]
    except UnicodeDecodeError as error:
        raise MalformedError("a text that is not UTF-8") from error


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in message[at : at + _MAX_VARINT]:
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise MalformedError(f"an endless number before byte {at}")
