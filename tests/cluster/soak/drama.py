"""One run: a small fleet, a script of what happens to it, and what everything must look like in the end."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.cluster.badinput.world import World, memory, t4
from tests.cluster.operator.conftest import OperatorProcess
from tests.cluster.soak.plan import Plan, plan
from tests.cluster.soak.storm import Storm

NAMES = tuple(f"soak-{number}" for number in range(1, 7))
CONVERGED_SECONDS = 30.0
"""After the storm."""
MOST_MEMORY_KIB = 250_000
_DIAGNOSTICS = ("fleet", "pool")
_DIFFERS = frozenset({"history", "id", "podIP", "observedGeneration"})
"""How often a verdict changed depends on what was seen in between; addresses and ids of events are given out anew; the
generation of a GPUNode's spec is noted with the next change of meaning, whenever that is."""
FLAGS = ("--breaker-open", "2s", "--breaker-open-max", "4s", "--breaker-window", "5s")


def specs() -> list[Any]:
    """Six nodes, two of them in a pool."""
    return [*t4(*NAMES[:2], pool="a"), *t4(*NAMES[2:])]


class Drama:
    """A world, an operator behind a proxy, and the script."""

    def __init__(self, world: World, seed: int | None) -> None:
        self.world = world
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
        self.plan: Plan | None = None if seed is None else plan(seed, NAMES[2:3], len(self.script))
        self.storm: Storm | None = None
        self.kills = 0

    def play(self) -> None:
        """Everything, to the end of the storm."""
        world = self.world
        world.rig.diagnostic("fleet", interval="5s")
        world.rig.diagnostic("pool", interval="5s", target=_POOL)
        world.rig.diagnostic("once", mode="Once", trigger="first", deadline="5s")
        if self.plan is not None:
            self.storm = Storm(world.rig.plane, world.rig.folder, self.plan, kill=self._kill)
            world.do(self.storm.open())
        self._start()
        world.until_said(dict.fromkeys(NAMES, ("Healthy", "AllHealthy")))
        if self.storm is not None and self.plan is not None:
            self.storm.rage()
            for node, fault, _ in self.plan.agents:
                world.fault(node, fault)
        began = time.monotonic()
        for step, act in enumerate(self.script):
            act()
            self._wait(0.2 if self.plan is None else self.plan.pauses[step])
        if self.storm is not None and self.plan is not None:
            self._wait(max(0.0, max((over for *_, over in self.plan.agents), default=0) - (time.monotonic() - began)))
            world.heal(*(node for node, *_ in self.plan.agents))
            world.do(self.storm.calm())
        self._revive()

    def end(self) -> None:
        if self.storm is not None:
            for one in self.world.rig.operators:
                if one.process.poll() is None:
                    one.stop()
            self.world.do(self.storm.end())

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
        found = {}
        for name in NAMES[:5]:
            events = self.world.events(name)
            reasons = Counter(event["reason"] for event in events)
            assert max(reasons.values(), default=1) == 1, f"told twice: {[(e['reason'], e['message']) for e in events]}"
            found[name] = reasons
        return found

    def check_bounds(self) -> None:
        """It neither grew nor wrote without end."""
        operator = self.world.rig.operators[-1]
        assert memory(operator.process.pid, "VmHWM") < MOST_MEMORY_KIB
        assert operator.metric("gpudiag_operator_writes_total") < 300

    # Within ------------------------------------------------------------------------------------------------------

    def _start(self) -> OperatorProcess:
        flags = list(FLAGS)
        if self.storm is not None:
            flags += ["--kubeconfig", str(self.storm.kubeconfig)]
        return self.world.start(*flags, ready=False)

    def _kill(self) -> None:
        self.kills += 1
        self.world.rig.operators[-1].process.kill()

    def _revive(self) -> None:
        """A Deployment would start it again."""
        if self.world.rig.operators[-1].process.poll() is not None:
            self._start()

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._revive()
            time.sleep(0.05)

    def _maintain(self, node: str) -> None:
        patch = '{"spec":{"maintenance":{"reason":"swap"}}}'
        self.world.rig.kubectl("patch", "gpunode", node, "--type=merge", "-p", patch)


_POOL = {"nodeSelector": {"matchLabels": {"pool": "a"}}}


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
