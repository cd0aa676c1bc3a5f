"""One gRPC call with an empty request over HTTP/2, without the socket: bytes in, bytes out.

RFC 9113 and https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. Written here because memory counts on every
node. PSS that each adds to an agent with aiohttp loaded, measured with Python 3.11: grpcio and protobuf 10 MB, the h2
package with hpack and hyperframe 1.0 to 1.4 MB, this with its protobuf reader 0.1 MB. Both processes together may take
55 MB, of which 48 are the floor.

A server that is honest or not can neither make this grow nor keep it busy: the flow-control window it gets *is* the
bound of the answer and is never opened again, it may use no dynamic header table, and frames are counted.
"""

import struct
from urllib.parse import unquote

from gpudiag_agent.attribution import hpack

MAX_ANSWER = 16 << 20
"""Bytes of the longest answer."""
MAX_FRAMES = 20_000
"""Frames of one call. The longest answer is 1,024 of them."""

_MAX_FRAME = 16384
_MARGIN = 1 << 16
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PUSH_PROMISE, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    0, 1, 3, 4, 5, 6, 7, 8, 9,
)  # fmt: skip
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_STREAM = 1
_STATUSES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


class CallError(Exception):
    """The call failed; the message completes the sentence "The kubelet …"."""


class Call:
    """One call.

    Args:
        path: ``/package.Service/Method``.
        timeout: whole seconds the server is told it has.
        limit: bytes of the longest answer.
    """

    def __init__(self, path: str, *, timeout: int, limit: int = MAX_ANSWER) -> None:
        self._path = path
        self._timeout = timeout
        self._limit = limit
        self._pending = bytearray()
        self._body = bytearray()
        self._block = bytearray()
        self._in_block = False
        self._ending = False
        self._headers: dict[str, str] = {}
        self._frames = 0
        self.answer: bytes | None = None
        """The message, once the server has sent all of it."""

    def opening(self) -> bytes:
        """What to send first, which is all there is to send of our own."""
        window = self._limit + _MARGIN
        # HEADER_TABLE_SIZE 0, ENABLE_PUSH 0, INITIAL_WINDOW_SIZE, MAX_HEADER_LIST_SIZE.
        settings = struct.pack(">HIHIHIHI", 1, 0, 2, 0, 4, window, 6, hpack.MAX_BLOCK)
        headers = b"".join((
            b"\x83\x86",  # :method POST, :scheme http
            _literal(4, self._path),
            _literal(1, "localhost"),
            _literal(31, "application/grpc"),
            _literal("te", "trailers"),
            _literal("grpc-timeout", f"{self._timeout}S"),
            _literal(58, "gpudiag-agent"),
        ))  # fmt: skip
        return b"".join((
            _PREFACE,
            _frame(_SETTINGS, 0, 0, settings),
            _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", window - 65535)),
            _frame(_HEADERS, _END_HEADERS, _STREAM, headers),
            _frame(_DATA, _END_STREAM, _STREAM, bytes(5)),
        ))  # fmt: skip

    def feed(self, data: bytes) -> bytes:
        """Take what the server sent, in any pieces.

        Returns:
            What to send back, often nothing.

        Raises:
            CallError: the server refused, broke the protocol, or went over a bound.
        """
        self._pending += data
        replies, at = [], 0
        while self.answer is None and len(self._pending) - at >= 9:
            high, low, kind, flags, stream = struct.unpack_from(">BHBBI", self._pending, at)
            size = high << 16 | low
            if self._frames == 0 and (kind != _SETTINGS or flags & _ACK):
                raise CallError("does not speak HTTP/2")
            if size > _MAX_FRAME:
                raise CallError(f"sent a frame of {size} bytes")
            if len(self._pending) - at < 9 + size:
                break
            self._frames += 1
            if self._frames > MAX_FRAMES:
                raise CallError(f"sent more than {MAX_FRAMES} frames")
            payload = bytes(self._pending[at + 9 : at + 9 + size])
            at += 9 + size
            replies.append(self._take(kind, flags, stream & 0x7FFF_FFFF, payload))
        del self._pending[:at]
        return b"".join(replies)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        if self._in_block and kind != _CONTINUATION:
            raise CallError("broke off its headers")
        if kind == _SETTINGS:
            return b"" if flags & _ACK else _frame(_SETTINGS, _ACK, 0, b"")
        if kind == _PING:
            return b"" if flags & _ACK else _frame(_PING, _ACK, 0, payload[:8])
        if kind == _GOAWAY:
            self._goaway(payload)
        elif kind == _PUSH_PROMISE:
            raise CallError("pushed something nobody asked for")
        elif kind in (_DATA, _HEADERS, _CONTINUATION, _RST_STREAM):
            if stream != _STREAM:
                raise CallError(f"answered on stream {stream}, which nobody opened")
            self._on_stream(kind, flags, payload)
        return b""

    def _on_stream(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _RST_STREAM:
            code = int.from_bytes(payload[:4], "big")
            raise CallError(f"broke the call off (HTTP/2 error {code})")
        if kind == _DATA:
            self._data(_unpadded(flags, payload, 0))
        else:
            if kind == _HEADERS:
                self._ending = bool(flags & _END_STREAM)
                payload = _unpadded(flags, payload, 5 if flags & _PRIORITY else 0)
            elif not self._in_block:
                raise CallError("continued headers that it had not begun")
            self._header_block(payload, complete=bool(flags & _END_HEADERS))
        ended = bool(flags & _END_STREAM) if kind == _DATA else self._ending
        if ended and not self._in_block:
            self.answer = self._finish()

    def _goaway(self, payload: bytes) -> None:
        last = int.from_bytes(payload[:4], "big") & 0x7FFF_FFFF
        if last < _STREAM:
            raise CallError(f"closed the connection (HTTP/2 error {int.from_bytes(payload[4:8], 'big')})")

    def _data(self, payload: bytes) -> None:
        self._body += payload
        if len(self._body) >= 5:
            declared = int.from_bytes(self._body[1:5], "big")
            if declared > self._limit or len(self._body) > self._limit + 5:
                raise CallError(f"sent more than {self._limit} bytes")

    def _header_block(self, payload: bytes, *, complete: bool) -> None:
        self._block += payload
        if len(self._block) > hpack.MAX_BLOCK:
            raise CallError(f"sent more than {hpack.MAX_BLOCK} bytes of headers")
        self._in_block = not complete
        if complete:
            try:
                self._headers.update(hpack.decode(bytes(self._block)))
            except hpack.HeaderError as error:
                raise CallError(f"sent headers that cannot be read: {error}") from error
            self._block.clear()

    def _finish(self) -> bytes:
        http, status = self._headers.get(":status", "none"), self._headers.get("grpc-status", "")
        if status and status != "0":
            known = status.isdecimal() and len(status) < 3 and int(status) < len(_STATUSES)
            name = _STATUSES[int(status)] if known else status[:16]
            said = unquote(self._headers.get("grpc-message", ""))[:200]
            raise CallError(f"refused: {name}" + (f", {said}" if said else ""))
        if http != "200" or not status:
            raise CallError(f"does not speak gRPC (HTTP status {http[:16]})")
        body = self._body
        if len(body) < 5 or body[0] != 0 or int.from_bytes(body[1:5], "big") != len(body) - 5:
            raise CallError("answered with something other than one message")
        return bytes(body[5:])


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">BHBBI", len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def _literal(name: int | str, value: str) -> bytes:
    """A header that no table keeps; every length here is below 127."""
    if isinstance(name, str):
        start = bytes((0, len(name))) + name.encode()
    else:
        start = bytes((name,)) if name < 15 else bytes((15, name - 15))
    return start + bytes((len(value),)) + value.encode()


def _unpadded(flags: int, payload: bytes, skip: int) -> bytes:
    if not flags & _PADDED:
        if skip > len(payload):
            raise CallError("sent a frame that is too short")
        return payload[skip:]
    if len(payload) < 1 + skip or payload[0] > len(payload) - 1 - skip:
        raise CallError("sent a frame that is all padding")
    return payload[1 + skip : len(payload) - payload[0]]
