"""A fleet of agents in one process: the operator cannot tell it from real ones on real nodes.

    async with Fleet(200, machine="h100-8") as fleet:
        await fleet.set_fault("gpu-003", "xid-79", gpu=2)
        await fleet.clear("gpu-003")

One listening socket per node, because an agent that is gone has to refuse connections while its neighbours answer.
"""

import asyncio
import functools
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Self

from aiohttp import web

from gpudiag_cli.errors import CommandError
from gpudiag_cli.simulator.addresses import allow_open_files, listen, listen_all
from gpudiag_cli.simulator.agent import answer
from gpudiag_cli.simulator.faults import Fault, Injected
from gpudiag_cli.simulator.machines import MACHINES
from gpudiag_cli.simulator.node import SimulatedNode
from gpudiag_cli.simulator.report import NodeSpec

DEFAULT_PORT = 9810
# A listener, the operator's kept connection, and a second one for `fresh`.
_FILES_PER_NODE = 3
_FILES_BESIDES = 256
# An agent that is killed finishes nothing. Not 0, which to aiohttp means no limit at all.
_SHUTDOWN_SECONDS = 0.001


def specs(
    count: int,
    machine: str = "h100-8",
    *,
    prefix: str = "gpu",
    start: int = 1,
    latency: float = 0.0,
    jitter: float = 0.0,
) -> list[NodeSpec]:
    """So many nodes of one machine: gpu-1, gpu-2, …, with as many digits as the last one needs, but at least two.

    Raises:
        CommandError: there is no such machine.
    """
    if machine not in MACHINES:
        raise CommandError(f"There is no machine {machine!r}. Known are: {', '.join(MACHINES)}.")
    width = max(2, len(str(start + count - 1)))
    return [
        NodeSpec(name=f"{prefix}-{number:0{width}d}", machine=MACHINES[machine], latency=latency, jitter=jitter)
        for number in range(start, start + count)
    ]


class Fleet:
    """Simulated agents; start it as an asynchronous context manager.

    Args:
        nodes: their number, or what they are.
        machine: what they are, when ``nodes`` is a number.
        port: on which every agent listens.
        network: second octet of their addresses; by default one that is free.
        interval: seconds between two samples.
        vary: take a sample for every answer, so that no two bodies are equal (for measurements).
        seed: of all that is drawn (latencies): the same seed gives the same fleet.
        clock: gives Unix seconds.
    """

    def __init__(
        self,
        nodes: int | Sequence[NodeSpec],
        *,
        machine: str = "h100-8",
        port: int = DEFAULT_PORT,
        network: int | None = None,
        interval: float = 10.0,
        vary: bool = False,
        seed: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._specs = specs(nodes, machine) if isinstance(nodes, int) else list(nodes)
        self._port = port
        self._network = network
        self._interval = interval
        self._vary = vary
        self._seed = seed
        self._clock = clock
        self._nodes: dict[str, SimulatedNode] = {}
        self._agents: dict[str, _Listener] = {}

    @property
    def nodes(self) -> Mapping[str, SimulatedNode]:
        """The nodes by name; empty before the start."""
        return MappingProxyType(self._nodes)

    def __getitem__(self, name: str) -> SimulatedNode:
        """The node of that name.

        Raises:
            CommandError: there is none.
        """
        if name not in self._nodes:
            raise CommandError(f"There is no simulated node {name!r}.")
        return self._nodes[name]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen on all addresses.

        Raises:
            CommandError: not enough addresses, ports or open files; the message says what to do.
        """
        allow_open_files(len(self._specs) * _FILES_PER_NODE + _FILES_BESIDES)
        sockets = listen_all(len(self._specs), self._port, self._network)
        for spec, bound in zip(self._specs, sockets, strict=True):
            address, port = bound.getsockname()
            node = SimulatedNode(
                spec, address, port, interval=self._interval, vary=self._vary, seed=self._seed, clock=self._clock
            )
            self._nodes[spec.name] = node
            self._agents[spec.name] = agent = _Listener(node)
            await agent.open(bound)

    async def stop(self) -> None:
        """Close everything; may be called again."""
        agents = list(self._agents.values())
        self._agents.clear()
        await asyncio.gather(*(agent.close() for agent in agents))

    # Faults ------------------------------------------------------------------------------------------------------

    async def set_fault(self, node: str, fault: Fault | str, *, gpu: int = 0, latency: float = 2.0) -> None:
        """Inject a fault, beside those that are there; polls that wait are answered at once.

        Args:
            node: name of the node.
            fault: a :class:`Fault` or its text, for example ``xid-79``.
            gpu: index of the GPU that it strikes, for faults on one.
            latency: seconds, for ``latency`` and ``slow-body``.

        Raises:
            CommandError: no such node, fault or GPU.
        """
        target = self[node]
        added = inject(target, fault, since=self._clock(), gpu=gpu, latency=latency)
        await self.set_faults(node, (*(each for each in target.faults if not _same(each, added)), added))

    async def clear(self, node: str, fault: Fault | str | None = None) -> None:
        """Take a fault away, or all of them; its findings go with it.

        Raises:
            CommandError: no such node.
        """
        kept = [each for each in self[node].faults if fault is not None and each.fault != fault]
        await self.set_faults(node, kept)

    async def set_faults(self, node: str, faults: Iterable[Injected]) -> None:
        """Make these the faults of a node, in order of injection."""
        target = self[node]
        target.set_faults(faults)
        if target.behaviour is Fault.REFUSE:
            await self._agents[node].close()
        else:
            await self._agents[node].open()

    async def next_jobs(self, nodes: Iterable[str] | None = None) -> None:
        """Change the meaning of reports without a fault: every node's first GPU goes to another job."""
        for name in self._nodes if nodes is None else nodes:
            self[name].next_job()


def inject(node: SimulatedNode, fault: Fault | str, *, since: float, gpu: int = 0, latency: float = 0.0) -> Injected:
    """A fault that fits the node.

    Raises:
        CommandError: no such fault or GPU.
    """
    try:
        kind = Fault(fault)
    except ValueError:
        raise CommandError(f"There is no fault {fault!r}. Known are: {', '.join(Fault)}.") from None
    if not 0 <= gpu < node.machine.gpu_count:
        raise CommandError(f"{node.name} has GPUs 0 to {node.machine.gpu_count - 1}, no GPU {gpu}.")
    return Injected(fault=kind, since=since, gpu=gpu, latency=latency if kind.takes_latency else 0.0)


def _same(one: Injected, other: Injected) -> bool:
    return one.fault is other.fault and (one.gpu == other.gpu or not one.fault.on_gpu)


class _Listener:
    """The socket and the connections of one agent."""

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self._listening: asyncio.Server | None = None
        self._server: web.Server | None = None

    async def open(self, bound: socket.socket | None = None) -> None:
        """Listen, if it does not."""
        if self._listening is not None:
            if bound is not None:
                bound.close()
            return
        bound = bound or listen(self._node.address, self._node.port)
        self._server = web.Server(
            functools.partial(answer, self._node),
            # A client that goes ends its poll: without this, hanging answers would pile up.
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=3600.0,
        )
        self._listening = await asyncio.get_running_loop().create_server(self._connected, sock=bound)

    def _connected(self) -> asyncio.Protocol:
        assert self._server is not None, "it listens"
        self._node.connections += 1
        return self._server()

    async def close(self) -> None:
        """Refuse connections and end those there are."""
        if self._listening is None or self._server is None:
            return
        listening, server = self._listening, self._server
        self._listening = self._server = None
        listening.close()
        await server.shutdown(timeout=_SHUTDOWN_SECONDS)
