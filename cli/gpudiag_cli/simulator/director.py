"""Makes a fleet follow its scenario file: begins and ends faults in time, and takes up changes of the file.

The file is the one control surface. Whoever wants a fault now, a person or a script, adds a line and saves:

    echo '  - {node: gpu-03, fault: hot}' >> scenario.yaml
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from gpudiag_cli.errors import CommandError
from gpudiag_cli.simulator.faults import Fault, Injected
from gpudiag_cli.simulator.fleet import Fleet
from gpudiag_cli.simulator.scenario import Scenario, Timed, load

LOOK_SECONDS = 0.5
_NAMED = 3
"""So many nodes are named where the same happens to more."""

State = tuple[Fault, ...]


class Objects(Protocol):
    """The Nodes and Pods of the fleet."""

    async def follow(self, faults: Mapping[str, frozenset[Fault]]) -> None:
        """Make Node and Pod of each of these nodes as its faults of the cluster have it; none: both are well.

        Raises:
            CommandError: the API server refuses it or does not answer.
        """
        ...


class Director:
    """Applies a scenario to a running fleet.

    Args:
        fleet: the fleet, started.
        scenario: what is to happen.
        path: the scenario's file, looked at twice a second; None: it stays as it is.
        objects: Nodes and Pods; None: there are none, and incidents of the cluster are refused.
        say: takes a sentence for people.
        clock: gives Unix seconds; the scenario's time starts now.

    Raises:
        CommandError: the scenario has an incident of the cluster, and there are no objects.
    """

    def __init__(
        self,
        fleet: Fleet,
        scenario: Scenario,
        *,
        path: Path | None = None,
        objects: Objects | None = None,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fleet = fleet
        self._scenario = scenario
        self._path = path
        self._objects = objects
        self._say = say
        self._clock = clock
        self._started = clock()
        self._seen = _stamp(path)
        self._active: dict[str, tuple[Timed, ...]] = {}
        self._since: dict[Timed, float] = {}
        self._told = 0
        self._amiss: dict[str, frozenset[Fault]] = {}
        """Nodes whose objects are to be changed: none, or what the API server did not take yet."""
        self._check(scenario)

    async def run(self) -> None:
        """Follow the scenario until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(LOOK_SECONDS)

    async def step(self) -> None:
        """Take up a changed file, then make every node's faults what they should be now."""
        self._look()
        now = self._clock()
        self._announce(now - self._started)
        wanted = self._scenario.active(now - self._started)
        changed: dict[State, list[str]] = defaultdict(list)
        for node in sorted(wanted.keys() | self._active.keys()):
            before, timed = self._active.get(node, ()), wanted.get(node, ())
            if timed == before:
                continue
            await self._fleet.set_faults(node, [self._inject(each, now) for each in timed])
            changed[tuple(each.fault for each in timed)].append(node)
            happens = _of_cluster(timed)
            if happens != _of_cluster(before):
                self._amiss[node] = happens
        for state, nodes in changed.items():
            self._say(f"{_names(nodes)}: {', '.join(state) or 'no fault any more'}")
        self._active = wanted
        there = {each for timed in wanted.values() for each in timed}
        self._since = {timed: since for timed, since in self._since.items() if timed in there}
        await self._follow()

    async def _follow(self) -> None:
        if self._objects is None or not self._amiss:
            return
        try:
            await self._objects.follow(self._amiss)
        except CommandError as error:
            self._say(f"{error} It is tried again.")
        else:
            self._amiss.clear()

    def _inject(self, timed: Timed, now: float) -> Injected:
        """A fault begins when it is applied: one that was just written into the file is news."""
        since = self._since.setdefault(timed, now)
        return Injected(fault=timed.fault, since=since, gpu=timed.gpu, latency=timed.latency, jitter=timed.jitter)

    def _announce(self, elapsed: float) -> None:
        for at, name in self._scenario.incidents[self._told :]:
            if at > elapsed:
                break
            self._told += 1
            self._say(f"incident: {name}")

    def _look(self) -> None:
        stamp = _stamp(self._path)
        if self._path is None or stamp is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            changed = load(self._path, self._scenario.nodes, seed=self._scenario.seed)
            self._check(changed)
        except CommandError as error:
            # Somebody is editing. What was there stays until the file is right again.
            self._say(f"{error} The scenario before this change goes on.")
            return
        if changed.nodes != self._scenario.nodes:
            self._say("The scenario's nodes have changed; that takes effect at the next start.")
        elapsed = self._clock() - self._started
        self._told = sum(1 for at, _ in changed.incidents if at < elapsed)
        self._scenario = Scenario(self._scenario.nodes, changed.timed, self._scenario.seed, changed.incidents)
        self._say(f"{self._path} has changed: {len(changed.timed)} faults.")

    def _check(self, scenario: Scenario) -> None:
        if self._objects is not None:
            return
        for each in scenario.timed:
            if each.fault.of_cluster:
                raise CommandError(
                    f"The fault {each.fault} of {each.node} happens to Nodes and Pods, and here are none. "
                    "Leave --serve-only out, or write hang or refuse for an agent that is gone."
                )


def _of_cluster(timed: tuple[Timed, ...]) -> frozenset[Fault]:
    return frozenset(each.fault for each in timed if each.fault.of_cluster)


def _names(nodes: list[str]) -> str:
    if len(nodes) <= _NAMED:
        return ", ".join(nodes)
    return f"{len(nodes)} nodes ({', '.join(nodes[:_NAMED])}, …)"


def _stamp(path: Path | None) -> tuple[int, int] | None:
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size) if status else None
