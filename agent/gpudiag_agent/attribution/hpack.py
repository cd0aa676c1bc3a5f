"""Reads HTTP/2 header blocks (HPACK, RFC 7541), as much of it as a gRPC answer needs.

The client announces a dynamic table of no bytes (RFC 9113, SETTINGS_HEADER_TABLE_SIZE 0), so a block stands for
itself. Of the static table only ``:status`` matters: gRPC's own headers are not in it. Printable characters are all
that gRPC sends in a header, so the Huffman codes of the others are not kept.
"""

MAX_BLOCK = 16384
"""Bytes of the longest block read."""

_STATUS = {8: "200", 9: "204", 10: "206", 11: "304", 12: "400", 13: "404", 14: "500"}
"""Entries of the static table (RFC 7541, appendix A) whose name is ``:status``."""
_STATIC_ENTRIES = 61
_LENGTHS = {
    5: "012aceiost",
    6: " %-./3456789=A_bdfghlmnpru",
    7: ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: "&*,;XZ",
    10: '!"()?',
    11: "'+|",
    12: "#>",
    13: "\0$@[]~",
    14: "^}",
    15: "<`{",
    19: "\\",
}
"""Code length in bits → characters (RFC 7541, appendix B). The code is canonical: lengths give the codes."""


class HeaderError(ValueError):
    """Not a header block that this client allows."""


def _codes() -> dict[tuple[int, int], str]:
    codes, code, before = {}, 0, 0
    for length, characters in _LENGTHS.items():
        code <<= length - before
        before = length
        for character in characters:
            codes[length, code] = character
            code += 1
    return codes


_CODES = _codes()
_LONGEST = max(_LENGTHS)


def decode(block: bytes) -> list[tuple[str, str]]:
    """Names and values in the order sent; a header whose name is in the static table, ``:status`` apart, is left out.

    Raises:
        HeaderError: the block is malformed, or uses the dynamic table.
    """
    headers, at = [], 0
    while at < len(block):
        first = block[at]
        if first & 0x80:
            index, at = _integer(block, at, 7)
            name, value = _static(index), _STATUS.get(index, "")
        elif first & 0xE0 == 0x20:
            size, at = _integer(block, at, 5)
            if size:
                raise HeaderError(f"a dynamic table of {size} bytes")
            continue
        else:
            index, at = _integer(block, at, 6 if first & 0x40 else 4)
            if index:
                name = _static(index)
            else:
                name, at = _string(block, at)
            value, at = _string(block, at)
        if name:
            headers.append((name, value))
    return headers


def _static(index: int) -> str:
    if not 1 <= index <= _STATIC_ENTRIES:
        raise HeaderError(f"header table entry {index}")
    return ":status" if index in _STATUS else ""


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    mask = (1 << bits) - 1
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in (0, 7, 14):
        if at >= len(block):
            break
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise HeaderError("an endless number")


def _string(block: bytes, at: int) -> tuple[str, int]:
    if at >= len(block):
        raise HeaderError("a header that ends too early")
    packed = block[at] & 0x80
    size, at = _integer(block, at, 7)
    raw = block[at : at + size]
    if len(raw) < size:
        raise HeaderError("a header that ends too early")
    return _unpack(raw) if packed else raw.decode("latin-1"), at + size


def _unpack(raw: bytes) -> str:
    """The text behind Huffman codes; ends at a code that stands for no printable character (or for the padding)."""
    found, code, length = [], 0, 0
    for byte in raw:
        for bit in range(7, -1, -1):
            code, length = code << 1 | byte >> bit & 1, length + 1
            character = _CODES.get((length, code))
            if character is not None:
                found.append(character)
                code = length = 0
            elif length > _LONGEST:
                return "".join(found)
    return "".join(found)
