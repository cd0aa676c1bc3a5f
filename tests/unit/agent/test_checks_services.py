"""Services that serve the GPUs, and the witnesses of how many GPUs there are: what raises, clears, and is no fault."""

from collections.abc import Iterable

import pytest

from gpudiag_agent.checks.base import Check, Problem, View
from gpudiag_agent.checks.fabric_manager.rule import FabricManager
from gpudiag_agent.checks.gpu_count.rule import GPUCount
from gpudiag_agent.checks.imex.rule import IMEX
from gpudiag_agent.host.facts import FABRIC_MANAGER, Daemon, HostFacts, PCIDevice
from gpudiag_agent.host.facts import IMEX as IMEX_DAEMON
from gpudiag_agent.sample import CallError, FabricSample, GPUSample, Sample, SourceFault
from gpudiag_agent.thresholds import GPUCountLimits, Thresholds
from gpudiag_api.vocabulary import Action, Blame, Capability, Severity

START = 1_800_000_000.0
DAY = 86_400.0
SXM = "NVIDIA H100 80GB HBM3"
UP = Daemon(pid=700, started=50)
JOINED, JOINING = FabricSample(state=3, status=0), FabricSample(state=2)


def gpus(count: int = 8, *, fabric: FabricSample | None = None, mig: bool = False, model: str = SXM) -> list[GPUSample]:
    return [
        GPUSample(
            index=index, uuid=f"GPU-{index}", pci=f"0000:{index:02x}:00.0", model=model, fabric=fabric, mig_current=mig
        )
        for index in range(count)
    ]


