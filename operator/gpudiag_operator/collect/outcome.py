"""What one call to an agent gives: an answer, or exactly one reason why not, with a sentence for people."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from gpudiag_api.vocabulary import NotRead
from gpudiag_api.wire import Report
from gpudiag_operator.collect.limiter import Slot
from gpudiag_operator.domain import AgentPod

_ADVICE = {
    NotRead.CONNECTION_REFUSED: "check that the agent runs and listens on that port",
    NotRead.TIMEOUT: "check the node's load and network, and NetworkPolicies",
    NotRead.BODY_TIMEOUT: "check the network between operator and node (MTU), and the agent's log",
    NotRead.CONNECTION_CLOSED: "see whether the agent restarts: kubectl logs --previous",
    NotRead.SERVER_ERROR: "see the agent's log",
    NotRead.NOT_JSON: "check that nothing but the agent answers on that port",
    NotRead.BAD_RESPONSE: "check that agent and operator are of the same release, and the agent's log",
    NotRead.RESPONSE_TOO_LARGE: "check that nothing but the agent answers on that port",
    NotRead.IDENTITY_MISMATCH: "check the agent's NODE_NAME, and for Pods that share an address",
    NotRead.AGENT_VERSION_SKEW: "bring agent and operator to the same minor version",
    NotRead.UNAUTHORIZED: "check --agent-token-file, and the agent's --allowed-service-accounts and --auth-audience",
    NotRead.AUTH_UNAVAILABLE: "check that the agent reaches the API server for TokenReviews",
    NotRead.STALE_SAMPLE: "the agent's sampler is stuck: see its log and restart its Pod",
}

HARMLESS = frozenset({NotRead.UNAUTHORIZED, NotRead.AUTH_UNAVAILABLE})
"""Reasons that say nothing of the agent's ability to answer: the breaker ignores them."""

ANSWERED = frozenset({NotRead.STALE_SAMPLE, NotRead.AGENT_VERSION_SKEW})
"""Reasons that lie in what an agent says, promptly and in good form: for the breaker it answered."""

REPEATABLE = frozenset({NotRead.CONNECTION_CLOSED, NotRead.SERVER_ERROR})
"""Failures that cost no time and may be gone the next moment, for example while the agent's Pod is replaced."""


class FetchError(Exception):
    """A call that gave no usable report.

    Attributes:
        reason: exactly one word.
        message: what happened and what to do, for people.
        ignored: the breaker shall not count it, whatever the reason (a 4xx, a fault of ours).
    """

    def __init__(self, reason: NotRead, what: str, *, ignored: bool = False, advice: str | None = None) -> None:
        advice = _ADVICE.get(reason, "") if advice is None else advice
        self.reason = reason
        self.message = f"{what}; {advice}" if advice else what
        self.ignored = ignored or reason in HARMLESS
        super().__init__(self.message)


class Answer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A usable answer."""

    report: Report | None
    """None: nothing changed since the ETag that was sent (304)."""
    etag: str | None


class Fetcher(Protocol):
    """One HTTP call to one agent."""

    async def fetch(
        self,
        pod: AgentPod,
        slot: Slot,
        *,
        seconds: float,
        wait: float = 0.0,
        fresh: bool = False,
        etag: str | None = None,
        known: Report | None = None,
        run_id: str = "",
    ) -> Answer:
        """Ask for the report.

        Args:
            pod: whom to ask; the report must name ``pod.node``.
            slot: held by the caller; let go while the agent thinks, held again while its answer is read.
            seconds: bound of the whole call beyond ``wait``.
            wait: how long the agent may hold the call until its meaning changes; only with ``etag``.
            fresh: sample first; over a connection of its own that is closed afterwards.
            etag: of ``known``, the last good report.
            known: see ``etag``.
            run_id: correlation id (32 hex digits, dashes allowed) for logs and traces; empty: a new one.

        Raises:
            FetchError: no usable report.
        """
        ...

    async def get(self, pod: AgentPod, slot: Slot, path: str, *, seconds: float, run_id: str) -> bytes:
        """Ask for another path, over a connection of its own that is closed afterwards.

        Args:
            pod: whom to ask.
            slot: held by the caller; let go while the agent thinks, held again while its answer is read.
            path: with its query, for example ``/v1/timeline?points=60``.
            seconds: bound of the whole call.
            run_id: correlation id.

        Returns:
            The decompressed body, at most 1 MiB.

        Raises:
            FetchError: no usable answer.
        """
        ...


class CollectMetrics(Protocol):
    """Counted by the application."""

    def call_finished(self, result: str, seconds: float) -> None:
        """A call (with its retries) ended: ``OK``, ``NotModified``, or a word of NotRead."""
        ...

    def breaker_changed(self, node: str, state: int) -> None:
        """0 closed, 1 open, 2 half-open."""
        ...

    def node_removed(self, node: str) -> None:
        """Drop the node's series."""
        ...


class NoMetrics:
    """Counts nothing."""

    def call_finished(self, result: str, seconds: float) -> None:
        """Nothing."""

    def breaker_changed(self, node: str, state: int) -> None:
        """Nothing."""

    def node_removed(self, node: str) -> None:
        """Nothing."""


TokenSource = Callable[[], str | None]
"""Gives the bearer token for agents, read anew when due; None: send none. Raises OSError when it cannot be read."""
