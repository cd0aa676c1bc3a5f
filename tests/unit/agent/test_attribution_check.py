"""The check Processes: memory and processes that belong to nobody, and everything that only looks like it."""

import msgspec
import pytest

from gpudiag_agent.attribution.model import Owner, PodRef
from gpudiag_agent.checks.base import Problem, View
from gpudiag_agent.checks.processes.rule import Processes
from gpudiag_agent.sample import C2CLinkSample, CallError, GPUProcess, GPUSample, Sample, SourceFault
from gpudiag_api.vocabulary import Action, Blame, Capability, Check, Severity

START = 1_800_000_000.0
GIB = 1 << 30
H100 = GPUSample(
    index=3,
    uuid="GPU-3",
    pci="0000:3b:00.0",
    memory_total_bytes=80 * GIB,
    memory_used_bytes=60 * GIB,
    utilization_percent=0,
    mig_current=False,
    processes=(),
)
T4 = msgspec.structs.replace(H100, memory_total_bytes=15 * GIB, mig_current=None)
PYTHON = GPUProcess(pid=7, kind="compute", memory_bytes=GIB)
BUSY = msgspec.structs.replace(H100, utilization_percent=90, processes=(PYTHON,))
FAILED = (CallError("nvmlDeviceGetComputeRunningProcesses_v3", 999, "NVML_ERROR_UNKNOWN"),)


class Bench:
    """Samples in, problems out."""

    def __init__(self, *owners: Owner, seen: bool = True, pods: bool = True) -> None:
        self.check, self.now = Processes(), START
        self.owners = {owner.pid: owner for owner in owners} if seen else None
        self.pods = pods

    def see(self, *gpus: GPUSample, times: int = 1, fault: SourceFault | None = None) -> list[Problem]:
        for _ in range(times):
            self.now += 10
            sample = Sample(taken_at=self.now, gpus=gpus, fault=fault)
            self.check.observe(sample)
        return list(self.check.judge(View(now=self.now, sample=sample, owners=self.owners, pods_seen=self.pods)))


def reasons(problems: list[Problem]) -> list[str]:
    return [problem.reason for problem in problems]


class TestOrphanedMemory:
    def test_is_told_after_a_minute_and_weighs_more_after_fifteen(self) -> None:
        bench = Bench()
        assert bench.see(H100, times=6) == []
        (told,) = bench.see(H100)
        assert (told.check, told.reason, told.severity) == (Check.PROCESSES, "OrphanedMemory", Severity.INFO)
        assert (told.blame, told.action) == (Blame.DRIVER, Action.RESET_GPU_WHEN_IDLE)
        assert told.message == "GPU 3 (0000:3b:00.0): 60.0 GiB of its memory are in use and no process uses it."
        assert told.since == START + 10
        assert told.subject.gpu_uuid == "GPU-3"
        memory = told.evidence[0]
        assert (memory.value, memory.threshold, memory.unit) == ("60.0", "4.0", "GiB")
        (later,) = bench.see(H100, times=84)
        assert later.severity is Severity.WARNING

    @pytest.mark.parametrize(
        "gone",
        [
            msgspec.structs.replace(H100, memory_used_bytes=GIB),
            msgspec.structs.replace(H100, processes=(PYTHON,)),
            msgspec.structs.replace(H100, utilization_percent=1),
            msgspec.structs.replace(H100, processes=None),
            msgspec.structs.replace(H100, uuid="GPU-4"),
        ],
        ids=["less memory", "a process", "load", "unsupported", "another GPU"],
    )
    def test_is_cleared_by(self, gone: GPUSample) -> None:
        bench = Bench()
        bench.see(H100, times=10)
        assert bench.see(gone) == []
        assert bench.see(H100, times=6) == []

    def test_survives_a_read_that_failed_and_a_driver_that_is_silent(self) -> None:
        bench = Bench()
        bench.see(H100, times=10)
        assert reasons(bench.see(msgspec.structs.replace(H100, processes=None, errors=FAILED))) == ["OrphanedMemory"]
        bench.see(fault=SourceFault(Capability.DRIVER_HUNG, "hangs"))
        assert reasons(bench.see(H100)) == ["OrphanedMemory"]

    def test_begins_again_when_the_clock_was_set_back(self) -> None:
        bench = Bench()
        bench.see(H100, times=10)
        bench.now -= 3600
        assert bench.see(H100) == []
        assert reasons(bench.see(H100, times=6)) == ["OrphanedMemory"]

    @pytest.mark.parametrize(
        "gpu",
        [
            msgspec.structs.replace(H100, memory_used_bytes=4 * GIB - 1),
            msgspec.structs.replace(T4, memory_used_bytes=2 * GIB - 1),
            msgspec.structs.replace(H100, mig_current=True),
            msgspec.structs.replace(H100, c2c=(C2CLinkSample(link=0),)),
            msgspec.structs.replace(H100, utilization_percent=None),
            msgspec.structs.replace(H100, memory_used_bytes=None),
            msgspec.structs.replace(H100, processes=None),
            msgspec.structs.replace(H100, processes=(GPUProcess(pid=9, kind="graphics"),)),
            BUSY,
        ],
        ids=[
            "what a driver may keep", "the same of a small GPU", "MIG", "Grace", "unknown load", "unknown memory",
            "no list", "a screen", "a job",
        ],
    )  # fmt: skip
    def test_is_never_told_of(self, gpu: GPUSample) -> None:
        assert Bench().see(gpu, times=100) == []

    def test_takes_three_samples_however_rare_they_are(self) -> None:
        bench = Bench()
        bench.see(H100)
        bench.now += 600
        assert bench.see(H100) == []
        assert reasons(bench.see(H100)) == ["OrphanedMemory"]

    def test_is_told_of_a_small_gpu_from_two_gibibytes_on(self) -> None:
        assert reasons(Bench().see(msgspec.structs.replace(T4, memory_used_bytes=2 * GIB), times=10)) == [
            "OrphanedMemory"
        ]

    def test_is_never_told_where_processes_are_hidden(self) -> None:
        assert Bench(seen=False).see(H100, times=100) == []

    def test_counts_the_least_that_was_in_use(self) -> None:
        bench = Bench()
        bench.see(H100)  # The process has just ended; its memory follows.
        assert bench.see(msgspec.structs.replace(H100, memory_used_bytes=GIB), times=100) == []


