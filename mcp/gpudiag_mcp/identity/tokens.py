"""Bearer tokens, verified by the API server (TokenReview) for our own audience.

A token of another audience is refused: it was given to somebody else, and whoever it was given to must not be able to
use it here. The API server must name our audience in its answer; one that does not is not aware of audiences
(TokenReview API, ``status.audiences``).
"""

import base64
import binascii
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from gpudiag_mcp.identity.buckets import Buckets
from gpudiag_mcp.identity.principal import Principal, UserInfo
from gpudiag_mcp.identity.remembered import Remembered
from gpudiag_mcp.kube.api import TOKEN_REVIEWS, KubeAPI
from gpudiag_mcp.kube.errors import AccessError, ApiError, ApiUnavailable

log = logging.getLogger(__name__)

GOOD_SECONDS = 45.0
BAD_SECONDS = 10.0
MOST = 4096
REVIEWS_PER_MINUTE = 1200
REVIEWS_AT_ONCE = 100
"""Unknown tokens cost the API server a request each: at most 20 a second for long, 100 at once."""
_RETRY_SECONDS = 5.0


class TokenRefused(Exception):  # noqa: N818  (an answer, not a mistake)
    """No: ``reason`` is a word for metrics (Missing, Invalid, Audience, Expired), the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TokenUnverified(Exception):  # noqa: N818  (a state, not a mistake)
    """Nobody can tell at the moment; ask again after ``retry_after`` seconds."""

    def __init__(self, message: str, retry_after: float = _RETRY_SECONDS) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class _Status(msgspec.Struct, frozen=True):
    authenticated: bool = False
    user: UserInfo = UserInfo()
    audiences: list[str] | None = None
    error: str = ""


class _Review(msgspec.Struct, frozen=True):
    status: _Status = _Status()


class _Claims(msgspec.Struct, frozen=True):
    exp: float | None = None
    aud: str | list[str] = msgspec.field(default_factory=list)


@dataclass(frozen=True)
class _Verdict:
    principal: Principal | None
    reason: str = ""
    message: str = ""


class Tokens:
    """Knows whose token it is.

    Args:
        api: the API server, as ourselves; needs ``create tokenreviews``.
        audience: that tokens must be meant for.
        clock: Unix seconds.
        monotonic: seconds of a clock that does not jump.
    """

    def __init__(
        self,
        api: KubeAPI,
        *,
        audience: str,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._audience = audience
        self._clock = clock
        self._known: Remembered[bytes, _Verdict] = Remembered(most=MOST, monotonic=monotonic)
        self._reviews = Buckets(per_minute=REVIEWS_PER_MINUTE, burst=REVIEWS_AT_ONCE, most=1, monotonic=monotonic)

    async def principal(self, token: str) -> Principal:
        """Whose token it is. An answer is used for 45 s, and no longer than the token lives.

        Raises:
            TokenRefused: it is nobody's, or meant for somebody else.
            TokenUnverified: the API server does not answer, and this token was not seen lately.
        """
        if not token:
            raise TokenRefused("Missing", "send a token: Authorization: Bearer …")
        claims = _claims(token)
        if claims.exp is not None and claims.exp <= self._clock():
            raise TokenRefused("Expired", "the token has expired; get a new one")
        # The token itself is not kept anywhere.
        verdict = await self._known.ask(hashlib.sha256(token.encode()).digest(), lambda: self._review(token, claims))
        if verdict.principal is None:
            raise TokenRefused(verdict.reason, verdict.message)
        return verdict.principal

    async def _review(self, token: str, claims: _Claims) -> tuple[_Verdict, float]:
        if wait := self._reviews.take(""):
            raise TokenUnverified("too many unknown tokens at the moment", wait)
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        try:
            status = msgspec.json.decode(await self._api.create(TOKEN_REVIEWS, body), type=_Review).status
        except ApiError as error:
            log.error("tokens cannot be verified: %s; this process needs create tokenreviews", error)  # noqa: TRY400
            raise TokenUnverified("this server cannot verify tokens: the API server refuses its request") from error
        except (ApiUnavailable, AccessError, msgspec.DecodeError) as error:
            log.warning("tokens cannot be verified: %s", error)
            raise TokenUnverified("this server cannot verify tokens: the API server does not answer") from error
        if not status.authenticated or not status.user.username:
            return self._why(status, claims), BAD_SECONDS
        if self._audience not in (status.audiences or ()):
            return self._wrong_audience(), BAD_SECONDS
        return _Verdict(status.user.principal()), GOOD_SECONDS

    def _why(self, status: _Status, claims: _Claims) -> _Verdict:
        meant_for = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        if meant_for and self._audience not in meant_for:
            return self._wrong_audience()
        log.info("token refused: %.200s", status.error or "not authenticated")
        return _Verdict(None, "Invalid", "the API server does not accept the token; get a new one")

    def _wrong_audience(self) -> _Verdict:
        return _Verdict(
            None, "Audience", f"the token is not meant for this server; get one with --audience={self._audience}"
        )


def _claims(token: str) -> _Claims:
    """What a JWT says of itself, unverified: it can only shorten its life and explain a refusal."""
    try:
        payload = token.split(".")[1]
        return msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=_Claims)
    except (IndexError, ValueError, binascii.Error, msgspec.DecodeError):
        return _Claims()
