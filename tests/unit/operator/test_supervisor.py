"""The supervisor: all parts run, or none."""

import asyncio
import os
import signal

import pytest

from gpudiag_operator.supervisor import PartDiedError, Supervisor


async def forever() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise ValueError("a bug")


async def returns() -> None:
    pass


async def test_a_signal_ends_it() -> None:
    supervisor = Supervisor()
    supervisor.catch_signals()
    supervisor.start("part", forever())
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(supervisor.or_stop(forever()), 5)
    await supervisor.cancel_all()


async def test_a_part_that_fails_is_named_with_its_cause() -> None:
    supervisor = Supervisor()
    supervisor.start("good", forever())
    supervisor.start("bad", fails())
    with pytest.raises(PartDiedError, match=r"bad ended: ValueError\('a bug'\)"):
        await supervisor.or_stop(forever())
    await supervisor.cancel_all()


async def test_a_part_that_merely_ends_is_as_bad() -> None:
    supervisor = Supervisor()
    supervisor.start("part", returns())
    with pytest.raises(PartDiedError, match="part ended: None"):
        await supervisor.or_stop(forever())
    await supervisor.cancel_all()


async def test_work_of_the_start_is_awaited() -> None:
    assert await Supervisor().or_stop(returns())


async def test_work_of_the_start_ends_with_a_stop() -> None:
    supervisor = Supervisor()
    asyncio.get_running_loop().call_soon(supervisor.stop.set)
    assert not await supervisor.or_stop(forever())


async def test_work_of_the_start_ends_when_a_part_dies() -> None:
    supervisor = Supervisor()
    supervisor.start("bad", fails())
    with pytest.raises(PartDiedError):
        await supervisor.or_stop(forever())
    await supervisor.cancel_all()


async def test_work_that_fails_says_so() -> None:
    with pytest.raises(ValueError, match="a bug"):
        await Supervisor().or_stop(fails())


async def test_a_part_that_will_not_end_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gpudiag_operator.supervisor.STOP_SECONDS", 0.01)
    released = asyncio.Event()

    async def stubborn() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    supervisor = Supervisor()
    supervisor.start("stubborn", stubborn())
    await asyncio.sleep(0)
    await supervisor.cancel_all()
    assert "stubborn did not end in time" in caplog.text
    released.set()
    await asyncio.sleep(0)
