"""A healthy machine has no finding, whatever its GPUs can and cannot say: real pynvml, real child, every check.

The hour is an hour of the agent's clock: what each machine's library says idle and at work is read once, and varied.
"""

from collections import Counter

import msgspec
import pytest

from gpudiag_agent.assess import Assessor
from gpudiag_agent.attribution.model import Owner, PodDevices, Usage
from gpudiag_agent.checks.registry import all_checks
from gpudiag_agent.host.facts import FABRIC_MANAGER, Daemon, HostFacts, KernelDriver, PCIDevice, Port
from gpudiag_agent.sample import Sample
from gpudiag_api.vocabulary import Health
from gpudiag_api.wire import AgentInfo, Report
from gpudiag_cli import nvmlfake

from .conftest import Boot, Open
from .healthy_hour import INTERVAL, SAMPLES, hour

pytestmark = pytest.mark.untraced
QUICK = ("a100-8-mig", "gb200-4", "t4-1")
"""The others have their hour in `make test-all`."""
VARIANTS: dict[str, tuple[str, dict[str, str | int]]] = {
    "GB200 that does not tell its memory": ("gb200-4", {"gpu.*.memory.total": ""}),
    "T4 in a slot of eight lanes": ("t4-1", {"gpu.*.pcie.width": 8, "gpu.*.pcie.width.max": 8}),
    "H100 without a fabric manager to be seen, alone": ("h100-8", {"count": 1, "gpu.*.fabric.state": ""}),
    "an old driver that lacks most functions": (
        "t4-1",
        {
            f"missing.nvml{function}": 1
            for function in (
                "DeviceGetComputeRunningProcesses_v3",
                "DeviceGetCurrPcieLinkGeneration",
                "DeviceGetCurrentClocksEventReasons",
                "DeviceGetCurrentClocksThrottleReasons",
                "DeviceGetEccMode",
                "DeviceGetFieldValues",
                "DeviceGetGspFirmwareMode",
                "DeviceGetMarginTemperature",
                "DeviceGetMemoryInfo_v2",
                "DeviceGetMigMode",
                "DeviceGetPerformanceState",
                "DeviceGetPersistenceMode",
                "DeviceGetRemappedRows",
                "DeviceGetSerial",
                "DeviceGetTemperatureV",
                "DeviceGetTotalEccErrors",
                "DeviceValidateInforom",
                "SystemGetCudaDriverVersion_v2",
            )
        },
    ),
}


def used(sample: Sample) -> Usage:
    """Every process runs in a pod, and the kubelet hands out every GPU; a workstation has neither."""
    kubernetes = all("RTX" not in gpu.model for gpu in sample.gpus)
    pids = {process.pid for gpu in sample.gpus for process in gpu.processes or ()}
    pod = "0a1b2c3d" if kubernetes else None
    owners = {pid: Owner(pid=pid, name="python3", state="S", state_since=0.0, pod_uid=pod) for pid in pids}
    whole = None if any(gpu.mig for gpu in sample.gpus) else len(sample.gpus)
    return Usage(pods=PodDevices(allocatable_gpus=whole) if kubernetes else None, owners=owners)


def around(sample: Sample, bus: tuple[PCIDevice, ...]) -> HostFacts:
    """A node whose services run and whose ports are up; counters tell of a past and of what happens now and then."""
    hours = sample.taken_at / 3600
    past = {"symbol_error": 60_000 + int(hours * 100), "link_downed": 9, "link_error_recovery": 4 + int(hours * 3)}
    rail = Port(device="", port=1, pci="", board="b", link_layer="InfiniBand", state="ACTIVE", physical_state="LinkUp")
    ports = [
        msgspec.structs.replace(rail, device=f"mlx5_{n}", pci=f"0000:{n:02x}:00.0", rate_gbps=400.0, counters=past)
        for n in range(8)
    ]
    uncabled = msgspec.structs.replace(ports[0], device="mlx5_8", pci="0000:e0:00.0", state="DOWN", rate_gbps=2.5)
    switched = any(gpu.model.endswith(("HBM3", "HBM3e", "SXM4-80GB")) for gpu in sample.gpus)
    return HostFacts(
        taken_at=sample.taken_at,
        pci=tuple(msgspec.structs.replace(device, errors={"correctable": int(hours * 3)}) for device in bus),
        nvswitches=4 if switched else 0,
        ports=(*ports, uncabled),
        modules={"nvidia": ("nvidia_uvm",), "ib_core": ("mlx5_ib",)},
        kernel_driver=KernelDriver("570.86.15", open=True),
        daemons={FABRIC_MANAGER: Daemon(pid=7, started=9)} if switched else {},
        imex_nodes=0,
        uptime_seconds=90_000.0,
    )


