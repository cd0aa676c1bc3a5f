"""Makes a fleet follow its scenario file: begins and ends faults in time, and takes up changes of the file.

The file is the one control surface. Whoever wants a fault now, a person or a script, adds a line and saves:

    echo '  - {node: gpu-03, fault: hot}' >> scenario.yaml
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from gpudiag_cli.errors import CommandError
from gpudiag_cli.simulator.faults import Injected
from gpudiag_cli.simulator.fleet import Fleet
from gpudiag_cli.simulator.scenario import Scenario, Timed, load

LOOK_SECONDS = 0.5


class Director:
    """Applies a scenario to a running fleet.

    Args:
        fleet: the fleet, started.
        scenario: what is to happen.
        path: the scenario's file, looked at twice a second; None: it stays as it is.
        say: takes a sentence for people.
        clock: gives Unix seconds; the scenario's time starts now.
    """

    def __init__(
        self,
        fleet: Fleet,
        scenario: Scenario,
        *,
        path: Path | None = None,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fleet = fleet
        self._scenario = scenario
        self._path = path
        self._say = say
        self._clock = clock
        self._started = clock()
        self._seen = _stamp(path)
        self._active: dict[str, tuple[Timed, ...]] = {}
        self._since: dict[Timed, float] = {}

    async def run(self) -> None:
        """Follow the scenario until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(LOOK_SECONDS)

    async def step(self) -> None:
        """Take up a changed file, then make every node's faults what they should be now."""
        self._look()
        now = self._clock()
        wanted = self._scenario.active(now - self._started)
        for node in wanted.keys() | self._active.keys():
            timed = wanted.get(node, ())
            if timed != self._active.get(node, ()):
                await self._fleet.set_faults(node, [self._inject(each, now) for each in timed])
                self._say(f"{node}: {', '.join(each.fault for each in timed) or 'no fault any more'}")
        self._active = wanted

    def _inject(self, timed: Timed, now: float) -> Injected:
        """A fault begins when it is applied: one that was just written into the file is news."""
        since = self._since.setdefault(timed, now)
        return Injected(fault=timed.fault, since=since, gpu=timed.gpu, latency=timed.latency)

    def _look(self) -> None:
        stamp = _stamp(self._path)
        if self._path is None or stamp is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            changed = load(self._path, self._scenario.nodes)
        except CommandError as error:
            # Somebody is editing. What was there stays until the file is right again.
            self._say(f"{error} The scenario before this change goes on.")
            return
        if changed.nodes != self._scenario.nodes:
            self._say("The scenario's nodes have changed; that takes effect at the next start.")
        self._scenario = Scenario(self._scenario.nodes, changed.timed)
        self._say(f"{self._path} has changed: {len(changed.timed)} faults.")


def _stamp(path: Path | None) -> tuple[int, int] | None:
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size) if status else None
