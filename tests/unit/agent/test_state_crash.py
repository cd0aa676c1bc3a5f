"""Killed at any moment, between any two writes: each kernel event counts exactly once, and nothing is lost."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from gpudiag_agent.checks.xid.ledger import XIDLedger
from gpudiag_agent.clock import ManualClock
from gpudiag_agent.kernel_log.boot import Boot, KernelTimes
from gpudiag_agent.kernel_log.decode import Decoder, KernelEvent
from gpudiag_agent.kernel_log.intake import Gap, Intake, Position
from gpudiag_agent.kernel_log.memory import KernelLogMemory
from gpudiag_agent.kernel_log.record import Record
from gpudiag_agent.state.store import Section, StateStore
from gpudiag_api import wire

ZERO = 1_800_000_000.0
BOOT, NEXT_BOOT = "11111111-2222-3333-4444-555555555555", "66666666-2222-3333-4444-555555555555"
LOST = [
    "NVRM: The NVIDIA GPU 0000:18:00.0",
    "NVRM: (PCI ID: 10de:2330) installed in this system has",
    "NVRM: fallen off the bus and is not responding to commands.",
]


def ring(*texts: str, first: int = 1) -> list[bytes]:
    return [f"3,{n},{1_000_000 * n},-;{text}".encode() for n, text in enumerate(texts, first)]


def xid(code: int) -> str:
    return f"NVRM: Xid (PCI:0000:3b:00): {code}, pid=17, name=train, Ch 00000001"


LOG = ring(xid(31), "unrelated", xid(31), xid(79), xid(31), *LOST, xid(31))
EXPECTED = {31: 4, 79: 1}


class Killed(BaseException):
    """The process is gone."""


class Tally:
    """A history that believes everything it is told: what the cursor does not keep from it counts twice."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def hear(self, event: KernelEvent) -> None:
        what = str(getattr(event.what, "code", type(event.what).__name__))
        self.counts[what] = self.counts.get(what, 0) + 1

    def dump(self) -> bytes:
        return msgspec.json.encode(self.counts)

    def load(self, data: bytes, *, now: float) -> str | None:
        assert now > 0
        self.counts = msgspec.json.decode(data)
        return None


class Life:
    """One life of the parts of an agent that kernel records pass through, with both kinds of history."""

    def __init__(self, directory: Path, *, boot: str = BOOT) -> None:
        clock = ManualClock(ZERO + 1000)
        self.ledger, self.tally = XIDLedger(boot), Tally()
        self.decoder = Decoder(Boot(boot, ZERO), times=KernelTimes(lambda: ZERO))
        self.intake = Intake(boot_id=boot, now=clock.now, on_record=self._record)
        memory = KernelLogMemory(intake=self.intake, decoder=self.decoder, history=self.ledger, now=clock.now)
        naive = KernelLogMemory(intake=self.intake, decoder=self.decoder, history=self.tally, now=clock.now)
        self.store = StateStore(directory, clock=clock)
        memory = naive if directory.name.startswith("naive") else memory
        self.store.register(Section(name="kernel-log", dump=memory.dump, load=memory.load))

    def _record(self, record: Record) -> None:
        event = self.decoder.feed(record, ZERO + 1000)
        if event is not None:
            self.ledger.hear(event)
            self.tally.hear(event)

    async def read(self, log: list[bytes], *, step: Callable[[], None] = lambda: None, write_every: int = 2) -> None:
        """The whole ring, as the device gives it after it was opened, with writes in between."""
        await self.store.restore()
        for number, raw in enumerate(log, 1):
            step()
            self.intake.device(raw)
            if number % write_every == 0:
                await self.store.close()
        await self.store.close()

    @property
    def counts(self) -> dict[int, int]:
        return {one.code: one.count for one in self.ledger.occurrences}


