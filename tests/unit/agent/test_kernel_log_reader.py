"""The kernel log reader: file, FIFO and device, followed as they grow, lost and found again."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gpudiag_agent.clock import SystemClock
from gpudiag_agent.kernel_log.intake import FileMark, Gap, Intake, Position
from gpudiag_agent.kernel_log.reader import KernelLogReader
from gpudiag_agent.kernel_log.record import Record

LINE = "NVRM: Xid (PCI:0000:3b:00): 79, x"
BOOT = "11111111-2222-3333-4444-555555555555"


class Heard:
    """What a reader said."""

    def __init__(self) -> None:
        self.records: asyncio.Queue[Record] = asyncio.Queue()
        self.changes: asyncio.Queue[None] = asyncio.Queue()

    async def next(self) -> str:
        async with asyncio.timeout(5):
            return (await self.records.get()).text.removeprefix("NVRM: ")

    async def change(self) -> None:
        async with asyncio.timeout(5):
            await self.changes.get()


@asynccontextmanager
async def reading(
    path: Path | None, *, journal: Path | None = None, resume: Position | None = None
) -> AsyncIterator[tuple[KernelLogReader, Intake, Heard]]:
    heard = Heard()
    intake = Intake(boot_id=BOOT, now=lambda: 7.0, on_record=heard.records.put_nowait)
    if resume is not None:
        intake.resume(resume)
    reader = KernelLogReader(
        path,
        journal=journal,
        intake=intake,
        clock=SystemClock(),
        on_change=lambda: heard.changes.put_nowait(None),
    )
    task = asyncio.create_task(reader.run())
    try:
        async with asyncio.timeout(5):
            await reader.caught_up.wait()
        yield reader, intake, heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_file_is_read_from_its_start_and_followed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("3,1,5,-;NVRM: before\nNVRM: plain\nof no concern\n11,2,6,-;NVRM: forged\n")
    async with reading(log) as (reader, _, heard):
        assert [await heard.next(), await heard.next()] == ["before", "plain"]
        assert reader.problem is None
        with log.open("a") as file:
            file.write("NVRM: half a ")
            file.flush()
            file.write(f"line\n{LINE}\n")
        assert [await heard.next(), await heard.next()] == ["half a line", LINE.removeprefix("NVRM: ")]
        assert heard.records.empty()


async def test_a_line_reaches_the_agent_within_200_ms(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    async with reading(log) as (_, _, heard):
        began = asyncio.get_running_loop().time()
        with log.open("a") as file:
            file.write(f"{LINE}\n")
        await heard.next()
        assert asyncio.get_running_loop().time() - began < 0.2


@pytest.mark.parametrize("how", ["truncated", "replaced"])
async def test_a_rotated_file_is_followed(tmp_path: Path, how: str) -> None:
    log = tmp_path / "log"
    log.write_text("NVRM: a long first line of the old file\n")
    async with reading(log) as (_, _, heard):
        await heard.next()
        if how == "truncated":
            os.truncate(log, 0)
            with log.open("a") as file:
                file.write("NVRM: new\n")
        else:
            (tmp_path / "next").write_text("NVRM: new\n")
            (tmp_path / "next").rename(log)
        assert await heard.next() == "new"


async def test_a_fifo_outlives_its_writers(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with reading(fifo) as (_, _, heard):
        for text in ("one", "two"):
            fifo.write_text(f"NVRM: {text}\n")
            assert await heard.next() == text


async def test_a_log_that_is_not_there_is_said_and_found_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpudiag_agent.kernel_log.reader._RETRY", 0.02)
    log = tmp_path / "log"
    async with reading(log) as (reader, _, heard):
        assert str(log) in str(reader.problem)
        await heard.change()
        log.write_text("NVRM: now\n")
        assert await heard.next() == "now"
        assert reader.problem is None


@pytest.mark.parametrize("path", [Path("/dev/null"), Path("/")])
async def test_what_is_no_kernel_log_is_a_problem(path: Path) -> None:
    async with reading(path) as (reader, _, _):
        assert str(path) in str(reader.problem)


async def test_an_endless_line_does_not_fill_the_memory(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with reading(fifo) as (_, _, heard):
        await asyncio.to_thread(fifo.write_bytes, b"NVRM: " + b"x" * 1_000_000 + b"\nNVRM: end\n")
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


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the device give these reads."""

    async def never(_descriptor: int) -> None:
        await asyncio.Event().wait()

    def hold(*reads: bytes | OSError) -> None:
        monkeypatch.setattr("gpudiag_agent.kernel_log.follow.os.read", Device(*reads).read)
        monkeypatch.setattr("gpudiag_agent.kernel_log.follow.readable", never)
        monkeypatch.setattr("gpudiag_agent.kernel_log.reader._RETRY", 0.01)

    return hold


DEVICE = Path("/dev/zero")


