"""The journal in place of /dev/kmsg: its export format, what counts as the kernel's, and the child that reads it."""

import asyncio
import os
import tracemalloc
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.clock import SystemClock
from gpudiag_agent.kernel_log.intake import Gap, Intake, Position
from gpudiag_agent.kernel_log.journal import MISSED, Entry, ExportParser
from gpudiag_agent.kernel_log.reader import KernelLogReader
from gpudiag_agent.kernel_log.record import Record

BOOT = "11111111-2222-3333-4444-555555555555"


def exported(message: bytes, *, number: int = 1, binary: bool = False, **fields: str) -> bytes:
    """An entry as journalctl writes it."""
    given = {
        "__CURSOR": f"s=ab;i={number:x}",
        "__REALTIME_TIMESTAMP": "1800000000000000",
        "__MONOTONIC_TIMESTAMP": str(1000 * number + 7),
        "_BOOT_ID": BOOT.replace("-", ""),
        "_TRANSPORT": "kernel",
        "SYSLOG_FACILITY": "0",
        "_SOURCE_MONOTONIC_TIMESTAMP": str(1000 * number),
        **fields,
    }
    text = b"".join(f"{name}={value}\n".encode() for name, value in given.items())
    if binary:
        return text + b"MESSAGE\n" + len(message).to_bytes(8, "little") + message + b"\n\n"
    return text + b"MESSAGE=" + message + b"\n\n"


def only(entry: bytes) -> Entry:
    (one,) = ExportParser().feed(entry)
    return one


class Heard:
    """An intake and what it passed on."""

    def __init__(self, position: Position | None = None) -> None:
        self.texts: list[str] = []
        self.intake = Intake(boot_id=BOOT, now=lambda: 7.0, on_record=lambda record: self.texts.append(record.text))
        if position is not None:
            self.intake.resume(position)

    def take(self, *entries: bytes) -> "Heard":
        self.intake.entries(ExportParser().feed(b"".join(entries)))
        return self


def test_an_entry_is_a_record_of_the_kernel() -> None:
    assert only(exported(b"NVRM: x")).record() == Record("NVRM: x", microseconds=1000)


def test_a_message_of_several_lines_is_one_record() -> None:
    entry = only(exported(b"NVRM: a\nNVRM: b\x1b", binary=True))
    assert entry.record() == Record("NVRM: a\nNVRM: b ", microseconds=1000)


@pytest.mark.parametrize(
    "forged",
    [
        {"_TRANSPORT": "journal"},
        {"_TRANSPORT": "syslog"},
        {"SYSLOG_FACILITY": "1"},  # A process wrote it to /dev/kmsg.
        {"SYSLOG_FACILITY": ""},
    ],
)
def test_what_a_process_wrote_is_no_kernel_record(forged: dict[str, str]) -> None:
    entry = only(exported(b"NVRM: x"))
    fields = {**entry.fields, **{name.encode(): value.encode() for name, value in forged.items()}}
    assert entry.record() is not None
    assert Entry(fields).record() is None


def test_an_entry_of_another_boot_is_left_out() -> None:
    assert Heard().take(exported(b"NVRM: x", _BOOT_ID="0" * 32)).texts == []


def test_without_the_kernels_stamp_journalds_own_is_taken() -> None:
    assert only(exported(b"NVRM: x", _SOURCE_MONOTONIC_TIMESTAMP="")).microseconds == 1007


def test_the_cursor_is_that_of_the_last_entry() -> None:
    heard = Heard().take(exported(b"NVRM: x", number=1), exported(b"of no concern", number=10))
    assert heard.intake.position == Position(journal="s=ab;i=a", microseconds=10_000)


def test_after_the_device_the_journal_goes_on_where_that_was_left() -> None:
    heard = Heard(Position(sequence=9, microseconds=2000))
    assert heard.take(*(exported(b"NVRM: %d" % n, number=n) for n in (1, 2, 3, 4))).texts == ["NVRM: 3", "NVRM: 4"]


def test_after_the_journal_the_device_goes_on_where_that_was_left() -> None:
    heard = Heard(Position(journal="s=ab;i=2", microseconds=2000))
    for number in (1, 2, 3):
        heard.intake.device(b"3,%d,%d,-;NVRM: %d" % (number, 1000 * number, number))
    assert (heard.texts, heard.intake.position.sequence) == (["NVRM: 3"], 3)


def test_within_one_life_too_nothing_counts_twice() -> None:
    heard = Heard()
    heard.intake.turn("device")
    heard.intake.device(b"3,1,1000,-;NVRM: 1")
    heard.intake.turn("journal")
    heard.take(exported(b"NVRM: 1", number=1), exported(b"NVRM: 2", number=2))
    heard.intake.turn("device")
    heard.intake.device(b"3,2,2000,-;NVRM: 2")
    heard.intake.device(b"3,3,3000,-;NVRM: 3")
    heard.intake.turn("journal")
    heard.take(exported(b"NVRM: 3", number=3), exported(b"NVRM: 4", number=4))
    assert heard.texts == ["NVRM: 1", "NVRM: 2", "NVRM: 3", "NVRM: 4"]
    assert not heard.intake.gaps


