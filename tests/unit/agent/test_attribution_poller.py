"""Asking beside the sampling: what is kept, what is dropped, and what the report says about it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from gpudiag_agent.assess import Assessor
from gpudiag_agent.attribution.kubelet import UnavailableError
from gpudiag_agent.attribution.model import Device, Held, Owner, PodDevices, Usage
from gpudiag_agent.attribution.poller import Attribution
from gpudiag_agent.attribution.procfs import Resolver
from gpudiag_agent.checks.base import Memoryless, Problem, View, Witness
from gpudiag_agent.clock import ManualClock
from gpudiag_agent.sample import GPUSample, MIGDevice, Sample
from gpudiag_api.meaning import etag
from gpudiag_api.vocabulary import Capability, Check, Health
from gpudiag_api.wire import AgentInfo, Report

HELD = Held(device=Device(gpu_uuid="GPU-0"), namespace="ml", pod="train", container="c")
ANSWER = PodDevices(held=(HELD,), allocatable_gpus=8)
START = 1_800_000_000.0
MIG = tuple(MIGDevice(uuid=f"MIG-{number}", gpu_instance=number, compute_instance=0) for number in (1, 2))


class Kubelet:
    """Answers, refuses or breaks, as the test says."""

    def __init__(self) -> None:
        self.says: PodDevices | Exception = ANSWER
        self.asked = 0

    async def ask(self) -> PodDevices:
        self.asked += 1
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


class Bench:
    """An attribution over a kubelet that is not there and a procfs that is a folder."""

    def __init__(self, proc: Path, *, pids: Sequence[int] = (), ask: bool = True, look: bool = True) -> None:
        self.kubelet, self.clock, self.seen = Kubelet(), ManualClock(START), list[Usage]()
        self.proc = proc
        self.attribution = Attribution(
            ask=self.kubelet.ask if ask else None,
            resolver=Resolver(clock=self.clock, booted_at=START - 1000, proc=proc, pod_logs=proc) if look else None,
            pids=lambda: pids,
            on_look=self.seen.append,
            clock=self.clock,
            interval=10.0,
        )

    def process(self, pid: int, name: str) -> None:
        (self.proc / str(pid)).mkdir()
        (self.proc / str(pid) / "stat").write_text(f"{pid} ({name}) S {'0 ' * 18}5 0\n")

    async def turn(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            await settle()
            self.clock.advance(1.0)
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Bench]]:
    """Makes a running bench: `start(pids=(7,), ask=False)`."""
    tasks = []

    def make(**options: object) -> Bench:
        bench = Bench(tmp_path, **options)  # type: ignore[arg-type]
        tasks.append(asyncio.create_task(bench.attribution.run()))
        return bench

    yield make
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class TestTheKubelet:
    async def test_is_asked_every_interval(self, start: Callable[..., Bench]) -> None:
        bench = start()
        await bench.turn(35)
        assert bench.kubelet.asked == 4
        assert bench.attribution.ready.is_set()
        assert bench.attribution.usage.pods == ANSWER

    async def test_is_asked_on_demand_but_not_more_than_once_a_second(self, start: Callable[..., Bench]) -> None:
        bench = start()
        await bench.turn(5)
        assert bench.kubelet.asked == 1
        for _ in range(1000):
            bench.attribution.refresh()
        await bench.turn(3)
        assert bench.kubelet.asked == 2
        for _ in range(5):
            bench.attribution.refresh()
            await settle()
        assert bench.kubelet.asked == 3

    async def test_that_restarts_changes_nothing(self, start: Callable[..., Bench]) -> None:
        bench = start()
        await bench.turn(1)
        bench.kubelet.says = UnavailableError("gone.")
        await bench.turn(20)
        assert bench.kubelet.asked == 3
        assert {(usage.pods, usage.pods_problem) for usage in bench.seen} == {(ANSWER, None)}
        assert {usage.pods_at for usage in bench.seen} == {START}, "it is known how old the answer is"

    async def test_that_restarts_twice_changes_nothing_either(self, start: Callable[..., Bench]) -> None:
        bench = start()
        await bench.turn(1)
        for _ in range(2):
            bench.kubelet.says = UnavailableError("gone.")
            await bench.turn(20)
            bench.kubelet.says = ANSWER
            await bench.turn(10)
        assert {usage.pods_problem for usage in bench.seen} == {None}

    async def test_that_stays_away_is_a_gap(self, start: Callable[..., Bench]) -> None:
        bench = start()
        await bench.turn(1)
        bench.kubelet.says = UnavailableError("gone.")
        await bench.turn(40)
        assert (bench.attribution.usage.pods, bench.attribution.usage.pods_problem) == (None, "gone.")
        bench.kubelet.says = ANSWER
        await bench.turn(10)
        assert (bench.attribution.usage.pods, bench.attribution.usage.pods_problem) == (ANSWER, None)

    async def test_that_never_answered_is_a_gap_at_once(self, start: Callable[..., Bench]) -> None:
        bench = start()
        bench.kubelet.says = UnavailableError("not there.")
        await bench.turn(1)
        assert bench.seen[0].pods_problem == "not there."

    async def test_and_a_mistake_of_ours_end_nothing(
        self, start: Callable[..., Bench], caplog: pytest.LogCaptureFixture
    ) -> None:
        bench = start()
        bench.kubelet.says = KeyError("oops")
        await bench.turn(15)
        assert bench.kubelet.asked == 2
        assert "its log says how" in str(bench.attribution.usage.pods_problem)
        assert "asking the kubelet failed" in caplog.text

    async def test_that_is_not_to_be_asked_is_no_gap(self, start: Callable[..., Bench]) -> None:
        bench = start(ask=False, look=False)
        await bench.turn(1)
        assert bench.attribution.usage == Usage()


class TestTheProcesses:
    async def test_are_looked_up_with_every_look(self, start: Callable[..., Bench]) -> None:
        bench = start(pids=(7, 8))
        bench.process(2, "kthreadd")
        bench.process(7, "python3")
        await bench.turn(1)
        assert bench.attribution.usage.owners == {7: Owner(pid=7, name="python3", state="S", state_since=START)}
        owner = bench.attribution.owner_of(7)
        assert owner is not None
        assert owner.name == "python3"

    async def test_of_a_container_are_not_taken_for_the_nodes(self, start: Callable[..., Bench]) -> None:
        bench = start(pids=(7,))
        bench.process(2, "sh")
        bench.process(7, "python3")
        await bench.turn(1)
        assert bench.attribution.usage.owners is None
        assert "hostPID: true" in str(bench.attribution.usage.owners_problem)
        assert bench.attribution.owner_of(7) is None

    async def test_of_a_container_are_not_taken_for_the_nodes_before_the_first_look_either(
        self, start: Callable[..., Bench]
    ) -> None:
        bench = start()
        bench.process(7, "python3")
        assert bench.attribution.owner_of(7) is None
        bench.process(2, "kthreadd")
        assert bench.attribution.owner_of(7) is not None


class Spy(Memoryless):
    """A check that keeps what it was shown."""

    name = Check.PROCESSES
    needs = Witness.PROCESSES
    view: View

    def judge(self, view: View) -> list[Problem]:
        self.view = view
        return []


class TestTheReport:
    @staticmethod
    def report(usage: Usage, *checks: Spy) -> Report:
        assessor = Assessor(agent=AgentInfo(version="1", node_name="n"), checks=checks)
        assessor.sampled(Sample(taken_at=START, gpus=(GPUSample(index=0, uuid="GPU-0", mig=MIG),)))
        assessor.usage = usage
        report = assessor.report(START)
        assert report is not None
        return report

    def test_names_who_holds_what(self) -> None:
        (found,) = self.report(Usage(pods=ANSWER)).allocations
        assert (found.gpu_uuid, found.namespace, found.pod, found.container) == ("GPU-0", "ml", "train", "c")

    def test_means_something_else_when_another_pod_holds_it(self) -> None:
        other = Usage(pods=PodDevices(held=(Held(device=HELD.device, namespace="ml", pod="b", container="c"),)))
        assert len({etag(self.report(usage)) for usage in (Usage(), Usage(pods=ANSWER), other)}) == 3
        mig = [
            Held(device=Device(gpu_uuid="GPU-0", gpu_instance=n), namespace="m", pod="p", container="c") for n in (1, 2)
        ]
        assert len({etag(self.report(Usage(pods=PodDevices(held=(one,))))) for one in mig}) == 2
        # Another number of GPUs to hand out is a matter for the checks.
        assert etag(self.report(Usage(pods=PodDevices(held=(HELD,))))) == etag(self.report(Usage(pods=ANSWER)))

    def test_is_judged_by_checks_that_see_it_all(self) -> None:
        spy, owners = Spy(), {7: Owner(pid=7)}
        self.report(Usage(pods=ANSWER, owners=owners), spy)
        assert (spy.view.pods_seen, spy.view.allocatable_gpus, spy.view.owners) == (True, 8, owners)
        self.report(Usage(), spy)
        assert (spy.view.pods_seen, spy.view.allocatable_gpus, spy.view.owners) == (False, None, None)

    def test_says_what_could_not_be_seen_and_judges_no_worse(self) -> None:
        report = self.report(Usage(pods_problem="no socket.", owners_problem="no pids."))
        assert [(gap.reason, gap.message) for gap in report.capabilities] == [
            (Capability.NO_POD_RESOURCES, "no socket."),
            (Capability.NO_HOST_PIDS, "no pids."),
        ]
        assert report.health is Health.HEALTHY
