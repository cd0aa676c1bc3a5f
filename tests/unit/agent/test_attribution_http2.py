"""The gRPC call without its socket: what a server may do, and what it cannot do to us."""

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.attribution import hpack
from gpudiag_agent.attribution.http2 import MAX_FRAMES, Call, CallError

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32
HELLO = struct.pack(">BHBBI", 0, 0, SETTINGS, 0, 0)
OK_HEADERS = b"\x88"
OK_TRAILERS = b"\x00\x0bgrpc-status\x010"


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 1) -> bytes:
    return struct.pack(">BHBBI", len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def literal(name: str, value: str) -> bytes:
    return bytes((0, len(name))) + name.encode() + bytes((len(value),)) + value.encode()


def message(body: bytes) -> bytes:
    return struct.pack(">BI", 0, len(body)) + body


def answer(body: bytes, *, pieces: int = 16384) -> bytes:
    whole = message(body)
    return b"".join((
        HELLO,
        frame(HEADERS, OK_HEADERS, flags=END_HEADERS),
        *(frame(DATA, whole[at : at + pieces]) for at in range(0, len(whole), pieces)),
        frame(HEADERS, OK_TRAILERS, flags=END_HEADERS | END_STREAM),
    ))  # fmt: skip


def call(*, limit: int = 1 << 20) -> Call:
    return Call("/v1.PodResourcesLister/List", timeout=5, limit=limit)


def feed(running: Call, piece: bytes, times: int) -> None:
    for _ in range(times):
        running.feed(piece)


def ended(*frames: bytes) -> Call:
    running = call()
    running.feed(HELLO + b"".join(frames))
    return running


class TestAnAnswer:
    @given(st.binary(max_size=300), st.integers(1, 64), st.integers(1, 40))
    def test_arrives_in_any_pieces(self, body: bytes, chunk: int, pieces: int) -> None:
        running, sent = call(), answer(body, pieces=pieces)
        for at in range(0, len(sent), chunk):
            running.feed(sent[at : at + chunk])
        assert running.answer == body

    def test_may_be_padded_prioritised_and_continued(self) -> None:
        running = ended(
            frame(HEADERS, b"\x02" + bytes(5) + b"\x88" + b"..", flags=PADDED | PRIORITY | END_HEADERS),
            frame(DATA, b"\x03" + message(b"abc") + b"...", flags=PADDED),
            frame(HEADERS, OK_TRAILERS[:4], flags=END_STREAM),
            frame(CONTINUATION, OK_TRAILERS[4:], flags=END_HEADERS),
        )
        assert running.answer == b"abc"

    def test_unknown_frames_and_window_updates_are_ignored(self) -> None:
        running = ended(frame(WINDOW_UPDATE, b"\0\0\1\0", stream=0), frame(200, b"?"), answer(b"x")[len(HELLO) :])
        assert running.answer == b"x"

    def test_a_server_that_is_about_to_leave_may_still_answer(self) -> None:
        leaving = frame(GOAWAY, struct.pack(">II", 1, 0), stream=0)
        assert ended(leaving, answer(b"x")[len(HELLO) :]).answer == b"x"

    def test_settings_and_pings_are_acknowledged(self) -> None:
        running = call()
        assert running.feed(HELLO) == frame(SETTINGS, flags=ACK, stream=0)
        assert running.feed(frame(PING, b"12345678", stream=0)) == frame(PING, b"12345678", flags=ACK, stream=0)
        assert running.feed(frame(SETTINGS, flags=ACK, stream=0) + frame(PING, b"12345678", flags=ACK, stream=0)) == b""


class TestTheOpening:
    def test_gives_the_server_no_more_window_than_the_bound(self) -> None:
        opening = call(limit=1 << 20).opening()
        assert opening.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        settings = dict(struct.iter_unpack(">HI", opening[24 + 9 : 24 + 9 + 24]))
        assert settings == {1: 0, 2: 0, 4: (1 << 20) + (1 << 16), 6: hpack.MAX_BLOCK}


class TestARefusal:
    def test_is_named_and_quoted(self) -> None:
        block = b"\x88" + literal("grpc-status", "8") + literal("grpc-message", "too%20many")
        with pytest.raises(CallError, match="refused: RESOURCE_EXHAUSTED, too many"):
            ended(frame(HEADERS, block, flags=END_HEADERS | END_STREAM))

    @pytest.mark.parametrize(
        ("frames", "words"),
        [
            ([frame(RST_STREAM, struct.pack(">I", 8))], "broke the call off .HTTP/2 error 8"),
            ([frame(GOAWAY, struct.pack(">II", 0, 11), stream=0)], "closed the connection .HTTP/2 error 11"),
            ([frame(PUSH_PROMISE, bytes(4))], "pushed something"),
            ([frame(HEADERS, b"\x8d", flags=END_HEADERS | END_STREAM)], "does not speak gRPC .HTTP status 404"),
            ([frame(HEADERS, b"\x88", flags=END_HEADERS | END_STREAM)], "does not speak gRPC"),
            ([frame(DATA, message(b""), flags=END_STREAM)], "does not speak gRPC"),
            ([frame(HEADERS, b"\x88" + OK_TRAILERS, flags=END_HEADERS | END_STREAM)], "other than one message"),
            ([frame(HEADERS, b"\x88", flags=END_HEADERS, stream=3)], "stream 3"),
            ([frame(CONTINUATION, b"\x88", flags=END_HEADERS)], "continued headers"),
            ([frame(HEADERS, b"\x88"), frame(DATA, b"")], "broke off its headers"),
            ([frame(HEADERS, b"\xff\xff", flags=END_HEADERS)], "headers that cannot be read"),
            ([frame(HEADERS, b"\xfe", flags=END_HEADERS)], "table entry 126"),
            ([frame(HEADERS, b"\x3f\xe1\x1f", flags=END_HEADERS)], "dynamic table of 4096 bytes"),
            ([frame(DATA, b"\x09.", flags=PADDED)], "all padding"),
            ([frame(HEADERS, b"\x88", flags=PRIORITY | END_HEADERS)], "too short"),
            ([frame(DATA, b"\x00\x7f\xff\xff\xff")], "more than 1048576 bytes"),
        ],
    )
    def test_completes_the_sentence(self, frames: list[bytes], words: str) -> None:
        with pytest.raises(CallError, match=words):
            ended(*frames)

    @pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9\r\n", frame(DATA, b"x")])
    def test_of_another_protocol_is_said_at_once(self, said: bytes) -> None:
        with pytest.raises(CallError, match=r"does not speak HTTP/2|sent a frame of"):
            call().feed(said)

    def test_a_compressed_or_second_message_is_not_taken(self) -> None:
        for body in (b"\x01\0\0\0\0", message(b"a") + message(b"b"), message(b"abc")[:-1]):
            with pytest.raises(CallError, match="other than one message"):
                ended(
                    frame(HEADERS, b"\x88", flags=END_HEADERS),
                    frame(DATA, body),
                    frame(HEADERS, OK_TRAILERS, flags=END_HEADERS | END_STREAM),
                )


class TestAHostileServer:
    def test_cannot_send_frames_for_ever(self) -> None:
        running = call()
        running.feed(HELLO)
        flood = frame(SETTINGS, stream=0) * 1000
        with pytest.raises(CallError, match=f"more than {MAX_FRAMES} frames"):
            feed(running, flood, MAX_FRAMES // 1000 + 1)

    def test_cannot_send_headers_for_ever(self) -> None:
        with pytest.raises(CallError, match="bytes of headers"):
            ended(frame(HEADERS, bytes(16384)), frame(CONTINUATION, bytes(16384)))

    def test_cannot_make_it_keep_more_than_the_bound(self) -> None:
        piece = frame(DATA, bytes(16384))
        tracemalloc.start()
        try:
            running = call(limit=1 << 20)
            running.feed(HELLO + frame(DATA, b"\x00\x00\x10\x00\x00"))
            with pytest.raises(CallError, match="more than 1048576 bytes"):
                feed(running, piece, 1000)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()

    def test_cannot_announce_a_frame_that_never_comes(self) -> None:
        with pytest.raises(CallError, match="frame of 16777215 bytes"):
            ended(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01")

    @given(st.binary(max_size=600))
    def test_gets_a_call_error_or_nothing(self, nonsense: bytes) -> None:
        for prefix in (b"", HELLO):
            try:
                call().feed(prefix + nonsense)
            except CallError:
                continue

    @given(
        st.lists(st.tuples(st.integers(0, 11), st.integers(0, 255), st.sampled_from([0, 1, 3]), st.binary(max_size=40)))
    )
    def test_gets_a_call_error_or_nothing_for_frames(self, frames: list[tuple[int, int, int, bytes]]) -> None:
        running = call()
        sent = b"".join(frame(kind, payload, flags=flags, stream=stream) for kind, flags, stream, payload in frames)
        try:
            reply = running.feed(HELLO + sent)
        except CallError:
            return
        assert len(reply) <= 17 * (len(frames) + 1)


class TestHeaders:
    """RFC 7541, appendix C."""

    @pytest.mark.parametrize(
        ("block", "headers"),
        [
            ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", [("custom-key", "custom-header")]),  # C.2.1
            ("100870617373776f726406736563726574", [("password", "secret")]),  # C.2.3
            ("408825a849e95ba97d7f8925a849e95bb8e8b4bf", [("custom-key", "custom-value")]),  # C.4.3, Huffman
            ("4803333032580770726976617465", [(":status", "302")]),  # C.5.1, begun
            ("4882640258" + "85aec3771a4b", [(":status", "302")]),  # C.6.1, begun, Huffman
            ("88", [(":status", "200")]),
            ("2088", [(":status", "200")]),
            ("", []),
        ],
    )
    def test_examples_of_the_rfc(self, block: str, headers: list[tuple[str, str]]) -> None:
        assert hpack.decode(bytes.fromhex(block)) == headers

    def test_every_printable_character_has_the_code_of_the_rfc(self) -> None:
        """Spot checks of appendix B: the shortest, the longest kept, and both ends of a length."""
        codes = {character: (length, code) for (length, code), character in hpack._CODES.items()}
        assert len(codes) == 96
        assert codes["0"] == (5, 0x0)
        assert codes["t"] == (5, 0x9)
        assert codes["%"] == (6, 0x15)
        assert codes[":"] == (7, 0x5C)
        assert codes["Z"] == (8, 0xFD)
        assert codes["!"] == (10, 0x3F8)
        assert codes["~"] == (13, 0x1FFD)
        assert codes["{"] == (15, 0x7FFE)
        assert codes["\\"] == (19, 0x7FFF0)

    @given(st.binary(max_size=200))
    def test_no_block_breaks_it(self, block: bytes) -> None:
        try:
            hpack.decode(block)
        except hpack.HeaderError:
            return
