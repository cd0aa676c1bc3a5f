"""The settings of collection. Every field is a flag of the operator; durations are seconds."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class BreakerSettings:
    """When a node's circuit breaker opens, and how it closes again."""

    consecutive_failures: int = 3
    """Opens after so many failures in a row …"""
    failure_ratio: float = 0.5
    """… or when this share of the calls of the last ``window_seconds`` failed …"""
    minimum_calls: int = 10
    """… and there were at least so many."""
    window_seconds: float = 60.0
    open_seconds: float = 30.0
    """How long it stays open the first time; doubled each time a probe fails."""
    max_open_seconds: float = 300.0
    jitter: float = 0.2
    """Each open time is lengthened by up to this share, so that probes of many nodes do not come together."""
    successes_to_close: int = 2


@dataclass(frozen=True, kw_only=True)
class CollectSettings:
    """How agents are polled."""

    wait_seconds: float = 30.0
    """How long an agent may hold a poll until its meaning changes."""
    node_timeout: float = 5.0
    """For connecting and for an answer that nothing holds back. A poll may take ``wait_seconds`` more."""
    fresh_timeout: float = 10.0
    """For one fresh read of a ``Once`` run: the agent samples first."""
    concurrency: int = 256
    """Connections being made and answers being read at once. Requests without a first byte do not count."""
    unreachable_after: float = 15.0
    """A node keeps its last state for so long after the first failure in a row."""
    backoff_initial: float = 2.0
    backoff_cap: float = 30.0
    """Failed polls are repeated after ``backoff_initial``, doubling to ``backoff_cap``, jittered to 50-100 %; but at
    least four times within ``unreachable_after``, so that an agent that is back in time is seen in time."""
    minimum_interval: float = 1.0
    """Between the starts of two polls of a node: an agent whose meaning changes all the time is not asked faster."""
    connection_lifetime: float = 7200.0
    """A kept connection is closed after so long, ± 20 %."""
    connection_idle: float = 300.0
    retry_ratio: float = 0.1
    """At most this share of calls is repeated at once after a connection that broke."""
    breaker: BreakerSettings = field(default_factory=BreakerSettings)