class Mortal:
    """Dies at one step of its life: before a record, or before or after a system call that writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, dies_at: int) -> None:
        self.steps = 0
        self._dies_at = dies_at
        for name in ("open", "fsync", "replace"):
            monkeypatch.setattr(os, name, self._watched(getattr(os, name)))

    def step(self) -> None:
        self.steps += 1
        if self.steps == self._dies_at:
            raise Killed

    def _watched(self, call: Callable[..., object]) -> Callable[..., object]:
        def watched(*args: object, **options: object) -> object:
            if self.steps >= self._dies_at:
                return call(*args, **options)
            self.step()
            result = call(*args, **options)
            self.step()
            return result

        return watched


async def test_a_life_without_a_death_counts_each_event_once(tmp_path: Path) -> None:
    life = Life(tmp_path)
    await life.read(LOG)
    assert life.counts == EXPECTED
    assert list(life.ledger.lost) == ["0000:18:00.0"]


@pytest.mark.parametrize("kind", ["naive", "ledger"])
async def test_whenever_it_is_killed_each_event_counts_exactly_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with monkeypatch.context() as patch:
        whole = Mortal(patch, dies_at=sys.maxsize)
        await Life(tmp_path / f"{kind}-measured").read(LOG, step=whole.step)
    assert whole.steps > 50
    for moment in range(1, whole.steps + 1):
        directory = tmp_path / f"{kind}-{moment}"
        life = Life(directory)
        with monkeypatch.context() as patch:
            mortal = Mortal(patch, dies_at=moment)
            with pytest.raises(Killed):
                await life.read(LOG, step=mortal.step)
        assert life.store._folder is not None
        life.store._folder.close()  # The kernel lets go of the lock of a process that died.
        again = Life(directory)
        await again.read(LOG)
        if kind == "naive":
            assert again.tally.counts == {"31": 4, "79": 1, "LostLine": 1}, f"killed at step {moment}"
        else:
            assert again.counts == EXPECTED, f"killed at step {moment}"
            assert list(again.ledger.lost) == ["0000:18:00.0"], f"killed at step {moment}"
        assert not again.intake.gaps
        assert not list(directory.glob("*.bad")), "no file was ever half written"


async def test_a_second_start_adds_nothing(tmp_path: Path) -> None:
    for _ in range(3):
        life = Life(tmp_path)
        await life.read(LOG)
        assert life.counts == EXPECTED


async def test_what_came_while_the_agent_was_away_is_added(tmp_path: Path) -> None:
    await Life(tmp_path).read(LOG)
    life = Life(tmp_path)
    await life.read([*LOG, *ring(xid(31), first=len(LOG) + 1)])
    assert life.counts == {31: 5, 79: 1}


async def test_a_lost_gpu_told_in_three_lines_is_whole_over_a_restart(tmp_path: Path) -> None:
    log = ring(*LOST)
    await Life(tmp_path).read(log[:2])
    life = Life(tmp_path)
    await life.read(log)
    assert list(life.ledger.lost) == ["0000:18:00.0"]


async def test_in_a_new_boot_the_log_is_read_from_its_beginning(tmp_path: Path) -> None:
    await Life(tmp_path).read(LOG)
    life = Life(tmp_path, boot=NEXT_BOOT)
    await life.read(ring(xid(48)))
    assert life.counts == {48: 1}
    assert life.intake.position == Position(sequence=1, microseconds=1_000_000)
    assert len({burst.boot for burst in life.ledger.history}) == 2, "for the repeat rules the history goes on"


async def test_where_the_boot_cannot_be_told_the_cursor_is_not_believed(tmp_path: Path) -> None:
    await Life(tmp_path, boot="").read(LOG)
    life = Life(tmp_path, boot="")
    await life.store.restore()
    assert life.intake.position == Position()


async def test_a_history_that_cannot_be_used_takes_the_cursor_with_it(tmp_path: Path) -> None:
    await Life(tmp_path).read(LOG)
    file = tmp_path / "kernel-log.json"
    stored = msgspec.json.decode(file.read_bytes())
    stored["data"]["history"]["version"] = 99
    file.write_bytes(msgspec.json.encode(stored))
    life = Life(tmp_path)
    await life.read(LOG)
    assert life.counts == EXPECTED, "read again from the beginning"
    assert file.with_suffix(".json.bad").exists()


async def test_gaps_survive_and_are_told_once(tmp_path: Path) -> None:
    await Life(tmp_path).read(LOG)
    for _ in range(2):
        life = Life(tmp_path)
        await life.read(ring(xid(31), first=100))
        (gap,) = life.intake.gaps
        assert gap == Gap(boot_id=BOOT, after=len(LOG), before=100, lost=100 - len(LOG) - 1, at=ZERO + 1000)
    for _ in range(40):
        last = life.intake.position.sequence or 0
        life.intake.device(ring("x", first=last + 5)[0])
    assert len(life.intake.gaps) == 16


class Process:
    """A real agent over a log file."""

    def __init__(self, folder: Path, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        options = ["--node-name", "n", "--host", "127.0.0.1", "--port", str(port), "--source", "simulated"]
        options += ["--kmsg", str(folder / "log"), "--state-dir", str(folder / "state"), "--scenario", "t4-1"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GPUDIAG_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gpudiag_agent", *options], stderr=subprocess.DEVNULL, env=environment
        )

    def counts(self, *, expect: int) -> dict[int, int]:
        """XIDs of the report, once it tells of so many occurrences, or when it should have."""
        until = time.monotonic() + 10
        while True:
            counts: dict[int, int] = {}
            try:
                with urllib.request.urlopen(f"{self._url}/v1/report", timeout=5) as answer:
                    counts = {event.code: event.count for event in wire.decode(answer.read()).xids}
            except OSError:
                pass
            if sum(counts.values()) >= expect or time.monotonic() > until:
                return counts
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(5)


@pytest.fixture
def start(tmp_path: Path, free_port: int) -> Iterator[Callable[[], Process]]:
    started: list[Process] = []

    def begin() -> Process:
        started.append(Process(tmp_path, free_port))
        return started[-1]

    yield begin
    for one in started:
        one.kill()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.slow
async def test_a_real_agent_that_is_killed_again_and_again_counts_once(
    tmp_path: Path, start: Callable[[], Process]
) -> None:
    log = tmp_path / "log"
    expected = 0
    log.touch()
    # Before the first write, after it, and in the midst of a burst.
    for wait in (0.0, 2.5, 0.7):
        agent = start()
        with log.open("a") as file:
            for _ in range(3):
                file.write(f"{xid(31)}\n{xid(79)}\n")
                expected += 2
        counts = await asyncio.to_thread(agent.counts, expect=expected)
        assert counts == {31: expected // 2, 79: expected // 2}
        await asyncio.sleep(wait)
        agent.kill()
    assert await asyncio.to_thread(start().counts, expect=expected) == {31: expected // 2, 79: expected // 2}