def test_one_that_is_opened_again_goes_by_its_own_cursor() -> None:
    heard = Heard()
    for number in (1, 2):
        heard.intake.turn("device")
        heard.intake.device(b"3,%d,1000,-;NVRM: %d" % (number, number))
    assert heard.texts == ["NVRM: 1", "NVRM: 2"], "two records of one microsecond"


async def test_a_device_that_breaks_is_followed_by_the_journal(
    tmp_path: Path, journal: "Journal", monkeypatch: pytest.MonkeyPatch
) -> None:
    async def device(_: int, intake: Intake, **__: object) -> None:
        intake.device(b"3,1,1000,-;NVRM: 1")
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("gpudiag_agent.kernel_log.follow.device", device)
    journal.say(exported(b"NVRM: 1", number=1) + exported(b"NVRM: 2", number=2))
    async with Reading(Path("/dev/null"), journal.folder) as now:
        assert now.heard.texts == ["NVRM: 1", "NVRM: 2"]


def test_what_journald_missed_is_a_gap() -> None:
    heard = Heard().take(exported(b"Missed 12 kernel messages", _TRANSPORT="driver", MESSAGE_ID=MISSED))
    assert list(heard.intake.gaps) == [Gap(boot_id=BOOT, lost=12, at=7.0)]
    assert heard.intake.lost_records == 12


def test_nobody_but_journald_can_say_so() -> None:
    assert not Heard().take(exported(b"Missed 12 kernel messages", MESSAGE_ID=MISSED)).intake.gaps


ENTRIES = b"".join(exported(b"NVRM: %d\n" % n, number=n, binary=n % 2 == 0) for n in range(1, 6)).replace(
    b"_TRANSPORT", b"_COMM=x\n_TRANSPORT"
)


@given(st.lists(st.integers(0, len(ENTRIES)), max_size=12))
def test_where_the_stream_is_cut_makes_no_difference(cuts: list[int]) -> None:
    parser, entries = ExportParser(), []
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(ENTRIES)], strict=True):
        entries += parser.feed(ENTRIES[begin:end])
        assert 0 <= parser.pending <= end
    assert entries == ExportParser().feed(ENTRIES)
    assert parser.pending == 0


PIECES = st.sampled_from(
    [
        b"\n",
        b"\n\n",
        b"MESSAGE",
        b"MESSAGE=x\n",
        b"MESSAGE\n",
        b"\xff" * 8,
        (9).to_bytes(8, "little"),
        b"_TRANSPORT=k\n",
    ]
)


@given(st.lists(st.binary(max_size=40) | PIECES, max_size=30))
def test_nothing_breaks_the_parser(chunks: list[bytes]) -> None:
    parser = ExportParser()
    for chunk in chunks:
        for entry in parser.feed(chunk):
            entry.record()
            assert entry.missed is None or entry.missed >= 0
            assert entry.cursor is None or len(entry.cursor) <= 512


@given(st.binary(max_size=200))
def test_after_nonsense_and_two_empty_lines_entries_are_read_again(nonsense: bytes) -> None:
    parser = ExportParser()
    parser.feed(b"MESSAGE\n" + b"\xff" * 8 + nonsense + b"\n\n")
    parser.feed(b"\n" * 512)  # Whatever the nonsense asked for ends, unless it asked for more.
    if parser._name is None:
        assert [entry.fields[b"MESSAGE"] for entry in parser.feed(exported(b"NVRM: x"))][-1:] == [b"NVRM: x"]


