"""One sweep over 200 agents: the operator's whole path, against a bare client that fetches and parses the same bytes.

Both on the same kind of loop, with the same parallelism and kept connections, in turns. The operator's sweep is the
production code from the poll to the status: fetch, decode, check, assess, compare with what is stored, aggregate.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import uvloop
from tests.bench.fleet_process import served
from tests.bench.result import Result, spread

from gpudiag_api.kinds import GPUDiagnosticSpec
from gpudiag_operator.aggregate.status import Aggregation, aggregate
from gpudiag_operator.collect.agent_client import AgentClient
from gpudiag_operator.collect.collector import Collector
from gpudiag_operator.collect.poller import _poll_once
from gpudiag_operator.collect.record import NodeRecord
from gpudiag_operator.collect.resources import raise_open_files
from gpudiag_operator.collect.settings import CollectSettings
from gpudiag_operator.domain import NodeState, Reading, Target
from gpudiag_operator.fleet import Fleet
from gpudiag_operator.publish.publisher import Publisher
from gpudiag_operator.store import MemoryNodeStore

NODES = 200
ROUNDS = 25
Sweep = Callable[[], Awaitable[None]]


class _Silent:
    """An API server that is never asked: a steady fleet writes nothing."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the sweep must not write, but called {name}")


def run() -> list[Result]:
    """Measure."""
    raise_open_files()
    with served(NODES) as targets, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_compare(targets))


async def _compare(targets: list[Target]) -> list[Result]:
    operator, close = _operator(targets)
    connector = aiohttp.TCPConnector(limit=256)
    async with aiohttp.ClientSession(connector=connector, headers={"Accept-Encoding": "gzip"}) as session:
        bare = _bare(session, targets)
        for sweep in (bare, operator):  # connections, caches, and the first fill
            await sweep()
            await sweep()
        walls: dict[str, list[float]] = {"bare": [], "operator": []}
        cpus: dict[str, list[float]] = {"bare": [], "operator": []}
        for _ in range(ROUNDS):
            for name, sweep in (("bare", bare), ("operator", operator)):
                wall, cpu = await _timed(sweep)
                walls[name].append(wall)
                cpus[name].append(cpu)
    await close()
    details = {
        "wall seconds": {name: spread(values) for name, values in walls.items()},
        "cpu seconds": {name: spread(values) for name, values in cpus.items()},
    }
    ratios = [
        Result(
            name=f"sweep over {NODES} agents, {what} against the bare client",
            measured=spread(values["operator"])["median"] / spread(values["bare"])["median"],
            unit="ratio",
            target=2.0,
            gates=True,
            details=details,
        )
        for what, values in (("wall", walls), ("client CPU", cpus))
    ]
    return [*ratios, _absolute("operator", walls), _absolute("bare", walls)]


def _absolute(name: str, walls: dict[str, list[float]]) -> Result:
    return Result(name=f"sweep over {NODES} agents, {name}", measured=1000 * spread(walls[name])["median"], unit="ms")


async def _timed(sweep: Sweep) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    await sweep()
    return time.perf_counter() - wall, time.process_time() - cpu


def _bare(session: aiohttp.ClientSession, targets: list[Target]) -> Sweep:
    urls = [f"http://{target.pod.ip}:{target.pod.port}/v1/report" for target in targets if target.pod]

    async def fetch(url: str) -> None:
        async with session.get(url) as response:
            json.loads(await response.read())

    async def sweep() -> None:
        await asyncio.gather(*(fetch(url) for url in urls))

    return sweep


def _operator(targets: list[Target]) -> tuple[Sweep, Callable[[], Awaitable[None]]]:
    settings = CollectSettings()
    client = AgentClient(settings)
    store = MemoryNodeStore()
    publisher = Publisher(_Silent())
    states: list[NodeState] = []

    def on_reading(reading: Reading) -> None:
        state = fleet._assess(reading)
        states.append(state)
        if store.put(state):
            publisher.submit(state)

    fleet = Fleet(store, publisher)
    collector = Collector(client, settings, listener=on_reading)
    fleet.connect(collector=collector, discovery=_NoDiscovery())  # type: ignore[arg-type]  # all that assessing asks
    records: list[NodeRecord] = [collector._new_record(target) for target in targets]

    async def sweep() -> None:
        states.clear()
        for record in records:
            record.etag = None  # asked without a tag, the agent answers with its body
        await asyncio.gather(*(_poll_once(record, collector._caller, collector) for record in records))
        assert len(states) == len(targets), f"{len(states)} of {len(targets)} nodes were read"
        status = aggregate(
            Aggregation(
                spec=GPUDiagnosticSpec(), generation=1, states=states, run_id="bench", started_at=0.0, now=time.time()
            )
        )
        assert status.summary.nodes.reporting == len(targets)

    async def close() -> None:
        await collector.close()
        await client.close()

    return sweep, close


class _NoDiscovery:
    """No Nodes are known: agents alone make the targets."""

    def node(self, name: str) -> None:
        """Nothing is known of it."""

    def is_gpu_node(self, name: str) -> bool:
        """Agents say so here."""
        return True
