"""The simulator in a process of its own, with a control line: faults now, and what has reached the agents.

``python -m tests.bench.fleet_process N [LATENCY]``: prints one JSON line of ``[name, address, port]``, then takes one
JSON command a line and answers each with one line, until its standard input ends.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import uvloop
from tests.bench.canned import targets

from gpudiag_cli.simulator import MACHINES, Fleet, Member, specs
from gpudiag_operator.domain import Target


class FleetProcess:
    """The other end: a running fleet."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.members: list[tuple[str, str, int]] = self._read()

    @property
    def names(self) -> list[str]:
        """Names of the nodes, in order."""
        return [name for name, _, _ in self.members]

    def targets(self) -> list[Target]:
        """As discovery would give them."""
        return targets(self.members)

    def cluster_members(self) -> list[Member]:
        """What has to be in the API server for them."""
        machine = MACHINES["h100-8"]
        return [
            Member(name=name, address=address, port=port, gpus=machine.gpu_count, model=machine.model)
            for name, address, port in self.members
        ]

    def set(self, faults: dict[str, str | None]) -> float:
        """Give each of these nodes this fault and no other, or none; gives the monotonic time when all had theirs."""
        return float(self._ask(faults))

    def connections(self) -> int:
        """Connections that agents have seen so far."""
        return int(self._ask(None))

    def _ask(self, command: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def simulated(nodes: int, *, latency: float = 0.0) -> Iterator[FleetProcess]:
    """A fleet of so many H100-8 nodes, for as long as the block lasts; ``latency`` in seconds."""
    command = [sys.executable, "-m", "tests.bench.fleet_process", str(nodes), str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        try:
            yield FleetProcess(process)
        finally:
            process.stdin.close()
            process.wait(30)


async def _serve(count: int, latency: float) -> None:
    async with Fleet(specs(count, latency=latency)) as fleet:
        _say([(node.name, node.address, node.port) for node in fleet.nodes.values()])
        async for command in _commands():
            if command is None:
                _say(sum(node.connections for node in fleet.nodes.values()))
            else:
                for name, fault in command.items():
                    await _become(fleet, name, fault)
                _say(time.monotonic())


async def _become(fleet: Fleet, name: str, fault: str | None) -> None:
    if fault is None or fleet[name].faults:
        await fleet.clear(name)
    if fault is not None:
        await fleet.set_fault(name, fault)


async def _commands() -> Any:
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield json.loads(line)


def _say(answer: Iterable[Any] | float) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
