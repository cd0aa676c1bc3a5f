"""The memory over restarts: written whole or not at all, soon but not at once, and never in the agent's way."""

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudiag_agent.clock import ManualClock
from gpudiag_agent.state import store as module
from gpudiag_agent.state.folder import MAX_BYTES
from gpudiag_agent.state.store import Section, StateStore


class Counter:
    """A section that remembers one number."""

    def __init__(self) -> None:
        self.value = 0
        self.dumps = 0

    def dump(self) -> object:
        self.dumps += 1
        return {"value": self.value}

    def load(self, data: object) -> None:
        self.value = msgspec.convert(data, dict[str, int])["value"]


class Life:
    """One life of an agent with one section."""

    def __init__(self, directory: Path | None) -> None:
        self.clock = ManualClock()
        self.counter = Counter()
        self.store = StateStore(directory, clock=self.clock)
        self.store.register(Section(name="counter", dump=self.counter.dump, load=self.counter.load))

    async def pass_time(self, seconds: float) -> None:
        """Turn the clock in steps, letting writes finish."""
        await self._asleep()
        for _ in range(int(seconds)):
            self.clock.advance(1)
            for _ in range(3):
                await asyncio.sleep(0)
            await self._asleep()

    async def _asleep(self) -> None:
        async with asyncio.timeout(5):
            while not self.clock.sleeping:
                await asyncio.sleep(0.001)


@asynccontextmanager
async def living(directory: Path) -> AsyncIterator[Life]:
    life = Life(directory)
    await life.store.restore()
    task = asyncio.create_task(life.store.run())
    try:
        yield life
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def kept(directory: Path) -> int | None:
    file = directory / "counter.json"
    return int(json.loads(file.read_bytes())["data"]["value"]) if file.exists() else None


async def test_what_changed_is_written_soon_once_and_found_after_a_restart(tmp_path: Path) -> None:
    async with living(tmp_path / "state") as life:
        for value in range(1, 100):
            life.counter.value = value
            life.store.mark("counter")
        assert not (tmp_path / "state").exists()
        await life.pass_time(3)
        assert (kept(tmp_path / "state"), life.counter.dumps) == (99, 1)
    async with living(tmp_path / "state") as life:
        assert life.counter.value == 99


async def test_what_nobody_told_of_is_written_within_a_minute_and_only_if_it_differs(tmp_path: Path) -> None:
    async with living(tmp_path) as life:
        life.counter.value = 1
        await life.pass_time(61)
        assert kept(tmp_path) == 1
        (tmp_path / "counter.json").unlink()
        await life.pass_time(61)
        assert kept(tmp_path) is None, "nothing changed, so nothing was written"


async def test_stopping_writes_at_once(tmp_path: Path) -> None:
    async with living(tmp_path) as life:
        life.counter.value = 5
    await life.store.close()
    assert kept(tmp_path) == 5
    assert {file.name for file in tmp_path.iterdir()} == {".lock", "counter.json"}


async def test_without_a_folder_nothing_is_kept() -> None:
    life = Life(None)
    await life.store.restore()
    life.store.mark("counter")
    await life.store.close()
    assert (life.counter.dumps, life.store.failed_writes) == (0, 0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged"),
        (b"\0" * 4096, "damaged"),
        (b'{"format":"gpudiag-agent-state","section":"counter","version":1,"data":{"val', "damaged"),
        (b'{"format":"gpudiag-agent-state","section":"counter","version":1,"data":{"value":"x"}}', "Expected `int`"),
        (b'{"format":"gpudiag-agent-state","section":"counter","version":1,"data":{}}', "value"),
        (b'{"format":"gpudiag-agent-state","section":"counter","version":2,"data":{"value":1}}', "another version"),
        (b'{"format":"gpudiag-agent-state","section":"other","version":1,"data":{"value":1}}', "another program"),
        (b"[" * 100_000, "damaged"),
        (b" " * (MAX_BYTES + 1), "larger"),
    ],
)
async def test_a_file_that_is_not_understood_is_moved_aside_and_told(
    tmp_path: Path, content: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "counter.json").write_bytes(content)
    async with living(tmp_path) as life:
        assert life.counter.value == 0
        await life.pass_time(61)
    assert (tmp_path / "counter.json.bad").read_bytes() == content
    assert kept(tmp_path) == 0
    (told,) = [record for record in caplog.records if "not understood" in record.message]
    assert reason in vars(told)["reason"]
    assert vars(told)["file"].endswith("counter.json.bad")


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
async def test_only_a_regular_file_is_read(tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "elsewhere"
    secret.write_bytes(b'{"format":"gpudiag-agent-state","section":"counter","version":1,"data":{"value":1}}')
    file = tmp_path / "counter.json"
    if kind == "symlink":
        file.symlink_to(secret)
    elif kind == "fifo":
        os.mkfifo(file)
    else:
        file.mkdir()
    async with living(tmp_path) as life:
        assert life.counter.value == 0


@given(st.binary(max_size=200))
async def test_no_file_stops_the_start(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    directory = tmp_path_factory.mktemp("state")
    (directory / "counter.json").write_bytes(content)
    life = Life(directory)
    await life.store.restore()
    assert life.counter.value == 0


def refusing(error: int) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    return refuse


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
async def test_a_write_that_fails_is_told_once_tried_again_and_harms_nothing(
    tmp_path: Path, error: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with living(tmp_path) as life:
        life.counter.value = 1
        life.store.mark("counter")
        await life.pass_time(3)
        monkeypatch.setattr("gpudiag_agent.state.folder.os.fsync", refusing(error))
        life.counter.value = 2
        life.store.mark("counter")
        await life.pass_time(120)
        assert kept(tmp_path) == 1, "the file is as it was"
        assert os.strerror(error) in str(life.store.problem)
        assert 4 <= life.store.failed_writes <= 6, "5, 10, 20, 40 s apart"
        monkeypatch.undo()
        await life.pass_time(module._LONGEST_RETRY)
        assert (kept(tmp_path), life.store.problem) == (2, None)
    said = [record.message for record in caplog.records]
    assert [message for message in said if "cannot be written" in message] == said[:1]
    assert "written again" in said[-1]


async def test_a_folder_that_cannot_be_made_does_not_stop_the_agent(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with living(tmp_path / "file" / "state") as life:
        await life.pass_time(61)
        assert life.store.failed_writes == 1


async def test_what_is_too_large_is_not_written(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.store.register(Section(name="huge", dump=lambda: "x" * MAX_BYTES, load=lambda _: None))
    await life.store.close()
    assert kept(tmp_path) == 0
    assert not (tmp_path / "huge.json").exists()
    assert "more than" in str(life.store.problem) or life.store.failed_writes == 1


async def test_of_two_agents_one_writes(tmp_path: Path) -> None:
    async with living(tmp_path) as first, living(tmp_path) as second:
        first.counter.value, second.counter.value = 1, 2
        first.store.mark("counter")
        await first.pass_time(3)
        second.store.mark("counter")
        await second.pass_time(3)
        assert "another agent" in str(second.store.problem)
        assert kept(tmp_path) == 1
        await first.store.close()
        await second.pass_time(module._RETRY + 2)
        assert (kept(tmp_path), second.store.problem) == (2, None)
    await second.store.close()
