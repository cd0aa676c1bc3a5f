"""A seed's plan: which faults a run meets, and when. Pure: the same seed makes the same plan.

Families, after Sieve and Acto: ``crash`` (SIGKILL before or after a write), ``stale`` (a watch that lags, repeats or
goes back), ``unobserved`` (events that never arrive, then 410), ``errors`` (refusals, lost answers, cut connections),
``slow`` (answers after 30 s, or when the storm is over), ``partition`` (the leader reaches nobody for longer than a
Lease lives), ``clock`` (the wall clocks of all operators step) and ``agents`` (the way to the agents breaks).
"""

import random
from dataclasses import dataclass

PLAN = 2
"""Counts changes of what a seed means: results of another number are of other runs."""
FAMILIES = ("slow", "crash", "partition", "errors", "stale", "unobserved", "clock", "agents")
"""Eight seeds in a row meet all of them."""
READS = {
    "errors": ("500", "503", "429", "429 soon", "cut", "half"),
    "slow": ("slow",),
}
WRITES = {
    "errors": ("409", "422", "429", "429 soon", "500", "503", "lost", "cut", "half"),
    "slow": ("slow",),
}
WATCHES = {
    "stale": ("lag", "repeat", "back"),
    "unobserved": ("skip", "410", "event 410"),
    "errors": ("500", "cut", "half a line", "event 500", "429"),
    "slow": ("slow",),
}
AGENT_FAULTS = ("hang", "error-503", "garbage", "close-early", "refuse")
"""Of an agent itself."""
WAY_FAULTS = ("refuse", "hang", "garbage", "slow", "cut", "move")
"""Of the way to it: see ``relay``. move: its Pod gets another address."""
CLOCK_STEPS = (-86_400, -3_600, -61, -5, 5, 61, 3_600, 86_400)


@dataclass(frozen=True, kw_only=True)
class WayFault:
    """What befalls the way to one agent: at so many seconds, for so many."""

    at: float
    node: str
    what: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What happens in one run."""

    seed: int
    families: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    watches: tuple[str, ...]
    rate: float
    """Share of requests that meet a fault."""
    kills: tuple[tuple[int, str], ...]
    """(number of the write, before or after)."""
    agents: tuple[tuple[str, str, float], ...]
    """(node, fault, seconds after which it is over)."""
    ways: tuple[WayFault, ...]
    partition: tuple[float, float] | None
    """Seconds (from, to) in which the leader is cut off."""
    clock: tuple[tuple[float, int], ...]
    """(at, seconds by which the wall clocks are off from then on)."""
    pauses: tuple[float, ...]
    """Seconds between the steps of the scenario."""
    replicas: int

    def dice(self, *what: object) -> random.Random:
        """The luck of one request, given what tells it from the others: not of its moment, so that it reproduces."""
        return random.Random(f"{self.seed} {what}")

    @property
    def seconds(self) -> float:
        """When the last fault that has its time is over."""
        over = [over for *_, over in self.agents] + [fault.at + fault.seconds for fault in self.ways]
        over += [at for at, _ in self.clock] + ([self.partition[1]] if self.partition else [])
        return max(over, default=0.0)


def plan(seed: int, nodes: tuple[str, ...], steps: int) -> Plan:
    """The plan of a seed.

    Args:
        seed: any whole number.
        nodes: those whose agents are reachable to the end; that of the third may misbehave.
        steps: of the scenario.
    """
    dice = random.Random(seed)
    first = FAMILIES[seed % len(FAMILIES)]
    others = dice.sample([family for family in FAMILIES if family != first], dice.choice((0, 1, 1, 2)))
    families = (first, *sorted(others))

    def kinds(table: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(kind for family in families for kind in table.get(family, ()))

    kills: tuple[tuple[int, str], ...] = ()
    if "crash" in families:
        numbers = sorted(dice.sample(range(1, 24), dice.randint(1, 3)))
        kills = tuple((number, dice.choice(("before", "after"))) for number in numbers)
    partitioned_at = dice.uniform(0.3, 2.0)
    return Plan(
        seed=seed,
        families=families,
        reads=kinds(READS),
        writes=kinds(WRITES),
        watches=kinds(WATCHES),
        rate=dice.uniform(0.15, 0.5),
        kills=kills,
        agents=((nodes[2], dice.choice(AGENT_FAULTS), dice.uniform(0.5, 3.0)),) if dice.random() < 0.5 else (),
        ways=_ways(dice, nodes) if "agents" in families else (),
        partition=(partitioned_at, partitioned_at + dice.uniform(5.0, 6.5)) if "partition" in families else None,
        clock=_clock(dice) if "clock" in families else (),
        pauses=tuple(dice.uniform(0.1, 1.0) for _ in range(steps)),
        replicas=2 if "partition" in families or dice.random() < 0.15 else 1,
    )


def _ways(dice: random.Random, nodes: tuple[str, ...]) -> tuple[WayFault, ...]:
    """One fault at most for each node."""
    return tuple(
        WayFault(at=dice.uniform(0.0, 2.0), node=node, what=dice.choice(WAY_FAULTS), seconds=dice.uniform(1.0, 3.5))
        for node in sorted(dice.sample(nodes, dice.randint(2, len(nodes))))
    )


def _clock(dice: random.Random) -> tuple[tuple[float, int], ...]:
    return tuple((dice.uniform(0.0, 4.0), dice.choice(CLOCK_STEPS)) for _ in range(dice.randint(1, 3)))
