"""The pipe between the agent and the child: frames of a 4-byte big-endian length and a msgpack body."""

import msgspec

from gpudiag_agent.sample import Sample

MAX_FRAME_BYTES = 4 << 20
"""64 GPUs with all the links, MIG devices and processes that the reader takes are below 3 MiB; 8 GPUs with 18 links
each are 60 KiB."""

HEADER_BYTES = 4

GREETING = bytes(HEADER_BYTES)
"""An empty frame: the child is ready to be asked."""

FULL, QUICK = b"f", b"q"
"""Requests: everything, or only what changes from one look to the next."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Sample)


class FrameError(Exception):
    """The other end does not speak this protocol."""


def encode(sample: Sample) -> bytes:
    """A sample as one frame."""
    body = _encoder.encode(sample)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def body_length(header: bytes) -> int:
    """The length that a header announces.

    Raises:
        FrameError: more than a sample can be.
    """
    length = int.from_bytes(header, "big")
    if length > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {length} bytes, at most {MAX_FRAME_BYTES} are allowed")
    return length


def decode(body: bytes) -> Sample:
    """The sample of a frame's body.

    Raises:
        FrameError: not a sample.
    """
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise FrameError(str(error)) from error
