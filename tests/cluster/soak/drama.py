"""One run: a small fleet, a script of what happens to it, and what everything must look like in the end."""

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.cluster.badinput.world import memory
from tests.cluster.soak.plan import Plan, plan
from tests.cluster.soak.replica import Replica
from tests.cluster.soak.stage import NAMES, Stage
from tests.cluster.soak.storm import Weather

CONVERGED_SECONDS = 30.0
"""After the storm."""
MOST_MEMORY_KIB = 250_000
LATE_SECONDS = 0.5
"""Until the answers that the storm held back have gone through, and a kill among them has been felt."""
SETTLE_SECONDS = 6.0
"""After a replica was started again: until it watches, and leads or waits."""
CALM_SECONDS = 2.0
CALM_REQUESTS = 40
"""Per replica in so much calm weather, looks at the Lease (4 a second) included: more is a hot loop."""
_DIAGNOSTICS = ("fleet", "pool")
_DIFFERS = frozenset({"history", "id", "podIP", "observedGeneration"})
"""How often a verdict changed depends on what was seen in between; addresses and ids of events are given out anew; the
generation of a GPUNode's spec is noted with the next change of meaning, whenever that is."""
_BACK_AND_FORTH = ("GPURecovered", "GPUDegraded", "GPUUnhealthy", "NodeUnknown", "CircuitBreaker")
"""Events that a node whose agent was out of reach has told once more, rightly. Findings and XIDs are not among them."""
_POOL = {"nodeSelector": {"matchLabels": {"pool": "a"}}}