class Node:
    """One check that looks every 10 s; what the host shows can be changed."""

    def __init__(self, check: Check, found: Iterable[GPUSample] = (), **host: object) -> None:
        self.check, self.now = check, START
        self.gpus = tuple(found or gpus())
        self.host: dict[str, object] = {"uptime_seconds": 10_000.0, "daemons": {}, **host}
        self.fault: Capability | None = None
        self.excluded: int | None = None
        self.limits = Thresholds()

    def keep(self, seconds: float = 10, **host: object) -> list[Problem]:
        self.host |= host
        problems: list[Problem] = []
        for _ in range(int(seconds // 10)):
            self.now += 10
            facts = HostFacts(taken_at=self.now, **self.host)  # type: ignore[arg-type]
            sample = Sample(
                taken_at=self.now,
                host=facts,
                gpus=() if self.fault else self.gpus,
                fault=SourceFault(self.fault, "why") if self.fault else None,
                excluded_gpus=self.excluded,
            )
            self.check.observe(sample)
            view = View(
                now=self.now,
                sample=sample,
                host=facts,
                pci=facts.pci,
                allocatable_gpus=facts.allocatable_gpus,
                thresholds=self.limits,
            )
            problems = list(self.check.judge(view))
        return problems


def told(problems: Iterable[Problem]) -> list[tuple[str, Severity, Action]]:
    return [(one.reason, one.severity, one.action) for one in problems]


RESTART = Action.RESTART_FABRIC_MANAGER
CRITICAL = [("NotRunning", Severity.CRITICAL, RESTART)]
WARNING = [("NotRunning", Severity.WARNING, RESTART)]


class TestFabricManager:
    @pytest.mark.parametrize(
        ("fabric", "said"),
        [(None, CRITICAL), (JOINING, CRITICAL), (JOINED, WARNING)],
        ids=["A100", "joining", "joined"],
    )
    def test_switches_without_it(self, fabric: FabricSample | None, said: list[object]) -> None:
        node = Node(FabricManager(), gpus(fabric=fabric), nvswitches=4)
        assert node.keep(60) == []
        found = node.keep(10)
        assert told(found) == said
        assert found[0].blame is Blame.DRIVER
        assert (found[0].evidence[0].value, found[0].evidence[0].threshold) == ("0", "1")
        assert node.keep(daemons={FABRIC_MANAGER: UP}) == []

    def test_after_boot_it_has_five_minutes(self) -> None:
        node = Node(FabricManager(), nvswitches=4, uptime_seconds=299.0)
        assert node.keep(120) == []
        assert told(node.keep(uptime_seconds=300.0)) == CRITICAL

    def test_a_restart_is_no_fault(self) -> None:
        node = Node(FabricManager(), nvswitches=4, daemons={FABRIC_MANAGER: UP})
        node.keep()
        assert node.keep(50, daemons={}) == []
        assert node.keep(900, daemons={FABRIC_MANAGER: Daemon(pid=9, started=90)}) == []

    def test_b200_shows_no_switches_and_misses_one_that_ran(self) -> None:
        node = Node(FabricManager(), gpus(fabric=JOINED, model="NVIDIA B200"), nvswitches=0)
        assert node.keep(900) == [], "a virtual machine: it runs elsewhere"
        node.keep(daemons={FABRIC_MANAGER: UP})
        assert told(node.keep(70, daemons={})) == WARNING

    @pytest.mark.parametrize(
        ("found", "host"),
        [
            (gpus(), {"nvswitches": 0}),
            (gpus(), {"nvswitches": None}),
            (gpus(1), {"nvswitches": 4}),
            (gpus(mig=True), {"nvswitches": 4}),
            (gpus(4, fabric=JOINED, model="NVIDIA GB200"), {"nvswitches": 0}),
            (gpus(), {"nvswitches": 4, "daemons": None}),
        ],
        ids=["no switch", "unknown", "one GPU", "all MIG", "GB200", "no processes to be seen"],
    )
    def test_where_it_is_not_needed_or_cannot_be_seen(self, found: list[GPUSample], host: dict[str, object]) -> None:
        daemons = host.get("daemons", {})
        node = Node(FabricManager(), found, **{**host, "daemons": daemons if daemons is None else {FABRIC_MANAGER: UP}})
        node.keep()
        assert node.keep(900, daemons=daemons) == []

    def test_a_driver_that_is_being_changed(self) -> None:
        node = Node(FabricManager(), nvswitches=4)
        node.fault = Capability.NO_DRIVER
        assert node.keep(900) == []

    def test_it_starts_after_the_driver_and_has_its_time_then(self) -> None:
        node = Node(FabricManager(), nvswitches=4, daemons={FABRIC_MANAGER: UP})
        node.keep()
        node.fault = Capability.NO_DRIVER
        node.keep(300, daemons={})
        node.fault = None
        assert node.keep(60) == []
        assert told(node.keep()) == CRITICAL

    def test_flapping_and_its_end(self) -> None:
        node = Node(FabricManager(), nvswitches=4)
        for start in range(3):
            node.keep(20, daemons={FABRIC_MANAGER: Daemon(pid=700 + start, started=start)})
            node.keep(10, daemons={})
        found = node.keep(10, daemons={FABRIC_MANAGER: Daemon(pid=900, started=99)})
        assert told(found) == [("Flapping", Severity.WARNING, RESTART)]
        assert (found[0].evidence[0].value, found[0].evidence[0].threshold) == ("3", "3")
        assert node.keep(600) == []

    def test_restarts_far_apart_are_no_flapping(self) -> None:
        node = Node(FabricManager(), nvswitches=4)
        for start in range(6):
            assert node.keep(250, daemons={FABRIC_MANAGER: Daemon(pid=700 + start, started=start)}) == []


def run_by(pid: int) -> dict[str, Daemon]:
    """The service, as another process each time."""
    return {IMEX_DAEMON: Daemon(pid=pid, started=pid)}


class TestIMEX:
    def test_a_service_that_ran(self) -> None:
        node = Node(IMEX(), gpus(4), imex_nodes=18, daemons={IMEX_DAEMON: UP})
        assert node.keep() == []
        assert node.keep(60, daemons={}) == []
        (problem,) = node.keep()
        assert told([problem]) == WARNING
        assert (problem.evidence[1].name, problem.evidence[1].value) == ("domainNodes", "18")
        assert node.keep(daemons={IMEX_DAEMON: UP}) == []

    def test_its_configuration_was_emptied(self) -> None:
        node = Node(IMEX(), gpus(4), imex_nodes=18, daemons={IMEX_DAEMON: UP})
        node.keep()
        assert node.keep(600, daemons={}, imex_nodes=0) == [], "what a job's epilogue does"
        assert node.keep(60, imex_nodes=18) == [], "what a job's prologue does, and then starts it"
        assert told(node.keep()) == WARNING

    def test_one_that_was_never_seen_is_told_and_changes_no_health(self) -> None:
        assert told(Node(IMEX(), gpus(4), imex_nodes=18).keep(70)) == [("NotRunning", Severity.INFO, Action.NONE)]

    def test_pods_that_run_it_come_and_go(self) -> None:
        in_pod = {IMEX_DAEMON: Daemon(pid=9, started=9, in_pod=True)}
        node = Node(IMEX(), gpus(4), imex_nodes=18, daemons=in_pod)
        assert node.keep(600) == []
        assert [one.severity for one in node.keep(600, daemons={})] == [Severity.INFO]
        for start in range(5):
            assert node.keep(20, daemons={IMEX_DAEMON: Daemon(pid=start, started=start, in_pod=True)}) == []

    @pytest.mark.parametrize("nodes", [None, 0, 1])
    def test_a_node_of_no_domain(self, nodes: int | None) -> None:
        assert Node(IMEX(), gpus(8), imex_nodes=nodes, nvswitches=4).keep(900) == []

    def test_flapping(self) -> None:
        node = Node(IMEX(), gpus(4), imex_nodes=18, imex_written=7)
        found = [node.keep(20, daemons=run_by(n)) for n in range(4)]
        assert told(found[-1]) == [("Flapping", Severity.WARNING, RESTART)]
        assert node.keep(600) == []

    @pytest.mark.parametrize("emptied", [True, False])
    def test_prologues_of_short_jobs_are_no_flapping(self, emptied: bool) -> None:
        """They write the nodes of the job and start the service anew; some epilogues stop it and empty the file."""
        node = Node(IMEX(), gpus(4))
        for job in range(8):
            assert node.keep(10, imex_nodes=18, imex_written=2 * job) == [], "written, and not started yet"
            assert node.keep(30, daemons=run_by(job)) == []
            if emptied:
                assert node.keep(20, daemons={}, imex_nodes=0, imex_written=2 * job + 1) == []

    def test_epilogues_that_start_it_anew_as_well(self) -> None:
        node = Node(IMEX(), gpus(4), imex_nodes=18)
        for job in range(8):
            assert node.keep(20, imex_written=job, daemons=run_by(2 * job)) == []
            assert node.keep(20, daemons=run_by(2 * job + 1)) == []

    def test_a_crash_loop_within_a_job(self) -> None:
        node = Node(IMEX(), gpus(4), imex_nodes=18)
        for job in range(3):
            node.keep(20, imex_written=job, daemons=run_by(job))
        found = [node.keep(20, daemons=run_by(10 + n)) for n in range(3)]
        assert [told(one) for one in found] == [[], [], [("Flapping", Severity.WARNING, RESTART)]]
        assert found[-1][0].evidence[0].value == "3", "the prologues' starts are not counted"
        assert node.keep(20, imex_written=9, daemons=run_by(30)) == [], "a new job's configuration"

    def test_a_driver_that_is_being_changed(self) -> None:
        node = Node(IMEX(), gpus(4), imex_nodes=18, daemons={IMEX_DAEMON: UP})
        node.keep()
        node.fault = Capability.NO_DRIVER
        assert node.keep(900, daemons={}) == []
        node.fault = None
        assert node.keep(60) == []
        assert told(node.keep()) == WARNING


def bus(count: int, *, driver: str | None = "nvidia") -> tuple[PCIDevice, ...]:
    return tuple(PCIDevice(f"0000:{index:02x}:00.0", driver) for index in range(count))


MISSING = ("GPUMissing", Severity.CRITICAL, Action.REBOOT_NODE)
FEWER = [("FewerAllocatable", Severity.WARNING, Action.NONE)]


class TestGPUCount:
    def test_a_gpu_that_nvml_does_not_list(self) -> None:
        node = Node(GPUCount(), gpus(6), pci=bus(8))
        found = node.keep()
        assert told(found) == [MISSING, MISSING]
        assert [one.subject.pci for one in found] == ["0000:06:00.0", "0000:07:00.0"]
        assert node.keep(pci=bus(6)) == []

    @pytest.mark.parametrize("pci", [None, (*bus(6), PCIDevice("0000:07:00.0", "vfio-pci"))])
    def test_passed_through_or_unknown(self, pci: tuple[PCIDevice, ...] | None) -> None:
        assert Node(GPUCount(), gpus(6), pci=pci).keep(900) == []

    def test_excluded_ones_are_no_fault(self) -> None:
        node = Node(GPUCount(), gpus(6), pci=bus(8))
        node.excluded = 2
        assert node.keep(900) == []
        node.excluded = 1
        (problem,) = node.keep()
        assert told([problem]) == [MISSING]
        assert (problem.subject.pci, problem.evidence[0].value, problem.evidence[0].threshold) == (None, "6", "7")

    def test_while_the_node_boots_or_the_driver_comes_up(self) -> None:
        booting = Node(GPUCount(), gpus(6), pci=bus(8), uptime_seconds=290.0)
        assert booting.keep() == []
        assert len(booting.keep(uptime_seconds=300.0)) == 2
        node = Node(GPUCount(), gpus(6), pci=bus(8))
        node.fault = Capability.NO_DRIVER
        assert node.keep() == []
        node.fault = None
        assert node.keep(60) == []
        assert len(node.keep()) == 2

    def test_a_device_plugin_that_keeps_one_back(self) -> None:
        node = Node(GPUCount(), allocatable_gpus=8)
        assert node.keep(900) == []
        assert node.keep(300, allocatable_gpus=7) == []
        (problem,) = node.keep()
        assert told([problem]) == FEWER
        assert "device plugin" in problem.message
        assert (problem.evidence[0].value, problem.evidence[0].threshold) == ("7", "8")
        assert node.keep(allocatable_gpus=8) == []
        assert node.keep(300, allocatable_gpus=7) == [], "the time begins anew"

    @pytest.mark.parametrize("allocatable", [None, 8, 80])
    def test_as_many_more_or_unknown(self, allocatable: int | None) -> None:
        assert Node(GPUCount(), allocatable_gpus=allocatable).keep(900) == []

    def test_a_device_plugin_that_offers_none_any_more(self) -> None:
        node = Node(GPUCount(), allocatable_gpus=8)
        node.keep()
        assert node.keep(300, allocatable_gpus=0) == []
        (problem,) = node.keep()
        assert told([problem]) == FEWER
        assert "0 of 8 GPUs" in problem.message
        assert node.keep(allocatable_gpus=None) == [], "the kubelet is silent"
        assert node.keep(300, allocatable_gpus=0) == [], "the time begins anew"
        assert told(node.keep()) == FEWER
        node.now += DAY
        assert node.keep() == [], "it was taken away"

    def test_a_node_without_a_device_plugin(self) -> None:
        assert Node(GPUCount(), allocatable_gpus=0).keep(900) == []

    def test_mig_counts_differently(self) -> None:
        mixed = [*gpus(7), *gpus(1, mig=True)]
        assert Node(GPUCount(), mixed, allocatable_gpus=7).keep(900) == []

    def test_one_that_is_lost_is_rightly_kept_back(self) -> None:
        lost = GPUSample(index=7, uuid="GPU-7", errors=(CallError("nvmlDeviceGetTemperature", 15, "GPU_IS_LOST"),))
        assert Node(GPUCount(), [*gpus(7), lost], allocatable_gpus=7).keep(900) == []

    def test_kept_back_on_purpose(self) -> None:
        node = Node(GPUCount(), allocatable_gpus=7)
        node.limits = Thresholds(gpu_count=GPUCountLimits(kept_back=1))
        assert node.keep(900) == []
        assert told(node.keep(310, allocatable_gpus=6)) == FEWER
