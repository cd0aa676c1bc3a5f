"""A look at the host that hangs holds up nothing; what it showed before counts for a minute."""

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest

from gpudiag_agent.clock import ManualClock
from gpudiag_agent.host.facts import HostFacts
from gpudiag_agent.host.watch import HostWatch


class Host:
    """A host whose files hang when the test says so."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.looks = 0

    def scan(self) -> HostFacts:
        self.looks += 1
        number = self.looks
        assert self.gate.wait(10)
        return HostFacts(nvswitches=number)


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.gate.set()


async def test_every_look_is_a_new_one(host: Host) -> None:
    watch = HostWatch(host.scan, clock=ManualClock())
    assert [(await watch.look()).nvswitches for _ in range(3)] == [1, 2, 3]


async def test_a_look_that_hangs(host: Host) -> None:
    clock = ManualClock()
    watch = HostWatch(host.scan, clock=clock, patience=0.02)
    assert (await watch.look()).nvswitches == 1
    host.gate.clear()
    assert (await watch.look()).nvswitches == 1, "what was seen last"
    clock.advance(59)
    assert (await watch.look()).nvswitches == 1
    clock.advance(1)
    assert await watch.look() == HostFacts(), "too old to say anything"
    assert host.looks == 2, "nothing is started beside a look that hangs"
    host.gate.set()
    async with asyncio.timeout(5):
        while (await watch.look()).nvswitches is None:
            pass
    assert host.looks >= 2


async def test_a_fault_of_the_agent_is_unknown_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> HostFacts:
        raise RuntimeError("a bug of the agent")

    watch = HostWatch(broken, clock=ManualClock())
    with caplog.at_level(logging.ERROR):
        assert await watch.look() == HostFacts()
    assert "looking at the host failed" in caplog.text
    assert await watch.look() == HostFacts()


def test_the_loop_may_end_before_the_look(host: Host) -> None:
    host.gate.clear()

    async def give_up() -> HostFacts:
        return await HostWatch(host.scan, clock=ManualClock(), patience=0.01).look()

    assert asyncio.run(give_up()) == HostFacts()
    before = threading.active_count()
    host.gate.set()
    for thread in threading.enumerate():
        if thread.name == "host":
            thread.join(5)
    assert threading.active_count() <= before
