"""Lets requests in by their token: remembered answers first, then one review per token, few of them at once.

While the API server cannot review, a token that it vouched for before stays good until it ends; any other gets
503 ``AuthUnavailable``, which an operator does not count against the agent.
"""

import asyncio
import logging
from collections.abc import Callable, Collection

from gpudiag_agent.auth import bearer
from gpudiag_agent.auth.remembered import RETRY_SECONDS, Remembered, Said
from gpudiag_agent.auth.reviews import Reviewer, ReviewError
from gpudiag_agent.clock import Clock
from gpudiag_agent.server.problems import ProblemError
from gpudiag_api.vocabulary import NotRead

_log = logging.getLogger(__name__)

MOST_REVIEWS = 8
"""At once. Strangers must not make an agent, and with it a fleet, a burden to the API server."""
MOST_PER_SECOND = 20

METRICS = "/metrics"
ALLOWED, MISSING, REFUSED, FORBIDDEN, UNAVAILABLE = "Allowed", "Missing", "Refused", "Forbidden", "Unavailable"
RESULTS = (ALLOWED, MISSING, REFUSED, FORBIDDEN, UNAVAILABLE)
"""What becomes of requests; the label of a metric."""


class Gate:
    """Decides who may read.

    Args:
        reviewer: asked where memory does not answer.
        allowed: service accounts that may read everything, ``namespace/name``.
        scrapers: those that may read ``/metrics`` alone.
        audience: of the tokens; told to those who come without one.
        clock: see there.
        count: told what became of a request, one of ``RESULTS``.
        count_review: told what a review gave: Allowed, Refused or Unavailable.
    """

    def __init__(
        self,
        reviewer: Reviewer,
        *,
        allowed: Collection[str],
        audience: str,
        clock: Clock,
        scrapers: Collection[str] = (),
        count: Callable[[str], None] = lambda _: None,
        count_review: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._reviewer = reviewer
        self._allowed = frozenset(allowed)
        self._scrapers = frozenset(scrapers)
        self._audience = audience
        self._clock = clock
        self._count = count
        self._count_review = count_review
        self._remembered = Remembered()
        self._flying: dict[bytes, asyncio.Task[Said]] = {}
        self._second = 0
        self._begun = 0

    async def admit(self, token: str | None, path: str = "") -> None:
        """Return for a request that may be answered.

        Args:
            token: that it showed.
            path: that it asks for.

        Raises:
            ProblemError: 401 without a good token, 403 for an account that may not read, 503 when nobody can say.
        """
        try:
            await self._admit(token, path)
        except ProblemError as problem:
            self._count({401: MISSING if token is None else REFUSED, 403: FORBIDDEN}.get(problem.status, UNAVAILABLE))
            raise
        self._count(ALLOWED)

    async def close(self) -> None:
        """End reviews under way and close all connections."""
        for task in self._flying.values():
            task.cancel()
        await asyncio.gather(*self._flying.values(), return_exceptions=True)
        await self._reviewer.close()

    async def _admit(self, token: str | None, path: str) -> None:
        if token is None:
            raise self._unauthorized("no bearer token was sent")
        said = await self._said(bearer.fingerprint(token), token)
        if not said.account:
            raise self._unauthorized("the token is wrong, has expired, or is meant for another audience")
        if said.account not in self._allowed and not (path == METRICS and said.account in self._scrapers):
            detail = f"{said.account[:128]} may not read this; --allowed-service-accounts lists who may"
            raise ProblemError(403, "Forbidden", detail)

    async def _said(self, key: bytes, token: str) -> Said:
        now, monotonic = self._clock.now(), self._clock.monotonic()
        if (refused := self._remembered.refused(key, monotonic=monotonic)) is not None:
            return refused
        known = self._remembered.allowed(key, now=now, monotonic=monotonic)
        if known is not None and monotonic < known.ask_at:
            return known
        try:
            return await self._review(key, token)
        except ReviewError as error:
            # Asked again: it may have ended while the API server was waited for.
            now, monotonic = self._clock.now(), self._clock.monotonic()
            known = self._remembered.allowed(key, now=now, monotonic=monotonic)
            if known is None:
                raise _unavailable(str(error)) from error
            known.ask_at = monotonic + RETRY_SECONDS
            return known

    async def _review(self, key: bytes, token: str) -> Said:
        task = self._flying.get(key)
        if task is None:
            if len(self._flying) >= MOST_REVIEWS or not self._in_time():
                raise ReviewError("too many tokens are being checked")
            task = self._flying[key] = asyncio.create_task(self._ask(key, token))
            task.add_done_callback(lambda _: self._flying.pop(key, None))
            # Everybody who waited may have gone away.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        # One of those who wait may go away; the others still want to know.
        return await asyncio.shield(task)

    async def _ask(self, key: bytes, token: str) -> Said:
        try:
            account = await self._reviewer.review(token)
        except ReviewError as error:
            self._count_review(UNAVAILABLE)
            _log.warning("a token could not be reviewed", extra={"reason": str(error)})
            raise
        monotonic = self._clock.monotonic()
        if account in self._allowed or account in self._scrapers:
            self._count_review(ALLOWED)
            return self._remembered.allow(key, account, expires_at=bearer.expiry(token), monotonic=monotonic)
        self._count_review(REFUSED)
        return self._remembered.refuse(key, account, monotonic=monotonic)

    def _in_time(self) -> bool:
        second = int(self._clock.monotonic())
        if second != self._second:
            self._second, self._begun = second, 0
        self._begun += 1
        return self._begun <= MOST_PER_SECOND

    def _unauthorized(self, what: str) -> ProblemError:
        detail = (
            f"{what}; send 'Authorization: Bearer TOKEN' with a token of an allowed service account for the audience "
            f"{self._audience}: kubectl create token NAME --namespace NAMESPACE --audience {self._audience}"
        )
        return ProblemError(401, "Unauthorized", detail, {"WWW-Authenticate": 'Bearer realm="gpudiag-agent"'})


def _unavailable(why: str) -> ProblemError:
    detail = f"the token cannot be checked now: {why}; check that the agent reaches the API server"
    return ProblemError(503, str(NotRead.AUTH_UNAVAILABLE), detail, {"Retry-After": "2"})
