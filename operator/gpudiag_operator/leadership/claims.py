"""The Leases that a process competes for, and what each one makes it do.

One process: one Lease, and all the work. Over shards: a Lease for the aggregator, which judges GPUDiagnostics, and
one for each shard, whose owner reads its nodes and writes their GPUNodes. Every replica competes for all of them; one
that holds some leaves the first go to one that holds none, and takes no two at once, so that they spread over replicas
that start together. What is held is kept: nothing is handed to a replica that comes later.
"""

import asyncio
import os
import socket
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import msgspec

from gpudiag_operator.kube.api import KubeAPI
from gpudiag_operator.leadership.election import NEVER, Election, Timing
from gpudiag_operator.leadership.fence import Fence, boottime
from gpudiag_operator.leadership.keeper import Duty, Keeper
from gpudiag_operator.leadership.owner import own_account

OPERATOR = "gpudiag-operator"
AGGREGATOR = "gpudiag-aggregator"
SHARD_PREFIX = "gpudiag-shard-"

DRAIN_SECONDS = 0.5
"""For writes under way when the process stops."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A Lease and the work of its holder."""

    lease: str
    shard: int | None = None
    """Whose nodes are read; None: none."""
    aggregates: bool = False
    """Whether GPUDiagnostics are judged."""


def claims_of(shards: int) -> tuple[Claim, ...]:
    """What there is to hold with so many shards."""
    if shards == 1:
        return (Claim(lease=OPERATOR, shard=0, aggregates=True),)
    owners = (Claim(lease=f"{SHARD_PREFIX}{shard}", shard=shard) for shard in range(shards))
    return (Claim(lease=AGGREGATOR, aggregates=True), *owners)


def new_identity() -> str:
    """A name for this very process: a restarted one is another, and its predecessor may still be writing."""
    return f"{os.environ.get('HOSTNAME') or socket.gethostname()}_{uuid.uuid4()}"


class Leadership:
    """What this process holds. Make it inside a running loop.

    Args:
        claims: what there is to hold.
        fence: opened and closed here.
        clock: see ``boottime``.
    """

    def __init__(self, claims: Sequence[Claim], fence: Fence, *, clock: Callable[[], float] = boottime) -> None:
        self.fence = fence
        self.acquired: asyncio.Queue[Claim] = asyncio.Queue()
        """Claims to begin with, in the order in which their Leases were taken."""
        self._claims = {claim.lease: claim for claim in claims}
        self._clock = clock
        self._keepers: dict[str, Keeper] = {}
        self._tried_at = NEVER
        """When this process last tried to take any Lease: one at a time, though each has a task of its own."""

    def without_election(self) -> None:
        """Hold everything: somebody else sees to it that there is one process only."""
        for claim in self._claims.values():
            self.fence.extend(claim.lease, float("inf"))
            self.acquired.put_nowait(claim)

    def compete(
        self, api: KubeAPI, *, namespace: str, timing: Timing, problem: Callable[[], str | None]
    ) -> Mapping[str, Coroutine[Any, Any, Any]]:
        """What is to be run, by name of the Lease.

        Args:
            api: where the Leases are; neither counted nor fenced.
            namespace: of the Leases.
            timing: see there.
            problem: why no Lease must be renewed; None: the process does its work.
        """
        identity, owner = new_identity(), own_account(namespace)
        duty = Duty(
            problem=problem,
            may_take=lambda since, others: self.may_take(since, others=others, timing=timing),
            acquired=lambda lease: self.acquired.put_nowait(self._claims[lease]),
            clock=self._clock,
        )
        for name in self._claims:
            election = Election(identity, timing)
            self._keepers[name] = Keeper(
                api, namespace=namespace, name=name, election=election, fence=self.fence, duty=duty, owner=owner
            )
        return {name: keeper.run() for name, keeper in self._keepers.items()}

    def may_take(self, free_since: float, *, others: bool, timing: Timing) -> bool:
        """Whether to try to take a Lease now; a yes is meant to be used.

        Args:
            free_since: it is.
            others: whether another was seen to hold it: then its work waits.
            timing: see there.
        """
        now = self._clock()
        if not any(keeper.election.held for keeper in self._keepers.values()):
            allowed = now - self._tried_at >= timing.look_period
        else:
            patience = timing.look_period if others else timing.patience
            allowed = now - max(self._tried_at, free_since) >= patience
        if allowed:
            self._tried_at = now
        return allowed

    # What is held

    def leading(self) -> Mapping[str, bool]:
        """By Lease, whether this process may write for it, now."""
        allowed = self.fence.left() > 0
        if not self._keepers:
            return dict.fromkeys(self._claims, allowed)
        return {name: allowed and keeper.leading for name, keeper in self._keepers.items()}

    @property
    def any(self) -> bool:
        """Whether this process may write anything, now."""
        return any(self.leading().values())

    @property
    def aggregates(self) -> bool:
        """Whether this process may, now, do what only one of all does."""
        return any(leads and self._claims[name].aggregates for name, leads in self.leading().items())

    def role(self) -> str:
        """For people."""
        held = [name for name, leads in self.leading().items() if leads]
        return ", ".join(held) if held else "standby"

    def standby(self) -> bool:
        """Whether every Lease was found to be held, by others or here, and none waits to be taken."""
        return all(keeper.election.held or keeper.election.standby() for keeper in self._keepers.values())

    def orphaned(self) -> str:
        """Which shard nobody reads, in a sentence; empty when all are read."""
        for name, claim in self._claims.items():
            keeper = self._keepers.get(name)
            if keeper is None or claim.aggregates or keeper.leading:
                continue
            silent = keeper.election.unrenewed()
            if silent > 2 * keeper.election.timing.lease_duration:
                return f"nobody reads the nodes of shard {claim.shard}: Lease {name} was not renewed for {silent:.0f} s"
        return ""

    async def resign(self) -> None:
        """Stop writing, then give up what is held, so that another need not wait."""
        await self.fence.close(DRAIN_SECONDS)
        await asyncio.gather(*(keeper.release() for keeper in self._keepers.values()))
