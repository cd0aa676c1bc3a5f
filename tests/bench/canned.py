"""Agents that cost nothing: prepared answers from a process of their own, so that the client is what is measured.

``python -m tests.bench.canned N``: prints one JSON line of ``[name, address, port]``, then serves until its standard
input ends. Reports are the simulator's; each agent has two that differ in telemetry and sends them in turn, and answers
any ``If-None-Match`` with 304.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import cast

import uvloop

from gpudiag_api.times import to_rfc3339
from gpudiag_cli.simulator import SimulatedNode, specs
from gpudiag_cli.simulator.addresses import allow_open_files, listen_all
from gpudiag_operator.domain import AgentPod, Target

_PORT = 9810


@contextmanager
def served(nodes: int) -> Iterator[list[Target]]:
    """Targets of so many H100-8 nodes, for as long as the block lasts."""
    command = [sys.executable, "-m", "tests.bench.canned", str(nodes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield targets(json.loads(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.wait(20)


def targets(members: list[tuple[str, str, int]]) -> list[Target]:
    """As discovery would give them."""
    return [
        Target(node=name, pod=AgentPod(name=f"agent-{name}", uid=name, node=name, ip=address, ready=True, port=port))
        for name, address, port in members
    ]


class _Agent:
    def __init__(self, node: SimulatedNode, now: float) -> None:
        sampled = to_rfc3339(now)
        head = f"Date: {formatdate(now, usegmt=True)}\r\nX-Gpudiag-Sampled-At: {sampled}\r\nETag: {node.etag}\r\n"
        self.bodies = [self._answer(node, head, now + later) for later in (0.0, 0.001)]
        self.unchanged = f"HTTP/1.1 304 Not Modified\r\n{head}\r\n".encode()

    @staticmethod
    def _answer(node: SimulatedNode, head: str, moment: float) -> bytes:
        packed = node.body(moment).compressed
        assert packed is not None
        kind = "Content-Type: application/json\r\nContent-Encoding: gzip\r\nVary: Accept-Encoding\r\n"
        return f"HTTP/1.1 200 OK\r\n{head}{kind}Content-Length: {len(packed)}\r\n\r\n".encode() + packed


class _Connection(asyncio.Protocol):
    def __init__(self, agent: _Agent) -> None:
        self._agent = agent
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one but for its ancestors

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        assert data.endswith(b"\r\n\r\n"), "a request comes in one piece on loopback"
        if b"If-None-Match" in data:
            self._transport.write(self._agent.unchanged)
            return
        self._agent.bodies.reverse()
        self._transport.write(self._agent.bodies[0])


async def _serve(count: int) -> None:
    allow_open_files(3 * count + 256)
    loop, now, members = asyncio.get_running_loop(), time.time(), []
    for spec, bound in zip(specs(count), listen_all(count, _PORT), strict=True):
        address, port = bound.getsockname()
        agent = _Agent(SimulatedNode(spec, address, port), now)
        await loop.create_server(lambda agent=agent: _Connection(agent), sock=bound)  # type: ignore[misc]
        members.append((spec.name, address, port))
    print(json.dumps(members), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
