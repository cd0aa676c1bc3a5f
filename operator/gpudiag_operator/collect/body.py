"""From the bytes of an answer to a report that can be trusted: bounded, validated, of the right node.

An agent may be broken or hostile: what is read is bounded before and after decompression, types and list lengths are
bounded by the wire structs, and nothing is believed about which node it speaks for.
"""

import zlib

import aiohttp
import msgspec

from gpudiag_api import wire
from gpudiag_api.vocabulary import NotRead
from gpudiag_api.wire import MAX_REPORT_BYTES, Report
from gpudiag_operator.collect.outcome import FetchError

_envelope_decoder = msgspec.json.Decoder(wire.Envelope)
_GZIP = zlib.MAX_WBITS | 16


async def read_bounded(response: aiohttp.ClientResponse, limit: int = MAX_REPORT_BYTES) -> bytes:
    """The decompressed body, never holding more than ``limit`` bytes (and a chunk) of it.

    Raises:
        FetchError: ResponseTooLarge, or BadResponse for a broken or unknown compression.
    """
    if (response.content_length or 0) > limit:
        raise _too_large(limit)
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise FetchError(NotRead.BAD_RESPONSE, f"the answer is compressed with {encoding[:40]!r}, not gzip")
    inflate = zlib.decompressobj(_GZIP) if encoding == "gzip" else None
    parts: list[bytes] = []
    size = received = 0
    async for chunk in response.content.iter_any():
        received += len(chunk)
        data = chunk if inflate is None else _inflated(inflate, chunk, limit - size + 1)
        size += len(data)
        if size > limit or received > limit:
            raise _too_large(limit)
        parts.append(data)
    if inflate is not None and not inflate.eof:
        raise FetchError(NotRead.BAD_RESPONSE, "the compressed answer is incomplete")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def parse(body: bytes, *, content_type: str, node: str) -> Report:
    """Decode, validate and check a report.

    Args:
        body: decompressed.
        content_type: of the answer, for the message only.
        node: the name that the report must carry (the Pod's ``spec.nodeName``).

    Raises:
        FetchError: NotJSON, BadResponse, AgentVersionSkew or IdentityMismatch.
    """
    try:
        report = wire.decode(body)
    except msgspec.ValidationError as error:
        _check_skew(body)
        raise FetchError(NotRead.BAD_RESPONSE, f"the answer is no report: {error}") from None
    except RecursionError:
        raise FetchError(NotRead.BAD_RESPONSE, "the answer is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        what = f"the answer ({content_type[:60] or 'no content type'}) is not JSON: {error}"
        raise FetchError(NotRead.NOT_JSON, what) from None
    if not wire.accepts(report.version):
        raise _skew(report.version)
    if report.agent.node_name != node:
        said = report.agent.node_name
        raise FetchError(NotRead.IDENTITY_MISMATCH, f"the agent on node {node} reports for node {said!r}")
    _check_unique(report)
    return report


def _inflated(inflate: "zlib._Decompress", chunk: bytes, room: int) -> bytes:
    try:
        data = inflate.decompress(chunk, room)
    except zlib.error as error:
        raise FetchError(NotRead.BAD_RESPONSE, f"the answer says it is gzip but is not: {error}") from None
    if inflate.unused_data:
        raise FetchError(NotRead.BAD_RESPONSE, "the answer goes on after the end of its compressed data")
    return data


def _check_skew(body: bytes) -> None:
    """Raise AgentVersionSkew when what did not decode says that it is of another version than ours."""
    try:
        version = _envelope_decoder.decode(body).wire_version
    except (msgspec.DecodeError, RecursionError):
        return
    if version != wire.WIRE_VERSION:
        raise _skew(version)


def _check_unique(report: Report) -> None:
    """One GPU listed twice would give a key twice, which rejects the whole write of a status."""
    gpus = report.gpus
    if len({gpu.uuid for gpu in gpus}) < len(gpus) or len({gpu.index for gpu in gpus}) < len(gpus):
        raise FetchError(NotRead.BAD_RESPONSE, "the report lists one GPU (index or UUID) twice")


def _skew(version: str) -> FetchError:
    return FetchError(
        NotRead.AGENT_VERSION_SKEW,
        f"the agent speaks report version {version[:20]!r}, this operator {wire.WIRE_VERSION}",
    )


def _too_large(limit: int) -> FetchError:
    return FetchError(NotRead.RESPONSE_TOO_LARGE, f"the answer is larger than {limit} bytes")
