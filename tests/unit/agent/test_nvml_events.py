"""XIDs from NVML's events: through the real pynvml, a real process, and into the report, once."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gpudiag_agent import options, run
from gpudiag_agent.clock import SystemClock
from gpudiag_agent.nvml.event import NVMLEvent
from gpudiag_agent.nvml.events import NVMLEvents
from gpudiag_api import wire
from gpudiag_cli import nvmlfake

from .conftest import Boot

XID, PSTATE = 8, 4
WHOLE = 0xFFFFFFFF


class Listener:
    """Events as they come."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[NVMLEvent] = asyncio.Queue()
        self.events = NVMLEvents(on_event=self.heard.put_nowait, clock=SystemClock())

    async def next(self) -> NVMLEvent:
        async with asyncio.timeout(20):
            return await self.heard.get()

    async def listens(self) -> None:
        async with asyncio.timeout(20):
            await self.events.listening.wait()


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[Listener]:
    made = Listener()
    task = asyncio.create_task(made.events.run())
    await made.listens()
    yield made
    task.cancel()
    async with asyncio.timeout(5):
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def machine(boot: Boot) -> nvmlfake.Machine:
    return boot("h100-8")


@pytest.fixture
async def listener(machine: nvmlfake.Machine) -> AsyncIterator[Listener]:
    async with listening() as made:
        yield made


async def test_an_xid_is_heard_with_its_gpu_and_instance(machine: nvmlfake.Machine, listener: Listener) -> None:
    machine.set(event=f"1:2:{XID}:79")
    event = await listener.next()
    assert (event.code, event.pci) == (79, "0000:52:00.0")
    assert (event.gpu_instance, event.compute_instance) == (WHOLE, WHOLE)
    assert event.uuid.startswith("GPU-")
    machine.set(event=f"2:5:{XID}:31:3:0")
    event = await listener.next()
    assert (event.code, event.pci, event.gpu_instance, event.compute_instance) == (31, "0000:c3:00.0", 3, 0)


async def test_other_events_are_not_xids(machine: nvmlfake.Machine, listener: Listener) -> None:
    machine.set(event=f"1:2:{PSTATE}:8")
    machine.set(event=f"2:2:{XID}:48")
    assert (await listener.next()).code == 48


async def test_a_gpu_that_cannot_be_listened_to_leaves_the_others(machine: nvmlfake.Machine) -> None:
    machine.set({"gpu.2.events": 0})
    async with listening() as listener:
        machine.set(event=f"1:3:{XID}:13")
        assert (await listener.next()).code == 13


async def test_a_driver_that_fails_is_tried_again(machine: nvmlfake.Machine, listener: Listener) -> None:
    machine.set({"crash.nvmlEventSetWait_v2": 11})
    async with asyncio.timeout(20):
        while listener.events.listening.is_set():
            await asyncio.sleep(0.01)
    machine.remove("crash.nvmlEventSetWait_v2")
    await listener.listens()
    machine.set(event=f"9:0:{XID}:119")
    assert (await listener.next()).code == 119


async def test_a_process_that_hangs_in_the_driver_does_not_hold_up_the_end(machine: nvmlfake.Machine) -> None:
    async with listening():
        machine.set({"hang.nvmlEventSetWait_v2": 1})


async def test_it_is_in_the_report_and_counts_once_with_the_kernels_line(
    machine: nvmlfake.Machine, tmp_path: Path
) -> None:
    log = tmp_path / "kmsg"
    log.touch()
    flags = ["--nvml-events", "on", "--kmsg", str(log), "--journal", "none", "--pod-resources", "none"]
    agent = run.make(options.parse([*flags, "--host", "127.0.0.1", "--port", "0"], {}))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        serving = asyncio.create_task(agent.run(sock))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/v1/report"
        async with asyncio.timeout(30), aiohttp.ClientSession() as client:
            number = 0
            while not (report := await read(client, url)) or not report.xids:
                number += 1
                machine.set(event=f"{number}:2:{XID}:79") if number == 1 or number % 50 == 0 else None
                await asyncio.sleep(0.05)
            before = report.xids[0].count
            with log.open("a") as file:
                file.write("NVRM: Xid (PCI:0000:52:00): 79, pid=7, name=python, GPU has fallen off the bus.\n")
            while not (report := await read(client, url)) or not report.xids[0].message:
                await asyncio.sleep(0.05)
        agent.stop()
        await serving
    assert len(report.xids) == 1
    assert (report.xids[0].count, report.xids[0].process_name) == (before, "python")


async def read(client: aiohttp.ClientSession, url: str) -> wire.Report | None:
    async with client.get(url) as answer:
        return wire.decode(await answer.read()) if answer.status == 200 else None
