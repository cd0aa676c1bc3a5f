"""A driver that hangs, seen from outside: the node says so soon, HTTP never waits, and nothing piles up."""

import asyncio
import gc
import os
import statistics
import time
from collections.abc import Callable

import msgspec
import pytest

from gpudiag_agent.nvml.process import NVMLChild
from gpudiag_agent.nvml.source import NVMLSource
from gpudiag_agent.sample import Sample
from gpudiag_api.vocabulary import Capability, Health
from gpudiag_api.wire import Report

from .conftest import Boot, Open
from .served_node import Node
from .test_nvml_faults import Clock, fault_of, open_files, zombies_of

DEADLINE = 1.0
HANG = "gpu.3.hang.nvmlDeviceGetTotalEccErrors"


class DeafChild(NVMLChild):
    """A child on which SIGKILL has no effect: what a process in state D looks like."""

    def kill(self) -> None:
        return


class StuckChild(NVMLChild):
    """A real process that greets and then never answers; a thousand of them start in seconds."""

    @classmethod
    async def spawn(cls) -> "StuckChild":
        return cls(
            await asyncio.create_subprocess_exec(
                "sh",
                "-c",
                r"printf '\0\0\0\0'; exec sleep 600",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )


Serve = Callable[[NVMLSource], Node]


@pytest.fixture
def serve(fresh_node: Node, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Makes the served node look through a source: `serve(source)`."""

    def over(source: NVMLSource) -> Node:
        async def look() -> Sample:
            return msgspec.structs.replace(await source.sample(), taken_at=fresh_node.clock.now())

        monkeypatch.setattr(fresh_node, "sample", look)
        return fresh_node

    return over


async def fetch(node: Node) -> tuple[Report, float]:
    """The report over HTTP, and the seconds it took."""
    began = time.perf_counter()
    async with node.client.get(f"{node.url}/v1/report") as answer:
        body = await answer.read()
    seconds = time.perf_counter() - began
    assert answer.status == 200
    return msgspec.json.decode(body, type=Report), seconds


async def look(node: Node) -> None:
    node.clock.advance(10)
    await node.sampler.fresh()


async def test_a_hung_call_is_told_within_three_deadlines_and_http_does_not_wait(
    boot: Boot, open_source: Open, serve: Serve
) -> None:
    clock = Clock()
    machine = boot("h100-8")
    node = serve(open_source(deadline=10, monotonic=clock))
    await look(node)
    assert (await fetch(node))[0].health is Health.HEALTHY
    machine.set({HANG: True})
    source = open_source(deadline=DEADLINE, monotonic=clock)
    serve(source)
    began, waits = time.perf_counter(), []
    looking = asyncio.create_task(look(node))
    while (found := await fetch(node))[0].health is not Health.UNKNOWN:
        waits.append(found[1])
        assert time.perf_counter() - began < 3 * DEADLINE
        await asyncio.sleep(0.01)
    await looking
    report = found[0]
    assert [gap.reason for gap in report.capabilities] == [Capability.DRIVER_HUNG]
    assert {gpu.health for gpu in report.gpus} == {Health.UNKNOWN}
    assert len(report.gpus) == 8
    # A busy machine may delay one answer; none waited for the driver.
    assert statistics.median(waits) < 0.01
    assert max(waits) < DEADLINE / 2
    machine.remove(HANG)
    clock.now += 5
    source._deadline = 10
    await look(node)
    assert (await fetch(node))[0].health is Health.HEALTHY


async def test_a_child_that_cannot_be_killed_is_left_alone_until_it_ends(
    boot: Boot, open_source: Open, serve: Serve
) -> None:
    started: list[DeafChild] = []

    async def spawn() -> NVMLChild:
        child = await DeafChild.spawn()
        assert isinstance(child, DeafChild)
        started.append(child)
        return child

    clock = Clock()
    machine = boot("h100-8")
    source = open_source(deadline=10, grace=0.05, spawn=spawn, monotonic=clock)
    node = serve(source)
    await look(node)
    machine.set({HANG: True})
    source._deadline = 0.2
    for _ in range(20):
        await look(node)
        clock.now += 3600
    report, seconds = await fetch(node)
    assert (report.health, source.abandoned, len(started)) == (Health.UNKNOWN, True, 1)
    assert "cannot be killed" in report.capabilities[0].message
    assert seconds < DEADLINE
    machine.remove(HANG)
    # It leaves the call, finds nobody to answer to, and ends.
    async with asyncio.timeout(10):
        await started[0].wait()
    source._deadline = 10
    await look(node)
    assert (await fetch(node))[0].health is Health.HEALTHY
    assert (len(started), source.abandoned) == (2, False)


async def die_often(source: NVMLSource, clock: Clock, times: int) -> None:
    """Let the driver hang that often, with every pause between two children waited for to the second."""
    for number in range(times):
        assert fault_of(await source.sample()).reason is Capability.DRIVER_HUNG
        assert source._failures == number + 1
        pause = min(60.0, 2.0**number)
        clock.now += pause - 0.5
        assert fault_of(await source.sample()).reason is Capability.DRIVER_HUNG
        assert source._failures == number + 1, "a child was started too early"
        clock.now += 0.5


@pytest.mark.slow
async def test_a_thousand_children_are_killed_and_replaced(open_source: Open) -> None:
    clock = Clock()
    source = open_source(deadline=0.002, grace=10, spawn=StuckChild.spawn, monotonic=clock)
    await die_often(source, clock, 1)
    source._failures = 0
    files, tasks = open_files(), len(asyncio.all_tasks())
    await die_often(source, clock, 1000)
    assert zombies_of(os.getpid()) == []
    assert open_files() <= files
    assert len(asyncio.all_tasks()) <= tasks
    gc.collect()
    assert sum(type(one) is StuckChild for one in gc.get_objects()) <= 1, "nobody keeps the dead"
