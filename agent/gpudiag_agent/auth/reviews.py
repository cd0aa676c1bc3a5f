"""TokenReview: the API server says whose token it is (authentication.k8s.io/v1).

One request of the whole Kubernetes API, hence no client library. The agent shows its own token, which the kubelet
replaces every hour: files are read for each review.
"""

import asyncio
import ssl
from pathlib import Path
from typing import Protocol

import aiohttp
import msgspec

PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
SECONDS = 3.0
"""For one review: an operator gives an agent 5 s for an answer."""

_MAX_FILE = 64 * 1024
_MAX_ANSWER = 64 * 1024
_PREFIX = "system:serviceaccount:"


class ReviewError(Exception):
    """The API server could not review; the message says why, for people."""


class Reviewer(Protocol):
    """Asks the API server."""

    async def review(self, token: str) -> str:
        """Whose token it is, as ``namespace/name`` of a service account (others by their user name).

        Returns:
            Empty: the token is wrong, over, or not meant for this audience.

        Raises:
            ReviewError: nobody can say at the moment.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class _User(msgspec.Struct):
    username: str = ""


class _Status(msgspec.Struct):
    authenticated: bool = False
    user: _User = msgspec.field(default_factory=_User)
    audiences: list[str] = msgspec.field(default_factory=list)


class _Review(msgspec.Struct):
    status: _Status = msgspec.field(default_factory=_Status)


_decoder = msgspec.json.Decoder(_Review)


class APIServer:
    """The Reviewer over HTTPS. Use it inside a running loop.

    Args:
        url: of the API server, without a path.
        folder: has ``token`` and ``ca.crt``, as the kubelet mounts them.
        audience: whom the tokens must be meant for.
    """

    def __init__(self, url: str, *, folder: Path, audience: str) -> None:
        self._url = url.rstrip("/") + PATH
        self._folder = folder
        self._audience = audience
        self._session: aiohttp.ClientSession | None = None
        self._authorities = b""
        self._context: ssl.SSLContext | None = None

    async def review(self, token: str) -> str:
        """See :class:`Reviewer`."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        try:
            async with asyncio.timeout(SECONDS):
                status = await self._ask(msgspec.json.encode(body))
        except TimeoutError:
            raise ReviewError(f"the API server did not answer within {SECONDS:g}s") from None
        except (OSError, aiohttp.ClientError) as error:
            raise ReviewError(f"no answer from the API server: {str(error)[:200] or type(error).__name__}") from error
        # A server that knows nothing of audiences leaves the list empty, and has not checked it (API reference).
        if not status.authenticated or self._audience not in status.audiences:
            return ""
        name = status.user.username
        return name.removeprefix(_PREFIX).replace(":", "/", 1) if name.startswith(_PREFIX) else name

    async def close(self) -> None:
        """See :class:`Reviewer`."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, body: bytes) -> _Status:
        headers = {"Authorization": f"Bearer {_read(self._folder / 'token').decode('ascii', 'replace').strip()}"}
        async with self._opened().post(
            self._url, data=body, headers=headers, ssl=self._verifying(), allow_redirects=False
        ) as answer:
            said = await answer.content.read(_MAX_ANSWER) if answer.status in (200, 201) else b""
            while said and len(said) < _MAX_ANSWER and (more := await answer.content.read(_MAX_ANSWER - len(said))):
                said += more
        if answer.status not in (200, 201):
            hint = "; grant it to create tokenreviews" if answer.status == 403 else ""
            raise ReviewError(f"the API server answered the agent's TokenReview with HTTP {answer.status}{hint}")
        try:
            return _decoder.decode(said).status
        except (msgspec.DecodeError, RecursionError) as error:
            raise ReviewError("the API server's answer is no TokenReview") from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=8, keepalive_timeout=90),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={
                    "Accept": "application/json",
                    "Content-Type": "application/json",
                    "User-Agent": "gpudiag-agent",
                },
            )
        return self._session

    def _verifying(self) -> ssl.SSLContext:
        """Verifies the API server; made anew when the cluster's authorities change."""
        authorities = _read(self._folder / "ca.crt")
        if self._context is None or authorities != self._authorities:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_verify_locations(cadata=authorities.decode("ascii", "replace"))
            self._authorities, self._context = authorities, context
        return self._context


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_FILE)
