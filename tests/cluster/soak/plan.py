"""A seed's plan: which faults a run meets, and when. Pure: the same seed makes the same plan.

Families, after Sieve and Acto: ``crash`` (SIGKILL before or after a write), ``stale`` (a watch that lags, repeats or
goes back), ``unobserved`` (events that never arrive, then 410), ``errors`` (refusals, lost answers, cut connections),
``slow`` (answers after seconds). Clock steps are not among them: nothing here can set a process's clock; they are tried
in process, with injected clocks.
"""

import random
from dataclasses import dataclass

FAMILIES = ("crash", "stale", "unobserved", "errors", "slow")
READS = {
    "errors": ("500", "503", "429", "429 soon", "cut", "half"),
    "slow": ("slow",),
}
WRITES = {
    "errors": ("409", "422", "429", "429 soon", "500", "503", "lost", "cut"),
    "slow": ("slow",),
}
WATCHES = {
    "stale": ("lag", "repeat", "back"),
    "unobserved": ("skip", "410", "event 410"),
    "errors": ("500", "cut", "half a line", "event 500", "429"),
    "slow": ("slow",),
}
AGENT_FAULTS = ("hang", "error-503", "garbage", "close-early", "refuse")


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
    pauses: tuple[float, ...]
    """Seconds between the steps of the scenario."""

    def dice(self) -> random.Random:
        """The luck of single requests."""
        return random.Random(self.seed * 7919 + 1)


def plan(seed: int, nodes: tuple[str, ...], steps: int) -> Plan:
    """The plan of a seed.

    Args:
        seed: any whole number.
        nodes: whose agents may misbehave for a while.
        steps: of the scenario.
    """
    dice = random.Random(seed)
    families = tuple(sorted(dice.sample(FAMILIES, dice.randint(1, 3))))

    def kinds(table: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(kind for family in families for kind in table.get(family, ()))

    kills: tuple[tuple[int, str], ...] = ()
    if "crash" in families:
        numbers = sorted(dice.sample(range(1, 24), dice.randint(1, 3)))
        kills = tuple((number, dice.choice(("before", "after"))) for number in numbers)
    return Plan(
        seed=seed,
        families=families,
        reads=kinds(READS),
        writes=kinds(WRITES),
        watches=kinds(WATCHES),
        rate=dice.uniform(0.15, 0.5),
        kills=kills,
        agents=tuple(
            (node, dice.choice(AGENT_FAULTS), dice.uniform(0.5, 3.0))
            for node in dice.sample(nodes, dice.randint(0, len(nodes)))
        ),
        pauses=tuple(dice.uniform(0.1, 1.0) for _ in range(steps)),
    )