class Drama:
    """A stage, operators behind proxies, and the script. Without a seed nothing disturbs it."""

    def __init__(self, stage: Stage, seed: int | None) -> None:
        self.stage = stage
        self.world = world = stage.world
        self.script: tuple[Callable[[], None], ...] = (
            lambda: world.fault(NAMES[0], "xid-79"),
            lambda: world.fault(NAMES[1], "hot"),
            lambda: world.remove_node(NAMES[5]),
            lambda: world.fault(NAMES[3], "row-remap-failed"),
            lambda: self._maintain(NAMES[3]),
            lambda: world.rig.diagnostic("fleet", interval="5s", policy={"tolerate": {"unhealthyGPUs": "50%"}}),
            lambda: world.rig.diagnostic("pool", interval="5s", target=_POOL, suspend=True),
            lambda: world.rig.diagnostic("once", mode="Once", trigger="second", deadline="5s"),
            lambda: world.fault(NAMES[4], "ecc"),
            lambda: world.rig.diagnostic("pool", interval="5s", target=_POOL),
        )
        self.seeded = seed is not None
        self.plan: Plan = plan(seed or 0, NAMES[:5], len(self.script))
        self.weather = Weather(self.plan)
        self.replicas = [
            Replica(stage, self.weather, f"replica{number}")
            for number in range(self.plan.replicas if self.seeded else 1)
        ]
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._began = 0.0

    def play(self) -> None:
        """Everything, to the end of the storm."""
        world = self.world
        world.rig.diagnostic("fleet", interval="5s")
        world.rig.diagnostic("pool", interval="5s", target=_POOL)
        world.rig.diagnostic("once", mode="Once", trigger="first", deadline="5s")
        for replica in self.replicas:
            world.do(replica.storm.open())
            replica.start()
        world.until_said(dict.fromkeys(NAMES, ("Healthy", "AllHealthy")))
        self._began = time.monotonic()
        if self.seeded:
            self._storm()
        for step, act in enumerate(self.script):
            act()
            self._wait(self.plan.pauses[step] if self.seeded else 0.2)
        if self.seeded:
            self._wait(max(0.0, self._began + self.plan.seconds + 0.1 - time.monotonic()))
            assert not self._due, "all that was planned has happened"
        self._calm()

    def look(self) -> None:
        """A Deployment starts again what has ended."""
        for replica in self.replicas:
            replica.look()

    def end(self) -> None:
        for replica in self.replicas:
            replica.stop()
            self.world.do(replica.storm.end())

    # What is seen ------------------------------------------------------------------------------------------------

    def seen(self) -> dict[str, Any]:
        """What must be equal in the end: every status, and how the Once run ended."""
        found = {name: _without(each) for name, each in self.world.statuses(*_DIAGNOSTICS).items()}
        once = self.world.diagnostic("once")
        ended = next((one["status"] for one in once.get("conditions", ()) if one["type"] == "Complete"), None)
        found["once"] = {"trigger": once.get("lastHandledTrigger"), "complete": ended}
        return found

    def told(self) -> dict[str, Counter[str]]:
        """Events of nodes by reason. Two Events of one reason are told twice."""
        troubled = {fault.node for fault in self.plan.ways} | {node for node, *_ in self.plan.agents}
        found = {}
        for name in NAMES[:5]:
            events = self.world.events(name)
            found[name] = Counter(event["reason"] for event in events)
            twice = {
                reason
                for reason, number in found[name].items()
                if number > 1 and not (name in troubled and reason.startswith(_BACK_AND_FORTH))
            }
            assert not twice, f"told twice: {[(e['reason'], e['message']) for e in events]}"
        return found

    def faults(self) -> int:
        """That were delivered."""
        happened = sum(sum(replica.storm.delivered.values()) for replica in self.replicas)
        return happened + len(self.plan.ways) + len(self.plan.agents) + len(self.plan.clock)

    def check_bounds(self) -> None:
        """It neither grew nor wrote without end, nobody wrote who did not lead, and in calm weather it is calm."""
        time.sleep(LATE_SECONDS)
        if self._again():
            time.sleep(SETTLE_SECONDS)
        intruders = self.weather.ledger.intruders()
        assert not intruders, f"written by who did not lead: {intruders[:5]}"
        for replica in self.replicas:
            assert replica.process is not None
            assert memory(replica.process.process.pid, "VmHWM") < MOST_MEMORY_KIB
            assert replica.process.metric("gpudiag_operator_writes_total") < 300
        before = self.weather.ledger.requests.copy()
        time.sleep(CALM_SECONDS)
        asked = self.weather.ledger.requests - before
        assert asked.total() <= CALM_REQUESTS * len(self.replicas), f"a hot loop: {asked}"

    # Within ------------------------------------------------------------------------------------------------------

    def _again(self) -> bool:
        """Look once more; whether a replica had to be started again: the last write of a storm may end one late."""
        before = [replica.process for replica in self.replicas]
        self.look()
        return before != [replica.process for replica in self.replicas]

    def _storm(self) -> None:
        for replica in self.replicas:
            self.world.do(replica.storm.rage())
        for node, what, over in self.plan.agents:
            self.world.fault(node, what)
            self._at(over, self.world.heal, node)
        for fault in self.plan.ways:
            if fault.what == "move":
                self._at(fault.at, self.stage.move, fault.node)
                continue
            self._at(fault.at, self.stage.fault, fault.node, fault.what)
            self._at(fault.at + fault.seconds, self.stage.fault, fault.node, "")
        for at, step in self.plan.clock:
            self._at(at, self.stage.clock.set, step)
        if self.plan.partition is not None:
            begin, end = self.plan.partition
            self._at(begin, self._cut_off_the_leader)
            self._at(end, self._reconnect)

    def _calm(self) -> None:
        self.stage.clock.set(0)
        for replica in self.replicas:
            self.world.do(replica.storm.calm())
        self.look()

    def _cut_off_the_leader(self) -> None:
        leader = next((replica for replica in self.replicas if replica.leads), self.replicas[0])
        self.world.do(_now(leader.storm.cut_off))

    def _reconnect(self) -> None:
        for replica in self.replicas:
            self.world.do(_now(replica.storm.reconnect))

    def _at(self, seconds: float, act: Callable[..., None], *given: Any) -> None:
        self._due.append((self._began + seconds, partial(act, *given)))

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            due = [one for one in self._due if one[0] <= now]
            self._due = [one for one in self._due if one[0] > now]
            for _, act in sorted(due, key=lambda one: one[0]):
                act()
            self.look()
            if now >= deadline:
                return
            time.sleep(0.05)

    def _maintain(self, node: str) -> None:
        patch = '{"spec":{"maintenance":{"reason":"swap"}}}'
        self.world.rig.kubectl("patch", "gpunode", node, "--type=merge", "-p", patch)


async def _now(act: Callable[[], None]) -> None:
    """In the loop of the proxies."""
    act()


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(each) for key, each in value.items() if key not in _DIFFERS}
    return [_without(each) for each in value] if isinstance(value, list) else value


def difference(wanted: Any, found: Any, path: str = "") -> list[str]:
    """Where two states differ, one line each."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        lines = []
        for key in sorted(wanted.keys() | found.keys()):
            lines += difference(wanted.get(key), found.get(key), f"{path}.{key}" if path else key)
        return lines
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [
            line
            for at, (a, b) in enumerate(zip(wanted, found, strict=True))
            for line in difference(a, b, f"{path}[{at}]")
        ]
    return [] if wanted == found else [f"{path}: wanted {wanted!r}, found {found!r}"]