async def test_a_ring_that_overran_is_a_gap_and_a_reopened_one_is_not_read_twice(ring: Callable[..., None]) -> None:
    ring(
        b"3,1,5,-;NVRM: one\n",
        BrokenPipeError(),
        b"3,7,6,-;NVRM: seven\n",
        b"11,8,6,-;NVRM: of a process\n",
        b"",  # the device broke
        b"3,7,6,-;NVRM: seven\n",
        b"3,9,7,c;NVRM: nine\n",
    )
    async with reading(DEVICE) as (_, intake, heard):
        assert [await heard.next(), await heard.next(), await heard.next()] == ["one", "seven", "nine"]
        assert intake.lost_records == 5
        assert list(intake.gaps) == [Gap(boot_id=BOOT, after=1, before=7, lost=5, at=7.0)]


async def test_a_restart_goes_on_after_the_cursor(ring: Callable[..., None]) -> None:
    ring(b"3,4,5,-;NVRM: four\n", b"3,5,6,-;NVRM: five\n", b"3,6,7,-;NVRM: six\n")
    async with reading(DEVICE, resume=Position(sequence=5, microseconds=6)) as (_, intake, heard):
        assert await heard.next() == "six"
        assert not intake.gaps
        assert intake.position == Position(sequence=6, microseconds=7)


async def test_what_was_overwritten_while_the_agent_was_away_is_a_gap(ring: Callable[..., None]) -> None:
    ring(b"6,20,9,-;unrelated\n")
    async with reading(DEVICE, resume=Position(sequence=5, microseconds=6)) as (_, intake, _):
        assert [(gap.after, gap.before, gap.lost) for gap in intake.gaps] == [(5, 20, 14)]


async def test_without_a_cursor_what_was_before_the_agent_is_no_gap(ring: Callable[..., None]) -> None:
    ring(b"6,20,9,-;unrelated\n")
    async with reading(DEVICE) as (_, intake, _):
        assert not intake.gaps


async def test_a_cursor_beyond_the_log_does_not_blind_the_agent(ring: Callable[..., None]) -> None:
    ring(b"3,4,5,-;NVRM: four\n", BlockingIOError(), b"3,5,6,-;NVRM: five\n")
    async with reading(DEVICE, resume=Position(sequence=900, microseconds=900)) as (_, intake, _):
        assert intake.position.sequence == 4, "what comes next is new"
        assert [(gap.after, gap.lost) for gap in intake.gaps] == [(None, None)]


async def test_a_record_without_a_head_is_no_record_of_the_device(ring: Callable[..., None]) -> None:
    ring(b"NVRM: Xid (PCI:0000:3b:00): 79, x", b"3,0,5,NVRM: Xid (PCI:0000:3b:00): 79, x", b"3,1,5,-;NVRM: one\n")
    async with reading(DEVICE) as (_, _, heard):
        assert await heard.next() == "one"


async def test_a_file_is_gone_on_with_after_a_restart(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("NVRM: one\nNVRM: tw")
    async with reading(log) as (_, intake, heard):
        assert await heard.next() == "one"
        position = intake.position
    with log.open("a") as file:
        file.write("o\nNVRM: three\n")
    async with reading(log, resume=position) as (_, _, heard):
        assert [await heard.next(), await heard.next()] == ["two", "three"]
        assert heard.records.empty()


@pytest.mark.parametrize("how", ["rewritten", "replaced", "shorter"])
async def test_another_file_under_the_name_is_read_from_its_start(tmp_path: Path, how: str) -> None:
    log = tmp_path / "log"
    log.write_text("NVRM: one\nNVRM: two\n")
    here = log.stat()
    mark = FileMark(device=here.st_dev, inode=here.st_ino, offset=20, tail=b"NVRM: one\nNVRM: two\n".hex())
    if how == "rewritten":
        log.write_text("NVRM: new\nNVRM: and newer than before\n")
    elif how == "shorter":
        log.write_text("NVRM: new\n")
    else:
        (tmp_path / "next").write_text("NVRM: new\n")
        (tmp_path / "next").rename(log)
    async with reading(log, resume=Position(file=mark)) as (_, _, heard):
        assert await heard.next() == "new"


async def test_what_nobody_can_judge_is_left_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "log"
    log.write_text("NVRM: poison\nNVRM: fine\n")
    heard: list[str] = []

    def judge(record: Record) -> None:
        if "poison" in record.text:
            raise ZeroDivisionError
        heard.append(record.text)

    intake = Intake(now=lambda: 0.0, on_record=judge)
    reader = KernelLogReader(log, intake=intake, clock=SystemClock(), on_change=lambda: None)
    task = asyncio.create_task(reader.run())
    async with asyncio.timeout(5):
        await reader.caught_up.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert heard == ["NVRM: fine"]
    assert (intake.failures, "could not be judged" in caplog.text) == (1, True)
