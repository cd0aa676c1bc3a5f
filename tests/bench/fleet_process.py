"""A simulated fleet in a process of its own, so that the CPU of the client is the client's alone.

``python -m tests.bench.fleet_process N``: prints one JSON line of ``[name, address, port]``, then serves until its
standard input ends. Every body differs from the one before.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gpudiag_cli.simulator import Fleet
from gpudiag_operator.domain import AgentPod, Target


@contextmanager
def served(nodes: int) -> Iterator[list[Target]]:
    """Targets of a fleet of so many H100-8 nodes, for as long as the block lasts."""
    command = [sys.executable, "-m", "tests.bench.fleet_process", str(nodes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield [_target(*member) for member in json.loads(process.stdout.readline())]
        finally:
            process.stdin.close()
            process.wait(10)


def _target(name: str, address: str, port: int) -> Target:
    return Target(node=name, pod=AgentPod(name=f"agent-{name}", uid=name, node=name, ip=address, ready=True, port=port))


async def _serve(nodes: int) -> None:
    async with Fleet(nodes, vary=True) as fleet:
        print(json.dumps([(node.name, node.address, node.port) for node in fleet.nodes.values()]), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