class TestProcessWithoutPod:
    ALONE = Owner(pid=7, name="python3", state="S")
    IN_POD = Owner(pid=7, name="python3", state="S", pod_uid="u", pod=PodRef("ml", "train"))

    def test_is_told_after_a_minute_and_cleared_with_the_process(self) -> None:
        bench = Bench(self.ALONE)
        assert bench.see(BUSY, times=6) == []
        (told,) = bench.see(BUSY)
        assert (told.reason, told.severity, told.action) == (
            "ProcessWithoutPod",
            Severity.INFO,
            Action.CHECK_APPLICATION,
        )
        assert "used by process 7 (python3), which runs on the node outside of every pod" in told.message
        assert told.evidence[0].value == "7 python3 S"
        assert bench.see(msgspec.structs.replace(BUSY, processes=())) == []

    def test_is_one_finding_for_many(self) -> None:
        owners = [Owner(pid=pid, name="job") for pid in range(1, 21)]
        crowd = tuple(GPUProcess(pid=owner.pid, kind="compute") for owner in owners)
        (told,) = Bench(*owners).see(msgspec.structs.replace(BUSY, processes=crowd), times=10)
        assert "process 1 (job) and 19 more" in told.message
        assert len(told.evidence) == 8

    @pytest.mark.parametrize(
        ("owner", "kind"),
        [
            (IN_POD, "compute"),
            (Owner(pid=7, pod_uid="a pod without a name"), "compute"),
            (Owner(pid=7, name="nvidia-cuda-mps"), "compute"),
            (Owner(pid=7, name="nv-hostengine"), "compute"),
            (Owner(pid=7, name="Xorg"), "graphics"),
            (Owner(pid=8, name="somebody else"), "compute"),
        ],
        ids=["in a pod", "in an unknown pod", "MPS", "DCGM", "a screen", "unknown"],
    )
    def test_is_never_told_of(self, owner: Owner, kind: str) -> None:
        gpu = msgspec.structs.replace(BUSY, processes=(GPUProcess(pid=7, kind=kind),))
        assert Bench(owner).see(gpu, times=100) == []

    def test_is_never_told_where_there_is_no_kubelet_or_no_sight(self) -> None:
        assert Bench(self.ALONE, pods=False).see(BUSY, times=100) == []
        assert Bench(self.ALONE, seen=False).see(BUSY, times=100) == []

    def test_of_short_visits_is_none(self) -> None:
        bench = Bench(self.ALONE)
        for _ in range(20):
            assert bench.see(BUSY, times=3) == []
            assert bench.see(msgspec.structs.replace(BUSY, processes=())) == []


class TestZombieProcess:
    def test_is_told_after_a_minute_in_that_state(self) -> None:
        bench = Bench(Owner(pid=7, name="python3", state="Z", state_since=START + 100))
        assert bench.see(BUSY, times=15) == []
        (told,) = bench.see(BUSY)
        assert (told.reason, told.severity, told.action) == (
            "ZombieProcess",
            Severity.WARNING,
            Action.CHECK_APPLICATION,
        )
        assert "held by process 7 (python3), which ended and cannot be cleared away" in told.message

    def test_is_told_of_pods_and_without_a_kubelet_too(self) -> None:
        dead = Owner(pid=7, name="python3", state="Z", state_since=START, pod_uid="u")
        assert reasons(Bench(dead, pods=False).see(BUSY, times=10)) == ["ZombieProcess"]

    def test_is_none_while_it_lives(self) -> None:
        for state in "RSDTt":
            assert Bench(Owner(pid=7, state=state, pod_uid="u")).see(BUSY, times=100) == []
