"""How long until it is in the report: the agent as a process, the stand-in as its driver, one look a second.

What NVML shows happens at the worst moment, just after a look. Medians, so that one bad moment of a busy machine
decides nothing; beside each time stands what an answer without news took at that moment, and only that is allowed for.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gpudiag_cli import nvmlfake

from . import machines

pytestmark = pytest.mark.slow
INTERVAL = 1.0
TRIALS = 7


class Running:
    """An agent process and its node."""

    def __init__(self, folder: Path) -> None:
        self.machine = nvmlfake.Machine.create("h100-8", folder / "state")
        self.kmsg = folder / "kmsg"
        self.kmsg.touch()
        self.url = ""
        self.client: aiohttp.ClientSession

    async def reasons(self) -> set[tuple[int | None, str]]:
        async with self.client.get(f"{self.url}/v1/report") as answer:
            report: dict[str, Any] = await answer.json()
        return {(one["subject"].get("gpuIndex"), one["reason"]) for one in report.get("findings", ())}

    async def looked(self) -> None:
        """Return just after the next look at the GPUs."""

        async def sampled_at() -> str:
            async with self.client.get(f"{self.url}/v1/report") as answer:
                return answer.headers["X-Gpudiag-Sampled-At"]

        before = await sampled_at()
        async with asyncio.timeout(30):
            while await sampled_at() == before:
                await asyncio.sleep(0.01)

    async def until(self, done: Callable[[set[tuple[int | None, str]]], bool], *, within: float = 30.0) -> float:
        """Seconds until the report says so."""
        began = time.monotonic()
        async with asyncio.timeout(within):
            while not done(await self.reasons()):
                await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def answer_time(self) -> float:
        began = time.monotonic()
        await self.reasons()
        return time.monotonic() - began


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Running]:
    node = Running(tmp_path)
    (tmp_path / "pci").mkdir()
    arguments = ["--node-name=n", "--host=127.0.0.1", "--port=0", "--interval=1s", "--pod-resources=none"]
    arguments += [f"--kmsg={node.kmsg}", f"--sysfs-pci={tmp_path / 'pci'}"]
    environment = {**os.environ, **node.machine.environment(machines.library())}
    command = [sys.executable, "-m", "gpudiag_agent", *arguments]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = await asyncio.to_thread(process.stderr.readline)
        while '"serving"' not in line:
            assert line, "the agent ended"
            line = await asyncio.to_thread(process.stderr.readline)
        node.url = line.partition('"url": "')[2].partition('"')[0] or line.partition('"url":"')[2].partition('"')[0]
        drained = asyncio.create_task(asyncio.to_thread(process.stderr.read))
        async with aiohttp.ClientSession() as node.client:
            async with asyncio.timeout(60):
                while not await _ready(node):
                    await asyncio.sleep(0.1)
            yield node
        process.terminate()
        await drained


async def _ready(node: Running) -> bool:
    async with node.client.get(f"{node.url}/readyz") as answer:
        return answer.status == 200


async def _median(node: Running, trial: Callable[[int], Awaitable[float]]) -> tuple[float, float]:
    """Median time of the trials, and of an answer without news beside each."""
    taken, idle = [], []
    for number in range(TRIALS):
        idle.append(await node.answer_time())
        taken.append(await trial(number))
    print(f"median {statistics.median(taken):.3f} s of {[round(one, 3) for one in sorted(taken)]}")
    return statistics.median(taken), statistics.median(idle)


@pytest.mark.parametrize(
    ("key", "value", "usual", "reason"),
    [("lost", 1, "0", "GPULost"), ("rows.pending", 1, "0", "RemapPending"), ("margin", -5, "46", "Overheating")],
)
async def test_what_nvml_shows_within_one_and_a_half_intervals(
    agent: Running, key: str, value: int, usual: str, reason: str
) -> None:
    async def trial(number: int) -> float:
        gpu = number % 7 + 1
        await agent.looked()
        agent.machine.set({f"gpu.{gpu}.{key}": value})
        taken = await agent.until(lambda said: (gpu, reason) in said)
        agent.machine.set({f"gpu.{gpu}.{key}": usual})
        return taken

    taken, idle = await _median(agent, trial)
    assert taken <= 1.5 * INTERVAL + idle


async def test_a_kernel_line_within_a_fifth_of_a_second(agent: Running) -> None:
    async def trial(number: int) -> float:
        code, at = 62 + 48 * (number % 2), 2 * number + 1
        line = f"3,{at},{1000 * at},-;NVRM: Xid (PCI:0000:1b:00): {code}, pid=1, trial\n"
        clear = f"3,{at + 1},{1000 * at + 1000},-;NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570\n"
        reason = f"XID{code}"
        with agent.kmsg.open("a") as log:
            log.write(line)
            log.flush()
            taken = await agent.until(lambda said: (0, reason) in said)
            log.write(clear)
        await agent.until(lambda said: (0, reason) not in said)
        return taken

    taken, idle = await _median(agent, trial)
    assert taken <= 0.2 + idle


async def test_thermal_slowdown_within_a_minute(agent: Running) -> None:
    agent.machine.set({"gpu.3.reasons": "0x48"})
    assert await agent.until(lambda said: (3, "HardwareThermalSlowdown") in said, within=90) <= 60
    assert {index for index, _ in await agent.reasons()} == {3}
