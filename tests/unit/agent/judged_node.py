"""A node's agent without its edges, and GPUs to put into it: what the tests of the checks share."""

from collections.abc import Sequence

import msgspec

from gpudiag_agent.assess import Assessor
from gpudiag_agent.checks.counters import Counters
from gpudiag_agent.checks.registry import all_checks
from gpudiag_agent.host.facts import HostFacts, PCIDevice
from gpudiag_agent.kernel_log.boot import Boot
from gpudiag_agent.kernel_log.decode import Decoder
from gpudiag_agent.kernel_log.record import Record
from gpudiag_agent.sample import CallError, GPUSample, Sample, SourceFault
from gpudiag_agent.thresholds import Thresholds
from gpudiag_api import wire
from gpudiag_api.vocabulary import Capability
from gpudiag_api.wire import AgentInfo, Finding, Report

START = 1_800_000_000.0
LOST = (CallError("nvmlDeviceGetTemperature", 15, "NVML_ERROR_GPU_IS_LOST"),)
RESET = (CallError("nvmlDeviceGetTemperature", 16, "NVML_ERROR_RESET_REQUIRED"),)

HOPPER = GPUSample(
    index=0,
    model="NVIDIA H100 80GB HBM3",
    memory_total_bytes=85_520_809_984,
    mig_current=False,
    temperature_celsius=45,
    memory_temperature_celsius=50,
    memory_temperature_max_celsius=95,
    thermal_margin_celsius=40,
    thermal_margin_slowdown_celsius=-2,
    power_milliwatts=300_000,
    power_limit_milliwatts=700_000,
    utilization_percent=100,
    clock_event_reasons=0x4,
    ecc_current=True,
    ecc_uncorrected_volatile=0,
    ecc_corrected_volatile=12,
    ecc_uncorrected_aggregate=2,
    remap_pending=False,
    remap_failure=False,
    recovery_action=0,
)


class Node:
    """A node's agent without its edges: samples and kernel lines in, reports out."""

    def __init__(self, gpus: Sequence[GPUSample] = (HOPPER, HOPPER)) -> None:
        self.now = START
        self.gpus = [
            msgspec.structs.replace(
                gpu,
                index=index,
                uuid=f"GPU-{index}",
                pci=f"0000000{8 * (index // 2)}:{0x10 + index:02X}:00.0",
                serial=f"s{index}",
            )
            for index, gpu in enumerate(gpus)
        ]
        self.thresholds = Thresholds()
        self.counters = Counters("boot")
        self.driver: dict[str, object] = {"driver_version": "570"}
        self.start()
        self.decoder = Decoder(Boot("boot", START - 100))
        self.sequence = 0

    def start(self, boot: str = "boot") -> None:
        """The agent, anew: only what its counters keep is left."""
        kept = self.counters.dump()
        self.counters = Counters(boot)
        self.counters.load(kept)
        checks = all_checks(10.0, counters=self.counters, thresholds=lambda: self.thresholds)
        info = AgentInfo(version="1", node_name="n")
        self.assessor = Assessor(agent=info, checks=checks, thresholds=lambda: self.thresholds)

    def see(
        self,
        gpus: Sequence[GPUSample] | None = None,
        *,
        fault: Capability | None = None,
        pci: tuple[PCIDevice, ...] | None = None,
        seconds: float = 10,
    ) -> Report:
        self.now += seconds
        cause = SourceFault(fault, "why") if fault else None
        seen = () if cause else tuple(self.gpus if gpus is None else gpus)
        sample = Sample(taken_at=self.now, gpus=seen, fault=cause)
        self.assessor.sampled(msgspec.structs.replace(sample, **self.driver), host=HostFacts(pci=pci))
        return self.report()

    def change(self, index: int = 0, **values: object) -> Report:
        gpus = list(self.gpus)
        gpus[index] = msgspec.structs.replace(gpus[index], **values)
        return self.see(gpus)

    def hear(self, *lines: str) -> Report:
        for line in lines:
            self.sequence += 1
            self.now += 0.001
            microseconds = round((self.now - START + 100) * 1e6)
            event = self.decoder.feed(Record(line, self.sequence, microseconds), self.now)
            if event is not None:
                self.assessor.heard(event)
        return self.report()

    def report(self) -> Report:
        report = self.assessor.report(self.now)
        assert report is not None
        return wire.decode(wire.encode(report))


def only(report: Report) -> Finding:
    (finding,) = report.findings
    return finding
