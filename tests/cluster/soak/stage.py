"""Where a run takes place: six nodes with a relay before each agent, and operators with a clock that can be set."""

from collections.abc import Callable
from pathlib import Path

from tests.cluster.badinput.world import World, t4
from tests.cluster.operator.conftest import Rig
from tests.cluster.soak.clock import SteppedClock
from tests.cluster.soak.relay import Relay

from gpudiag_cli.simulator import Member

NAMES = tuple(f"soak-{number}" for number in range(1, 7))
"""The first two are in a pool."""


class Stage:
    """A world and what is around it."""

    def __init__(self, rig: Rig, clock_library: Path) -> None:
        self.relays: dict[str, Relay] = {}
        self.clock = SteppedClock(clock_library, rig.folder)
        self.world = World(rig, [*t4(*NAMES[:2], pool="a"), *t4(*NAMES[2:])], front=self._before)

    async def _before(self, member: Member) -> Member:
        relay = self.relays[member.name] = Relay(member)
        await relay.open()
        return relay.member

    def fault(self, node: str, what: str) -> None:
        """Of the way to a node's agent; '' ends it."""
        self.world.do(self.relays[node].fault(what))

    def move(self, node: str) -> None:
        """The agent's Pod gets another address, and for a moment nobody was told."""
        self.world.do(self.relays[node].move())
        self.world.members[node] = self.relays[node].member
        self.world.do(self.world.cluster.add_pod(self.world.members[node]))

    def close(self) -> None:
        for relay in self.relays.values():
            self.world.do(relay.close())
        self.world.close()
        self.clock.close()


MakeStage = Callable[[], Stage]
