"""A process that stood still blames no agent for it."""

import asyncio
import time
from collections.abc import Callable

import pytest
import uvloop
from tests.unit.operator.test_agent_client import GOOD, agent, answer, fetch

from gpudiag_api.vocabulary import NotRead
from gpudiag_operator.collect.agent_client import AgentClient
from gpudiag_operator.collect.outcome import Answer, FetchError
from gpudiag_operator.collect.routes import DirectRoute
from gpudiag_operator.collect.settings import CollectSettings

SECONDS = 0.5


class Pausable(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward, as that of a machine which was paused."""

    forward = 0.0

    def time(self) -> float:
        return super().time() + self.forward


async def polled(pause: Callable[[], None], *, answers: bool) -> tuple[Answer, float]:
    """A poll during which everything stands still; gives the answer, and for how long the client says it stood."""
    asked = asyncio.Event()

    async def late(_: str, writer: asyncio.StreamWriter) -> None:
        asked.set()
        while not paused:
            await asyncio.sleep(0.01)
        if answers:
            writer.write(answer(GOOD))
        else:
            await asyncio.Event().wait()

    paused = False
    client = AgentClient(CollectSettings(node_timeout=SECONDS), route=DirectRoute(9810))
    try:
        async with agent(late) as (_, pod):
            reading = asyncio.create_task(fetch(client, pod, seconds=SECONDS))
            await asked.wait()
            await asyncio.sleep(0)
            pause()
            paused = True
            return await reading, client._standstill.seconds
    finally:
        await client.close()


@pytest.mark.parametrize("seconds", [2.0, 3600.0])
def test_an_answer_that_comes_after_it_is_taken(seconds: float) -> None:
    with asyncio.Runner(loop_factory=Pausable) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Pausable)

        def pause() -> None:
            loop.forward += seconds

        said, stood = runner.run(polled(pause, answers=True))
        assert said.report is not None
        assert seconds - 1 < stood <= seconds


def test_so_it_is_on_the_loop_of_production() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        said, stood = runner.run(polled(lambda: time.sleep(1.4), answers=True))
        assert said.report is not None
        assert stood > 1


def test_who_then_says_nothing_still_runs_out_of_time() -> None:
    with asyncio.Runner(loop_factory=Pausable) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Pausable)

        def pause() -> None:
            loop.forward += 60

        with pytest.raises(FetchError) as error:
            runner.run(polled(pause, answers=False))
        assert error.value.reason is NotRead.TIMEOUT


def test_a_loop_that_is_late_as_loops_are_changes_nothing() -> None:
    with asyncio.Runner(loop_factory=Pausable) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Pausable)

        def pause() -> None:
            loop.forward += 0.9

        with pytest.raises(FetchError):
            runner.run(polled(pause, answers=True))
