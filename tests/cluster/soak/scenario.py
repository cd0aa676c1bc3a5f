"""What happens in a small fleet within a few seconds, drawn from a random source. Pure.

A phase changes each node at most once, and between phases everything settles: so which Events there must be does not
depend on what the operator happens to see of it, only on what lasted.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SICK = ("lost", "warm", "xid", "app xid", "driver")
"""What a report can turn to."""
EARLY = 3.5
"""Seconds within which everything of a phase has begun."""


@dataclass(frozen=True)
class Action:
    """One thing that happens.

    Attributes:
        at: seconds after the phase began.
        what: a method of the world.
        about: number of a node, or name of a GPUDiagnostic.
        with_: more arguments.
    """

    at: float
    what: str
    about: int | str
    with_: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """A fleet and what happens to it."""

    nodes: int
    """Numbers below are there from the start; others join."""
    phases: tuple[tuple[Action, ...], ...]


def scenario_of(rng: random.Random, *, phases: int) -> Scenario:
    """Draw one."""
    story = _Story(rng, rng.randint(6, 9))
    first = story.nodes
    return Scenario(first, tuple(story.phase(number) for number in range(phases)))


class _Story:
    def __init__(self, rng: random.Random, nodes: int) -> None:
        self.rng = rng
        self.nodes = nodes
        self.there = list(range(nodes))
        self.sick: set[int] = set()
        self.spent: set[int] = set()
        """Nodes to which something lasting was done that later phases leave alone."""
        self.questions: dict[str, dict[str, Any]] = {}

    def phase(self, number: int) -> tuple[Action, ...]:
        actions = self._ask() if number == 0 else self._edit(number)
        free = [node for node in self.there if node not in self.spent]
        self.rng.shuffle(free)
        for node in free[: self.rng.randint(2, max(2, len(free) - 2))]:
            actions.append(self._befall(node, number))
        if number > 0 and self.rng.random() < 0.5:
            self.there.append(self.nodes)
            actions.append(Action(self._when(), "join", self.nodes))
            self.nodes += 1
        return tuple(sorted(actions, key=lambda action: action.at))

    def _when(self) -> float:
        return round(self.rng.uniform(0.2, EARLY), 2)

    def _befall(self, node: int, number: int) -> Action:
        if node in self.sick:
            self.sick.remove(node)
            return Action(self._when(), "heal", node)
        what = self.rng.choice(
            SICK if number == 0 else (*SICK, "leave", "not ready", "agent gone", "maintenance", "force open", "relabel")
        )
        if what in SICK:
            if what != "app xid":
                self.sick.add(node)
            else:
                self.spent.add(node)
            return Action(self._when(), "turn", node, {"to": what})
        self.spent.add(node)
        if what == "leave":
            self.there.remove(node)
        return Action(self._when(), what.replace(" ", "_"), node)

    def _ask(self) -> list[Action]:
        rng, some = self.rng, sorted(self.rng.sample(self.there, 3))
        self.questions = {
            "fleet": {"interval": "5s"},
            "policy": {
                "interval": "5s",
                "policy": {
                    "expectedGPUsPerNode": 2,
                    "expectedDriverVersion": "570.133.20",
                    "tolerate": {"unhealthyGPUs": rng.choice((1, "10%")), "unknownNodes": 1},
                },
            },
            "some": {"interval": "5s", "target": {"nodeNames": some}},
            "once": {"mode": "Once", "deadline": "10s", "target": {"nodeNames": some[:2]}},
            "pod": {"interval": "5s", "target": {"podRef": {"name": "job-0"}}},
            "nobody": {"interval": "5s", "target": {"nodeSelector": {"matchLabels": {"pool": "none"}}}},
            "full": {"mode": "Once", "deadline": "8s", "detail": "Full", "target": {"nodeNames": some[:1]}},
        }
        names = ["fleet", *sorted(rng.sample(sorted(set(self.questions) - {"fleet"}), rng.randint(2, 4)))]
        self.questions = {name: self.questions[name] for name in names}
        return [Action(self._when(), "ask", name, {"spec": spec}) for name, spec in self.questions.items()]

    def _edit(self, number: int) -> list[Action]:
        found = []
        for name, spec in list(self.questions.items()):
            if self.rng.random() < 0.4:
                continue
            edits = ["checks", "suspend", "forget"] if name != "fleet" else ["checks", "tolerate"]
            if spec.get("mode") == "Once":
                edits = ["trigger", "forget", "deadline"]
            match self.rng.choice(edits):
                case "forget":
                    del self.questions[name]
                    found.append(Action(self._when(), "forget", name))
                    continue
                case "checks":
                    spec = spec | {"checks": {"exclude": ["Temperature"]}}
                case "suspend":
                    spec = spec | {"suspend": not spec.get("suspend", False)}
                case "tolerate":
                    spec = spec | {"policy": {"tolerate": {"unhealthyGPUs": "100%", "unknownNodes": "100%"}}}
                case "trigger":
                    spec = spec | {"trigger": f"again-{number}"}
                case "deadline":
                    spec = spec | {"deadline": "9s"}
            self.questions[name] = spec
            found.append(Action(self._when(), "ask", name, {"spec": spec}))
        return found