class Node:
    """A node whose reports are watched."""

    def __init__(self) -> None:
        self.assessor = Assessor(agent=AgentInfo(version="1", node_name="n"), checks=all_checks(INTERVAL))
        self.found: Counter[str] = Counter()
        self.report: Report | None = None

    def see(self, sample: Sample) -> None:
        bus = tuple(PCIDevice(gpu.pci, "nvidia") for gpu in sample.gpus)
        self.assessor.usage = used(sample)
        self.assessor.sampled(sample, host=around(sample, bus))
        self.report = self.assessor.report(sample.taken_at)
        assert self.report is not None
        self.found.update(f"{finding.check}/{finding.reason}: {finding.message}" for finding in self.report.findings)
        self.found.update(f"{gpu.health} GPU" for gpu in self.report.gpus if gpu.health is not Health.HEALTHY)


@pytest.fixture(scope="module")
def readings() -> dict[tuple[str, bool], Sample]:
    """What was read of each machine already."""
    return {}


@pytest.mark.parametrize("load", [False, True], ids=["idle", "load"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in nvmlfake.machines()]
)
async def test_an_hour_without_a_finding(
    name: str, load: bool, boot: Boot, open_source: Open, readings: dict[tuple[str, bool], Sample]
) -> None:
    machine = boot(name)
    for busy in (False, True):
        if (name, busy) not in readings:
            nvmlfake.Machine.create(name, machine.path, load=busy)
            readings[name, busy] = await open_source(deadline=10).sample()
            assert readings[name, busy].fault is None
    node = Node()
    samples = list(hour(readings[name, False], readings[name, True], load=load))
    assert len(samples) == SAMPLES
    for sample in samples:
        node.see(sample)
    assert dict(node.found) == {}


@pytest.mark.parametrize("variant", VARIANTS)
async def test_no_finding_and_no_gap(boot: Boot, open_source: Open, variant: str) -> None:
    machine, values = VARIANTS[variant]
    boot(machine).set(values)
    source, node = open_source(deadline=10), Node()
    for _ in range(3):
        node.see(await source.sample())
        assert node.report is not None
        assert node.report.capabilities == ()
    assert dict(node.found) == {}


async def test_the_hour_is_one_in_which_things_happen(boot: Boot, open_source: Open) -> None:
    machine = boot("l40s-8")
    busy = await open_source(deadline=10).sample()
    nvmlfake.Machine.create("l40s-8", machine.path, load=False)
    idle = await open_source(deadline=10).sample()
    gpus = [sample.gpus[0] for sample in hour(idle, busy, load=True)]
    assert {gpu.pcie.generation for gpu in gpus if gpu.pcie is not None} == {1, 4}
    assert any(gpu.performance_state == 0 and gpu.pcie and gpu.pcie.generation == 1 for gpu in gpus)
    assert any((gpu.clock_event_reasons or 0) & 4 for gpu in gpus)
    assert len({process.pid for gpu in gpus for process in gpu.processes or ()}) > 3
    replays = [gpu.pcie.replays or 0 for gpu in gpus if gpu.pcie is not None]
    assert replays == sorted(replays)
    assert replays[0] < replays[-1] < 30
