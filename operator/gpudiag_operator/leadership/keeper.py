"""Takes one Lease and keeps it: the requests around an :class:`.election.Election`.

Writes are merge patches that name the version they replace, so of two candidates one gets a conflict; a new Lease is
made by a create, of which the API server accepts one.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from gpudiag_operator.kube.api import KubeAPI
from gpudiag_operator.kube.errors import ApiError, ApiUnavailable
from gpudiag_operator.leadership import record as records
from gpudiag_operator.leadership.election import Election, Step
from gpudiag_operator.leadership.fence import Fence, boottime

log = logging.getLogger(__name__)

RELEASE_SECONDS = 1.0
"""For giving a Lease up on the way out; another can take it later all the same."""
LABELS = {"app.kubernetes.io/name": "gpudiag-operator"}


class LeadershipLostError(Exception):
    """Another process holds the Lease that was ours."""


@dataclass(frozen=True, kw_only=True)
class Duty:
    """What a keeper asks and tells.

    Attributes:
        problem: why the Lease must not be renewed, in a sentence; None: the process does its work.
        may_take: whether to take a Lease that is free since then (of ``clock``), and that another held before or not.
        acquired: told when it is taken.
        clock: seconds of a clock that never jumps.
        wall: Unix seconds, for people.
        jitter: spreads looks and renewals.
    """

    problem: Callable[[], str | None]
    may_take: Callable[[float, bool], bool]
    acquired: Callable[[str], None]
    clock: Callable[[], float] = boottime
    wall: Callable[[], float] = time.time
    jitter: Callable[[float, float], float] = field(default=random.uniform)


class Keeper:
    """One Lease.

    Args:
        api: where it is.
        namespace: of the Lease.
        name: of the Lease.
        election: what is known of it.
        fence: opened by it.
        duty: see there.
        owner: with which a new Lease shall go, as an owner reference; None: with nothing.
    """

    def __init__(
        self,
        api: KubeAPI,
        *,
        namespace: str,
        name: str,
        election: Election,
        fence: Fence,
        duty: Duty,
        owner: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.election = election
        self._api = api
        self._namespace = namespace
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{name}"
        self._fence = fence
        self._duty = duty
        self._owner = owner
        self._timing = election.timing
        self._said = ""
        self._resigned = False
        self._one_request = asyncio.Lock()

    @property
    def leading(self) -> bool:
        """Whether this process holds the Lease for certain, now."""
        return self._duty.clock() < self.election.writes_until()

    async def run(self) -> NoReturn:
        """Take the Lease when it is free, and keep it.

        Raises:
            LeadershipLostError: it was held, and another holds it now.
        """
        while True:
            try:
                async with asyncio.timeout(self._timing.attempt_seconds), self._one_request:
                    await self.turn()
            except (ApiError, ApiUnavailable, TimeoutError) as error:
                self._failed(error)
            if self.election.lost:
                holder = self.election.record.holder if self.election.record else ""
                raise LeadershipLostError(f"Lease {self.name} is held by {holder or 'nobody'} now")
            period = self._timing.retry_period if self.election.held else self._timing.look_period
            await asyncio.sleep(period * self._duty.jitter(0.9, 1.0))

    async def turn(self) -> None:
        """Do the next thing; what fails is left to the next turn.

        Raises:
            ApiError, ApiUnavailable: of the request.
        """
        if self._resigned:
            return
        problem = self._duty.problem() if self.election.held else None
        if problem is not None:
            self._say(logging.ERROR, f"not renewing Lease {self.name}: {problem}")
        if not self.election.held or problem is not None:
            await self._look()
        now = self._duty.clock()
        match self.election.step(now):
            case Step.CREATE if self._may_take(now):
                await self._create()
            case Step.TAKE if self._may_take(now):
                await self._take()
            case Step.RENEW if problem is None:
                await self._renew()
            case Step.LOOK:
                self._standing_by()

    async def release(self) -> None:
        """Give the Lease up, if it is held: call it when nothing is written any more. Never raises."""
        self._resigned = True
        try:
            async with asyncio.timeout(RELEASE_SECONDS), self._one_request:
                record = self.election.record
                if not self.election.held or record is None:
                    return
                body = {"spec": records.released(self._duty.wall())}
                await self._api.patch(self._path, body, resource_version=record.version)
        except (ApiError, ApiUnavailable, TimeoutError) as error:
            log.warning("Lease %s was not given up, it runs out by itself: %s", self.name, error or "no answer")
        else:
            self.election.held = False
            log.info("gave up Lease %s", self.name)

    # Requests

    async def _look(self) -> None:
        try:
            body = await self._api.get(self._path)
        except ApiError as error:
            if not error.not_found:
                raise
            self.election.saw(None, at=self._duty.clock())
        else:
            found = records.read(body, duration=self._timing.lease_duration)
            self.election.saw(found, at=self._duty.clock())

    async def _create(self) -> None:
        metadata: dict[str, object] = {"name": self.name, "namespace": self._namespace, "labels": LABELS}
        if self._owner is not None:
            metadata["ownerReferences"] = [dict(self._owner)]
        spec = records.taken(None, self.election.identity, duration=self._timing.lease_duration, now=self._duty.wall())
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        asked_at = self._duty.clock()
        try:
            answer = await self._api.create(self._collection, body)
        except ApiError as error:
            if not error.already_exists:
                raise
            await self._look()
        else:
            self._wrote(answer, asked_at)

    async def _take(self) -> None:
        before = self.election.record
        assert before is not None
        spec = records.taken(
            before, self.election.identity, duration=self._timing.lease_duration, now=self._duty.wall()
        )
        await self._patch(spec, before.version)

    async def _renew(self) -> None:
        before = self.election.record
        assert before is not None
        spec = records.renewed(self.election.identity, duration=self._timing.lease_duration, now=self._duty.wall())
        await self._patch(spec, before.version)

    async def _patch(self, spec: dict[str, object], version: str) -> None:
        asked_at = self._duty.clock()
        try:
            answer = await self._api.patch(self._path, {"spec": spec}, resource_version=version)
        except ApiError as error:
            if not (error.conflict or error.not_found):
                raise
            # Another was faster, or an answer of ours was lost: what is stored decides, in this turn or the next.
            await self._look()
        else:
            self._wrote(answer, asked_at)

    def _wrote(self, answer: dict[str, object], asked_at: float) -> None:
        now = self._duty.clock()
        first = not self.election.held
        late = not first and now >= self.election.writes_until()
        record = records.read(answer, duration=self._timing.lease_duration)
        self.election.wrote(record, asked_at=asked_at, at=now)
        self._fence.extend(self.name, self.election.writes_until())
        if first:
            log.info("holding Lease %s as %s", self.name, self.election.identity)
            self._duty.acquired(self.name)
        elif late or self._said:
            log.info("Lease %s is renewed again; nobody had taken it", self.name)
        self._said = ""

    # Words

    def _may_take(self, now: float) -> bool:
        since = self.election.free_since(now)
        if self.election.held:
            return True
        return since is not None and self._duty.may_take(since, self.election.was_others)

    def _standing_by(self) -> None:
        record = self.election.record
        if record is not None and record.holder:
            self._say(logging.INFO, f"standing by: {record.holder} holds Lease {self.name}")

    def _failed(self, error: Exception) -> None:
        what = "renewed" if self.election.held else "looked at"
        self._say(logging.WARNING, f"Lease {self.name} was not {what}, trying again: {error or 'no answer in time'}")

    def _say(self, level: int, text: str) -> None:
        """Log what is new; turns repeat themselves every second."""
        if text != self._said:
            self._said = text
            log.log(level, text)