@pytest.mark.parametrize("head", [b"MESSAGE=", b"OTHER=", b"MESSAGE\n" + (700 << 20).to_bytes(8, "little"), b"x"])
def test_memory_is_bounded_whatever_comes(head: bytes) -> None:
    parser, chunk = ExportParser(), b"x" * (1 << 16)
    tracemalloc.start()
    parser.feed(head)
    for _ in range(200):
        parser.feed(chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * len(chunk)


PROGRAM = """\
#!/bin/sh
echo "$@" >> "{here}/calls"
echo $$ >> "{here}/pids"
cat "{here}/entries"
if [ -e "{here}/complaint" ]; then cat "{here}/complaint" >&2; exit 1; fi
exec sleep 1000
"""


class Journal:
    """A folder with a journal, and a journalctl that gives these entries."""

    def __init__(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.here = here
        self.folder = here / "journal"
        (self.folder / "machine").mkdir(parents=True)
        (self.folder / "machine" / "system.journal").touch()
        self.say()
        program = here / "bin" / "journalctl"
        program.parent.mkdir()
        program.write_text(PROGRAM.format(here=here))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        monkeypatch.setattr("gpudiag_agent.kernel_log.reader._RETRY", 0.02)
        monkeypatch.setattr("gpudiag_agent.kernel_log.journalctl._QUIET", 0.15)

    def say(self, *entries: bytes) -> None:
        (self.here / "entries").write_bytes(b"".join(entries))

    @property
    def calls(self) -> list[str]:
        return (self.here / "calls").read_text().splitlines()


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    return Journal(tmp_path, monkeypatch)


class Reading:
    """A reader at work."""

    def __init__(self, kmsg: Path | None, path: Path, position: Position | None = None) -> None:
        self.heard = Heard(position)
        self.reader = KernelLogReader(
            kmsg, journal=path, intake=self.heard.intake, clock=SystemClock(), on_change=lambda: None
        )

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.reader.run())
        async with asyncio.timeout(5):
            await self.reader.caught_up.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_where_kmsg_cannot_be_read_the_journal_is(tmp_path: Path, journal: Journal) -> None:
    journal.say(exported(b"NVRM: x"))
    async with Reading(tmp_path / "absent", journal.folder) as now:
        assert (now.heard.texts, now.reader.problem) == (["NVRM: x"], None)
    (call,) = journal.calls
    assert f"--directory {journal.folder} --output export --follow --no-tail" in call
    assert f"_BOOT_ID={BOOT.replace('-', '')} _TRANSPORT=kernel" in call
    assert "--after-cursor" not in call
    pid = int((journal.here / "pids").read_text())
    assert not Path(f"/proc/{pid}").exists(), "the child ends with the agent"


async def test_after_a_restart_the_journal_goes_on_after_its_cursor(journal: Journal) -> None:
    async with Reading(None, journal.folder, Position(journal="s=ab;i=1", microseconds=1000)):
        pass
    assert "--after-cursor=s=ab;i=1" in journal.calls[0]


async def test_a_cursor_that_journald_does_not_know_is_replaced_by_the_time(journal: Journal) -> None:
    (journal.here / "complaint").write_text("Failed to seek to cursor: Invalid argument\n")
    async with Reading(None, journal.folder, Position(journal="gone", microseconds=1000)) as now:
        assert "Failed to seek to cursor: Invalid argument" in str(now.reader.problem)
        journal.say(exported(b"NVRM: one", number=1), exported(b"NVRM: two", number=2))
        (journal.here / "complaint").unlink()
        async with asyncio.timeout(5):
            while now.heard.texts != ["NVRM: two"]:
                await asyncio.sleep(0.01)
        assert now.reader.problem is None


async def test_a_child_that_ends_is_started_again_more_and_more_slowly(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    (journal.here / "complaint").write_text("no\n")
    pauses: list[float] = []

    class Hurried(SystemClock):
        async def sleep(self, seconds: float) -> None:
            pauses.append(seconds)
            await asyncio.sleep(0 if len(pauses) < 5 else 1000)

    monkeypatch.setattr("gpudiag_agent.kernel_log.reader._RETRY", 2.0)
    heard = Heard()
    reader = KernelLogReader(None, journal=journal.folder, intake=heard.intake, clock=Hurried(), on_change=lambda: None)
    task = asyncio.create_task(reader.run())
    async with asyncio.timeout(10):
        while len(pauses) < 5:
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert pauses == [4.0, 8.0, 16.0, 32.0, 60.0]
    pids = (journal.here / "pids").read_text().split()
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


@pytest.mark.parametrize("what", ["no program", "no journal", "no folder"])
async def test_without_any_log_the_reason_says_what_was_tried_and_what_to_do(
    tmp_path: Path, journal: Journal, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = journal.folder
    if what == "no program":
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    elif what == "no journal":
        (folder / "machine" / "system.journal").unlink()
    else:
        folder = tmp_path / "absent folder"
    async with Reading(tmp_path / "absent", folder) as now:
        problem = str(now.reader.problem)
    assert str(tmp_path / "absent") in problem
    assert f"nor the journal in {folder}" in problem
    assert {"no program": "journalctl", "no journal": "no journal", "no folder": "No such file"}[what] in problem
    assert "--journal" in problem


async def test_an_export_file_is_followed(tmp_path: Path) -> None:
    export = tmp_path / "export"
    export.write_bytes(exported(b"NVRM: one", number=1))
    async with Reading(None, export) as now:
        with export.open("ab") as file:
            file.write(exported(b"NVRM: two", number=2))
        async with asyncio.timeout(5):
            while len(now.heard.texts) < 2:
                await asyncio.sleep(0.01)
        position = now.heard.intake.position
    with export.open("ab") as file:
        file.write(exported(b"NVRM: three", number=3))
    async with Reading(None, export, position) as now:
        assert now.heard.texts == ["NVRM: three"]
