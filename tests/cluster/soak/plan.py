"""From a seed to everything that is going to happen: which faults, when, and what people and machines do meanwhile.

Pure. The same seed gives the same plan on every machine; what the operator makes of it is measured against a world in
which the same things happen without the faults.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from tests.cluster.soak.scenario import Action, Scenario, scenario_of


class Kind(StrEnum):
    """The kinds of faults, as Sieve and Acto name them, and those of agents."""

    CRASH = "crash"
    STALE = "stale"
    UNOBSERVED = "unobserved"
    ERRORS = "errors"
    SLOW = "slow"
    PARTITION = "partition"
    CLOCK = "clock"
    AGENTS = "agents"


class Side(StrEnum):
    """Of a write: nothing was done yet, or all was done and nobody was told."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True)
class Kill:
    """SIGKILL at the so-and-so-manieth write of a phase."""

    write: int
    side: Side


@dataclass(frozen=True)
class AgentFault:
    """What befalls one agent: at so many seconds, for so many."""

    at: float
    node: int
    what: str
    seconds: float


AGENT_FAULTS = ("refuse", "hang", "garbage", "slow", "cut", "moved", "recreated")
ANSWERS = ("409", "422", "429", "429 later", "500", "503", "cut", "lost", "half")
"""Instead of a good answer. ``429 later`` has a Retry-After; cut: nothing was done; lost: all was done, no answer;
half: all was done, and the connection is reset in mid-body."""
WATCH_ENDS = ("410", "410 event", "500 event", "cut", "half a line", "end")
STORM_SECONDS = 6.0
TRUE_SLOW = 30.0


