"""`kubectl-gpudiag simulate`: a fleet of agents for an API server of one's own."""

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping

from gpudiag_cli import kubeconfig
from gpudiag_cli.errors import CommandError
from gpudiag_cli.kubeapi import KubeAPI
from gpudiag_cli.simulator.cluster import Cluster, Member
from gpudiag_cli.simulator.director import Director
from gpudiag_cli.simulator.faults import Fault
from gpudiag_cli.simulator.fleet import Fleet, specs
from gpudiag_cli.simulator.machines import MACHINES
from gpudiag_cli.simulator.scenario import Scenario, load

_CLEAN_UP_SECONDS = 60.0


def run(options: argparse.Namespace) -> int:
    """Simulate until interrupted; gives the exit status."""
    if options.list:
        _list()
        return 0
    given = specs(options.nodes, options.machine, latency=options.latency, jitter=options.jitter)
    if options.scenario:
        scenario = load(options.scenario, given, seed=options.seed)
    else:
        scenario = Scenario(tuple(given), (), options.seed or 0)
    asyncio.run(_simulate(scenario, options))
    return 0


def _list() -> None:
    print("machines:")
    for machine in MACHINES.values():
        print(f"  {machine.name:<18} {machine.gpu_count} of {machine.model}")
    print("faults:")
    for fault in Fault:
        print(f"  {fault:<18} {fault.says}")


async def _simulate(scenario: Scenario, options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    fleet = Fleet(
        scenario.nodes, port=options.port, network=options.network, interval=options.interval, seed=scenario.seed
    )
    async with fleet, contextlib.AsyncExitStack() as stack:
        where = _say_where(fleet)
        objects: SimulatedObjects | None = None
        if options.serve_only:
            say(f"{where}. No objects are made. Ctrl-C ends it.")
        else:
            objects, server = await stack.enter_async_context(_objects(fleet, options))
            say(f"{where}, with Nodes and Pods in {server}. Ctrl-C ends it and removes them.")
        following = Director(fleet, scenario, path=options.scenario, objects=objects, say=say)
        director = asyncio.create_task(following.run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({director, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (director, stopping):
            task.cancel()
        if director.done() and not director.cancelled():
            director.result()


class SimulatedObjects:
    """The fleet's Nodes and Pods, as the director knows them: by name of the node."""

    def __init__(self, cluster: Cluster, members: Iterable[Member]) -> None:
        self._cluster = cluster
        self._members = {member.name: member for member in members}

    async def follow(self, faults: Mapping[str, frozenset[Fault]]) -> None:
        """See ``director.Objects``."""
        await self._cluster.follow({self._members[name]: happens for name, happens in faults.items()})


@contextlib.asynccontextmanager
async def _objects(fleet: Fleet, options: argparse.Namespace) -> AsyncIterator[tuple[SimulatedObjects, str]]:
    """Nodes and Pods for as long as the fleet is simulated; gives them and the server's URL."""
    access = kubeconfig.load(options.kubeconfig)
    members = [Member.of(node) for node in fleet.nodes.values()]
    async with KubeAPI(access) as api:
        cluster = Cluster(api, options.namespace)
        started = time.monotonic()
        try:
            await cluster.add(members)
            say(f"made {len(members)} Nodes and agent Pods in {time.monotonic() - started:.1f} s")
            yield SimulatedObjects(cluster, members), access.server
        finally:
            say(f"removing {len(members)} Nodes and agent Pods")
            try:
                async with asyncio.timeout(_CLEAN_UP_SECONDS):
                    await cluster.remove(members)
            except (CommandError, TimeoutError) as error:
                say(f"Not all could be removed: {error or 'that took too long'}. The next simulation takes them over.")


def _say_where(fleet: Fleet) -> str:
    first = next(iter(fleet.nodes.values()))
    return f"{len(fleet.nodes)} agents answer, the first ({first.name}) at {first.url}/v1/report"


def say(text: str) -> None:
    """A line for people, at once; standard output belongs to results."""
    print(text, file=sys.stderr, flush=True)
