"""The operator's own path from the poll to the status, in this process, and the bare client it is compared with.

The collector is the production code: limit, breaker, permit, fetch, decode, check, assess, compare with what is stored.
Only who decides when to poll is missing, since a sweep asks everybody once.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import msgspec

from gpudiag_api.kinds import GPUDiagnosticSpec
from gpudiag_operator.aggregate import status as aggregation
from gpudiag_operator.collect import body
from gpudiag_operator.collect.agent_client import AgentClient
from gpudiag_operator.collect.collector import Collector
from gpudiag_operator.collect.poller import _poll_once
from gpudiag_operator.collect.record import NodeRecord
from gpudiag_operator.collect.routes import DirectRoute
from gpudiag_operator.collect.settings import CollectSettings
from gpudiag_operator.domain import NodeState, Reading, Target
from gpudiag_operator.fleet import Fleet
from gpudiag_operator.publish.publisher import Publisher
from gpudiag_operator.store import MemoryNodeStore

Sweep = Callable[[], Awaitable[None]]


class _Silent:
    """An API server that is never asked: a steady fleet writes nothing."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a sweep must not write, but called {name}")


class _NoDiscovery:
    """No Nodes are known: agents alone make the targets."""

    def node(self, name: str) -> None:
        """Nothing is known of it."""

    def is_gpu_node(self, name: str) -> bool:
        """Agents say so here."""
        return True


class Engine:
    """Collection and assessment of these targets. Make it inside a running loop; close it."""

    def __init__(self, targets: list[Target]) -> None:
        settings = CollectSettings()
        self._client = AgentClient(settings, route=DirectRoute(9810))
        self._store = MemoryNodeStore()
        self._publisher = Publisher(_Silent())
        self.fleet = Fleet(self._store, self._publisher)
        self.collector = Collector(self._client, settings, listener=self._on_reading)
        self.fleet.connect(collector=self.collector, discovery=_NoDiscovery())  # type: ignore[arg-type]
        self.records: list[NodeRecord] = [self.collector._new_record(target) for target in targets]
        self.states: list[NodeState] = []
        self.read = 0
        """Nodes that gave a good answer to the last sweep."""

    def _on_reading(self, reading: Reading) -> None:
        state = self.assess(reading)
        self.states.append(state)
        self.keep(state)

    def assess(self, reading: Reading) -> NodeState:
        """Reading to state."""
        return self.fleet._assess(reading)

    def keep(self, state: NodeState) -> None:
        """Compare with what is known, and hand it to whoever writes."""
        if self._store.put(state):
            self._publisher.submit(state)

    def aggregate(self) -> None:
        """All states to the status of one GPUDiagnostic."""
        spec, now = GPUDiagnosticSpec(), time.time()
        aggregation.aggregate(
            aggregation.Aggregation(
                spec=spec, generation=1, states=self.states, run_id="bench", started_at=0.0, now=now
            )
        )

    async def ask_all(self) -> None:
        """One poll of every agent."""
        caller = self.collector._caller
        self.read = sum(await asyncio.gather(*(_poll_once(record, caller, self.collector) for record in self.records)))

    async def changed(self) -> None:
        """A sweep in which every answer has a body, to the status."""
        self.states.clear()
        for record in self.records:
            record.etag = None  # asked without a tag, the agent answers with its body
        await self.ask_all()
        # A breaker that changes is news, too.
        assert len(self.states) >= self.read, f"{len(self.states)} of {self.read} readings were news"
        self.aggregate()

    async def unchanged(self) -> None:
        """A sweep of 304: no news, so nobody assesses or aggregates."""
        self.states.clear()
        await self.ask_all()
        assert not self.states, "nothing should have changed"

    async def close(self) -> None:
        """Close all connections."""
        await self.collector.close()
        await self._client.close()


class Bare:
    """aiohttp alone, with the same loop, parallelism, kept connections and JSON library."""

    def __init__(self, targets: list[Target]) -> None:
        # aiohttp's own limit looks at every host that waits whenever a connection is free: with thousands of hosts a
        # semaphore is the faster reference.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers={"Accept-Encoding": "gzip"}
        )
        self._slots = asyncio.Semaphore(CollectSettings().concurrency)
        self._urls = [f"http://{target.pod.ip}:{target.pod.port}/v1/report" for target in targets if target.pod]
        self._tags: dict[str, str] = {}

    async def changed(self) -> None:
        """Fetch and parse every report."""
        await asyncio.gather(*(self._fetch(url) for url in self._urls))

    async def unchanged(self) -> None:
        """Ask everybody, with its tag."""
        await asyncio.gather(*(self._ask(url) for url in self._urls))

    async def pool(self, workers: int) -> None:
        """Fetch and parse every report with so many workers."""
        left = iter(self._urls)

        async def work() -> None:
            for url in left:
                await self._fetch(url)

        await asyncio.gather(*(work() for _ in range(workers)))

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _fetch(self, url: str) -> None:
        async with self._slots, self._session.get(url) as response:
            msgspec.json.decode(await response.read())
            self._tags[url] = response.headers["ETag"]

    async def _ask(self, url: str) -> None:
        tag = {"If-None-Match": self._tags[url]}
        async with self._slots, self._session.get(url, headers=tag) as response:
            assert response.status == 304
            await response.read()


async def timed(sweep: Sweep) -> tuple[float, float]:
    """Wall and CPU seconds of one sweep."""
    wall, cpu = time.perf_counter(), time.process_time()
    await sweep()
    return time.perf_counter() - wall, time.process_time() - cpu


@contextmanager
def staged(engine: Engine) -> Iterator[dict[str, float]]:
    """CPU seconds by stage while the block lasts; what is in none of them is fetching."""
    spent = {"decode": 0.0, "assess": 0.0, "compare": 0.0, "aggregate": 0.0}

    def watched(stage: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*given: Any, **named: Any) -> Any:
            began = time.thread_time()
            try:
                return act(*given, **named)
            finally:
                spent[stage] += time.thread_time() - began

        return measured

    places: tuple[tuple[str, Any, str], ...] = (
        ("decode", body, "parse"),
        ("assess", engine, "assess"),
        ("compare", engine, "keep"),
        ("aggregate", engine, "aggregate"),
    )
    before = [getattr(where, name) for _, where, name in places]
    for (stage, where, name), act in zip(places, before, strict=True):
        setattr(where, name, watched(stage, act))
    try:
        yield spent
    finally:
        for (_, where, name), act in zip(places, before, strict=True):
            setattr(where, name, act)