@dataclass(frozen=True, kw_only=True)
class Storm:
    """The faults of one phase.

    Attributes:
        errors: share of requests with a bad answer.
        slow: share of requests that wait ``slow_seconds``, half of them before they are done, half after.
        lag: seconds by which a watch lags, at most.
        repeat, back, skip: shares of a watch's events that come twice, that have the last few before them again, that
            are never sent (such a watch ends with 410).
        watch_ends: ways in which watches end early; empty: they do not.
        partition: seconds (from, to) in which the leader reaches nobody.
        clock: seconds by which the operators' wall clocks are off, and since when.
    """

    seconds: float = STORM_SECONDS
    errors: float = 0.0
    slow: float = 0.0
    slow_seconds: float = 0.0
    lag: float = 0.0
    repeat: float = 0.0
    back: float = 0.0
    skip: float = 0.0
    watch_ends: tuple[str, ...] = ()
    kills: tuple[Kill, ...] = ()
    partition: tuple[float, float] | None = None
    clock: tuple[tuple[float, int], ...] = ()
    agents: tuple[AgentFault, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything about a seed."""

    seed: int
    kinds: tuple[Kind, ...]
    replicas: int
    scenario: Scenario
    storms: tuple[Storm, ...] = field(default=())

    def phases(self) -> Iterator[tuple[int, tuple[Action, ...], Storm]]:
        """Number, actions and storm of each phase."""
        for number, (actions, storm) in enumerate(zip(self.scenario.phases, self.storms, strict=True)):
            yield number, actions, storm


def plan_of(seed: int, *, phases: int = 2) -> Plan:
    """The plan of a seed. Every kind comes first in each eighth seed, so a few seeds in a row meet all of them."""
    rng = random.Random(f"plan {seed}")
    first = list(Kind)[seed % len(Kind)]
    others = rng.sample([kind for kind in Kind if kind is not first], rng.choice((0, 1, 1, 2)))
    kinds = (first, *sorted(others))
    scenario = scenario_of(random.Random(f"scenario {seed}"), phases=phases)
    storms = tuple(_storm(random.Random(f"storm {seed} {number}"), kinds, scenario) for number in range(phases))
    replicas = 2 if Kind.PARTITION in kinds or rng.random() < 0.15 else 1
    return Plan(seed=seed, kinds=kinds, replicas=replicas, scenario=scenario, storms=storms)


def _storm(rng: random.Random, kinds: tuple[Kind, ...], scenario: Scenario) -> Storm:
    stale, unobserved, errors, slow = (kind in kinds for kind in (Kind.STALE, Kind.UNOBSERVED, Kind.ERRORS, Kind.SLOW))
    ends = (("410", "410 event") if unobserved else ()) + (WATCH_ENDS[2:] if errors else ())
    start = rng.uniform(0.5, 2.0)
    return Storm(
        seconds=8.0 if Kind.PARTITION in kinds else STORM_SECONDS,
        errors=rng.uniform(0.2, 0.6) if errors else 0.0,
        slow=rng.uniform(0.2, 0.5) if slow else 0.0,
        slow_seconds=TRUE_SLOW * (1.0 if rng.random() < 0.1 else rng.uniform(0.02, 0.12)) if slow else 0.0,
        lag=rng.uniform(0.2, 1.5) if stale else 0.0,
        repeat=0.3 if stale else 0.0,
        back=0.2 if stale else 0.0,
        skip=rng.uniform(0.3, 0.7) if unobserved else 0.0,
        watch_ends=ends,
        kills=_kills(rng) if Kind.CRASH in kinds else (),
        partition=(start, start + rng.uniform(4.0, 5.5)) if Kind.PARTITION in kinds else None,
        clock=_clock(rng) if Kind.CLOCK in kinds else (),
        agents=_agents(rng, scenario) if Kind.AGENTS in kinds else (),
    )


def _kills(rng: random.Random) -> tuple[Kill, ...]:
    at, found = 0, []
    for _ in range(rng.choice((1, 2, 2))):
        at += rng.randint(1, 14)
        found.append(Kill(at, rng.choice(list(Side))))
    return tuple(found)


def _clock(rng: random.Random) -> tuple[tuple[float, int], ...]:
    steps = (-86_400, -3_600, -61, -5, 5, 61, 3_600, 86_400)
    return tuple((rng.uniform(0.0, 4.0), rng.choice(steps)) for _ in range(rng.randint(1, 3)))


def _agents(rng: random.Random, scenario: Scenario) -> tuple[AgentFault, ...]:
    """Never two at a time on one node: each node has one at most."""
    nodes = rng.sample(range(scenario.nodes), rng.randint(2, max(2, scenario.nodes // 2)))
    return tuple(
        AgentFault(rng.uniform(0.0, 2.0), node, rng.choice(AGENT_FAULTS), rng.uniform(1.0, 3.5)) for node in nodes
    )


def answer_fault(storm: Storm, *, seed: str, kind: str, resource: str, number: int) -> str:
    """What befalls a request, the so-manieth of its kind: a word of ANSWERS, ``slow before``, ``slow after`` or ''."""
    rng = random.Random(f"{seed} {kind} {resource} {number}")
    draw = rng.random()
    if draw < storm.errors:
        words = [word for word in ANSWERS if kind in ("POST", "PATCH") or word not in ("409", "422")]
        # An Event that exists answers 409 to a POST, but says so with another reason.
        return rng.choice([word for word in words if kind == "PATCH" or word != "409"])
    if draw < storm.errors + storm.slow:
        return rng.choice(("slow before", "slow after"))
    return ""


@dataclass(frozen=True)
class WatchFault:
    """What befalls one watch: how it ends, and after how many seconds; '' and endless when it does not."""

    end: str = ""
    after: float = float("inf")


def watch_fault(storm: Storm, *, seed: str, resource: str, number: int) -> WatchFault:
    """What befalls the so-manieth watch of a resource."""
    if not storm.watch_ends:
        return WatchFault()
    rng = random.Random(f"{seed} WATCH {resource} {number}")
    return WatchFault(rng.choice(storm.watch_ends), rng.uniform(0.1, 2.5))
