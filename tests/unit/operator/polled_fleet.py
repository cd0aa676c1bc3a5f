"""Fake agents behind a real collector, on a loop whose time passes at once when all tasks wait."""

import asyncio
import random
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from gpudiag_api import wire
from gpudiag_api.vocabulary import BreakerState, Health, NotRead
from gpudiag_api.wire import AgentInfo, Report
from gpudiag_operator.collect.collector import Collector
from gpudiag_operator.collect.limiter import Slot
from gpudiag_operator.collect.outcome import Answer, FetchError
from gpudiag_operator.collect.settings import CollectSettings
from gpudiag_operator.domain import AgentPod, Reading, Target

EPOCH = 1_700_000_000.0


class _Selector(selectors.DefaultSelector):
    """Instead of waiting it moves the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everything waits for ever")
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes at once when all tasks wait."""

    def __init__(self) -> None:
        self.clock = _Selector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run an async test on a VirtualLoop."""

    def run() -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test())

    run.__name__ = test.__name__
    return run


def report(node: str = "n1", health: Health = Health.HEALTHY) -> Report:
    return Report(version=wire.WIRE_VERSION, agent=AgentInfo(version="0.1.0", node_name=node), health=health)


def pod(node: str = "n1", *, ip: str = "10.0.0.1", uid: str = "u") -> AgentPod:
    return AgentPod(name=f"agent-{node}", uid=uid, node=node, ip=ip, ready=True)


def target(node: str = "n1", **options: Any) -> Target:
    return Target(node=node, pod=pod(node, **options))


def blocked(reason: NotRead, node: str = "n1") -> Target:
    return Target(node=node, blocked=reason, message="because")


class Call(msgspec.Struct):
    """What a fake agent was asked, and when."""

    at: float
    node: str
    ip: str
    wait: float
    fresh: bool
    etag: str | None
    run_id: str


Behave = Callable[[Call], Awaitable[Answer]]


async def healthy(call: Call) -> Answer:
    """Answer at once the first time, then nothing changes for as long as the agent may wait."""
    if call.etag is None or call.fresh:
        return Answer(report=report(call.node), etag='W/"1"')
    await asyncio.sleep(call.wait)
    return Answer(report=None, etag='W/"1"')


def fails(reason: NotRead, after: float = 0.0, **options: Any) -> Behave:
    async def behave(_: Call) -> Answer:
        await asyncio.sleep(after)
        raise FetchError(reason, "so it is", **options)

    return behave


async def hangs(_: Call) -> Answer:
    await asyncio.sleep(1e9)
    raise AssertionError


class Fleet:
    """Fake agents behind a real collector."""

    def __init__(self, behave: Behave = healthy, **settings: Any) -> None:
        self.behave: dict[str, Behave] = {}
        self.default = behave
        self.calls: list[Call] = []
        self.paths: list[str] = []
        self.readings: list[tuple[float, Reading]] = []
        self.results: list[str] = []
        self.states: list[tuple[str, int]] = []
        self.loop = asyncio.get_running_loop()
        self.collector = Collector(
            self,
            CollectSettings(**settings),
            listener=lambda reading: self.readings.append((self.loop.time(), reading)),
            metrics=self,
            rng=random.Random(7),
            wall=lambda: EPOCH + self.loop.time(),
        )

    async def fetch(self, pod: AgentPod, slot: Slot, *, seconds: float, **options: Any) -> Answer:
        call = Call(
            at=self.loop.time(),
            node=pod.node,
            ip=pod.ip,
            wait=options.get("wait", 0.0),
            fresh=options.get("fresh", False),
            etag=options.get("etag"),
            run_id=options.get("run_id", ""),
        )
        self.calls.append(call)
        slot.drop()
        answer = await self.behave.get(pod.node, self.default)(call)
        await slot.hold()
        return answer

    async def get(self, pod: AgentPod, slot: Slot, path: str, *, seconds: float, run_id: str) -> bytes:
        self.paths.append(path)
        slot.drop()
        answer = await self.details(path)
        await slot.hold()
        return answer

    async def details(self, path: str) -> bytes:
        return b'{"wireVersion": "1.0", "nodeName": "n1", "stepSeconds": 30}'

    def call_finished(self, result: str, seconds: float) -> None:
        self.results.append(result)

    def breaker_changed(self, node: str, state: int) -> None:
        self.states.append((node, state))

    def node_removed(self, node: str) -> None:
        self.states.append((node, -1))

    def now(self, node: str = "n1") -> Reading:
        reading = self.collector.reading(node)
        assert reading is not None
        return reading

    def reasons(self) -> list[str]:
        """What the listener was told, in order: a reason, or "ok"."""
        return [str(r.failure.reason) if r.failure else "ok" for _, r in self.readings]

    def state(self) -> BreakerState:
        return self.now().breaker.state
