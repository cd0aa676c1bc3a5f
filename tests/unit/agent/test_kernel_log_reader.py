"""The kernel log reader: file, FIFO and device, followed as they grow, lost and found again."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gpudiag_agent.clock import SystemClock
from gpudiag_agent.kernel_log.reader import KernelLogReader
from gpudiag_agent.kernel_log.record import Record

LINE = "NVRM: Xid (PCI:0000:3b:00): 79, x"


class Heard:
    """What a reader said."""

    def __init__(self) -> None:
        self.records: asyncio.Queue[Record] = asyncio.Queue()
        self.changes: asyncio.Queue[None] = asyncio.Queue()

    async def next(self) -> str:
        async with asyncio.timeout(5):
            return (await self.records.get()).text

    async def change(self) -> None:
        async with asyncio.timeout(5):
            await self.changes.get()


@asynccontextmanager
async def reading(path: Path) -> AsyncIterator[tuple[KernelLogReader, Heard]]:
    heard = Heard()
    reader = KernelLogReader(
        path,
        clock=SystemClock(),
        on_record=heard.records.put_nowait,
        on_change=lambda: heard.changes.put_nowait(None),
    )
    task = asyncio.create_task(reader.run())
    try:
        async with asyncio.timeout(5):
            await reader.caught_up.wait()
        yield reader, heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_file_is_read_from_its_start_and_followed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("3,1,5,-;before\nplain\n11,2,6,-;forged\n")
    async with reading(log) as (reader, heard):
        assert [await heard.next(), await heard.next()] == ["before", "plain"]
        assert reader.problem is None
        with log.open("a") as file:
            file.write("half a ")
            file.flush()
            file.write(f"line\n{LINE}\n")
        assert [await heard.next(), await heard.next()] == ["half a line", LINE]
        assert heard.records.empty()


async def test_a_line_reaches_the_agent_within_200_ms(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    async with reading(log) as (_, heard):
        began = asyncio.get_running_loop().time()
        with log.open("a") as file:
            file.write(f"{LINE}\n")
        await heard.next()
        assert asyncio.get_running_loop().time() - began < 0.2


@pytest.mark.parametrize("how", ["truncated", "replaced"])
async def test_a_rotated_file_is_followed(tmp_path: Path, how: str) -> None:
    log = tmp_path / "log"
    log.write_text("a long first line of the old file\n")
    async with reading(log) as (_, heard):
        await heard.next()
        if how == "truncated":
            os.truncate(log, 0)
            with log.open("a") as file:
                file.write("new\n")
        else:
            (tmp_path / "next").write_text("new\n")
            (tmp_path / "next").rename(log)
        assert await heard.next() == "new"


async def test_a_fifo_outlives_its_writers(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with reading(fifo) as (_, heard):
        for text in ("one", "two"):
            fifo.write_text(f"{text}\n")
            assert await heard.next() == text


async def test_a_log_that_is_not_there_is_said_and_found_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpudiag_agent.kernel_log.reader._RETRY", 0.02)
    log = tmp_path / "log"
    async with reading(log) as (reader, heard):
        assert str(log) in str(reader.problem)
        await heard.change()
        log.write_text("now\n")
        assert await heard.next() == "now"
        assert reader.problem is None


@pytest.mark.parametrize("path", [Path("/dev/null"), Path("/")])
async def test_what_is_no_kernel_log_is_a_problem(path: Path) -> None:
    async with reading(path) as (reader, _):
        assert str(path) in str(reader.problem)


async def test_an_endless_line_does_not_fill_the_memory(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with reading(fifo) as (_, heard):
        await asyncio.to_thread(fifo.write_bytes, b"x" * 1_000_000 + b"\nend\n")
        assert len(await heard.next()) <= 1 << 17
        assert await heard.next() == "end"


class Device:
    """Reads of a kernel ring: records, overruns, and nothing more for now."""

    def __init__(self, *reads: bytes | OSError) -> None:
        self.reads = list(reads)

    def read(self, _descriptor: int, _size: int) -> bytes:
        if not self.reads:
            raise BlockingIOError
        read = self.reads.pop(0)
        if isinstance(read, OSError):
            raise read
        return read


async def test_a_ring_that_overran_is_a_gap_and_a_reopened_one_is_not_read_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device(
        b"3,1,5,-;one\n",
        BrokenPipeError(),
        b"3,7,6,-;seven\n",
        b"11,8,6,-;of a process\n",
        b"",  # the device broke
        b"3,7,6,-;seven\n",
        b"3,9,7,c;nine\n",
    )
    monkeypatch.setattr("gpudiag_agent.kernel_log.reader.os.read", device.read)
    monkeypatch.setattr("gpudiag_agent.kernel_log.reader._RETRY", 0.01)

    async def never(_descriptor: int) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("gpudiag_agent.kernel_log.reader._readable", never)
    async with reading(Path("/dev/zero")) as (reader, heard):
        assert [await heard.next(), await heard.next(), await heard.next()] == ["one", "seven", "nine"]
        assert reader.lost_records == 5
