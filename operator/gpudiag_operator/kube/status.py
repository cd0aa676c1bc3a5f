"""The API server's own error document (Status, meta/v1) as an exception."""

import msgspec

from gpudiag_operator.kube.errors import ApiError


class _Details(msgspec.Struct, rename="camel"):
    retry_after_seconds: float | None = None


class _Status(msgspec.Struct):
    reason: str = ""
    message: str = ""
    code: int = 0
    details: _Details | None = None


_status_decoder = msgspec.json.Decoder(_Status)


def status_error(body: bytes, status: int, retry_after: float | None) -> ApiError:
    """The error that a Status object describes.

    Args:
        body: JSON of the Status, or whatever came instead (a proxy's page).
        status: HTTP status, used when the body names none.
        retry_after: seconds of the header Retry-After; None: what the Status asks for.
    """
    try:
        said = _status_decoder.decode(body)
    except msgspec.DecodeError:
        return ApiError(status, message=body[:200].decode(errors="replace"), retry_after=retry_after)
    if retry_after is None and said.details is not None:
        retry_after = said.details.retry_after_seconds
    return ApiError(said.code or status, said.reason, said.message, retry_after)
