"""From exceptions and statuses of HTTP to exactly one word of the vocabulary."""

import errno
from enum import Enum

import aiohttp
import msgspec

from gpudiag_api.vocabulary import NotRead
from gpudiag_operator.collect.outcome import FetchError
from gpudiag_operator.collect.untrusted import tls_failure


class Stage(Enum):
    """How far a call has come."""

    CONNECTING = "connecting"
    SENT = "sent"
    BODY = "body"

    __hash__ = object.__hash__  # members are counted on every call, and an Enum's own hash is that of its name


class Problem(msgspec.Struct):
    """The little that is read of a problem document (RFC 9457)."""

    title: str = ""
    detail: str = ""


_problem_decoder = msgspec.json.Decoder(Problem)

_NO_ANSWER = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT, errno.EHOSTDOWN})
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
_CUT = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})


def timed_out(stage: Stage, seconds: float, where: str) -> FetchError:
    """The call's time is over; ``seconds`` is what it had, ``where`` the agent's address."""
    match stage:
        case Stage.CONNECTING:
            return FetchError(NotRead.TIMEOUT, f"no connection to {where} within {seconds:g}s")
        case Stage.SENT:
            return FetchError(NotRead.TIMEOUT, f"{where} took the request but did not answer within {seconds:g}s")
        case Stage.BODY:
            return FetchError(
                NotRead.BODY_TIMEOUT, f"{where} began its answer but did not finish it within {seconds:g}s"
            )


def transport(error: Exception, where: str, stage: Stage) -> FetchError:
    """An exception of aiohttp or of the socket."""
    if (untrusted := tls_failure(error, where)) is not None:
        return untrusted
    if isinstance(error, aiohttp.ClientPayloadError):
        return FetchError(NotRead.CONNECTION_CLOSED, f"{where} closed the connection in the middle of its answer")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return FetchError(NotRead.CONNECTION_CLOSED, f"{where} closed the connection without an answer")
    if isinstance(error, aiohttp.ClientResponseError):  # what came back is no HTTP
        return FetchError(NotRead.BAD_RESPONSE, f"{where} does not speak HTTP as it should: {short(error.message)}")
    if isinstance(error, OSError):
        return _socket(error, where, stage)
    return FetchError(NotRead.BAD_RESPONSE, f"{where}: {short(str(error) or type(error).__name__)}")


def _socket(error: OSError, where: str, stage: Stage) -> FetchError:
    said = short(error.strerror or str(error))
    if error.errno in _OURS:
        return FetchError(
            NotRead.TIMEOUT,
            f"the operator could not open a connection to {where}: {said}",
            ignored=True,
            advice="raise the operator's limit of open files",
        )
    if error.errno in _NO_ANSWER:
        return FetchError(NotRead.TIMEOUT, f"no way to {where}: {said}")
    if error.errno in _CUT or stage is not Stage.CONNECTING:
        return FetchError(NotRead.CONNECTION_CLOSED, f"{where} closed the connection: {said}")
    return FetchError(NotRead.CONNECTION_REFUSED, f"{where} refused the connection: {said}")


def status(code: int, body: bytes, where: str) -> FetchError:
    """An HTTP status other than 200 and 304, with the first bytes of its body."""
    problem = _problem(body)
    said = short(problem.detail or problem.title)
    what = f"{where} answered HTTP {code}" + (f": {said}" if said else "")
    if code in (401, 403):
        return FetchError(NotRead.UNAUTHORIZED, what)
    if code == 503 and problem.title == NotRead.AUTH_UNAVAILABLE:
        return FetchError(NotRead.AUTH_UNAVAILABLE, what)
    if code >= 500:
        return FetchError(NotRead.SERVER_ERROR, what)
    return FetchError(NotRead.BAD_RESPONSE, what, ignored=400 <= code < 500)


def _problem(body: bytes) -> Problem:
    try:
        return _problem_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return Problem()


def short(text: str) -> str:
    """A stranger's words, fit for one line of a message."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:160])
