"""A node's agent between its edges: samples, kernel lines and the host's facts in, wire reports out."""

from collections.abc import Mapping

import msgspec

from gpudiag_agent.assess import Assessor
from gpudiag_agent.attribution.model import Owner, PodDevices, Usage
from gpudiag_agent.checks.counters import Counters
from gpudiag_agent.checks.nvlink.baseline import LinkBaseline
from gpudiag_agent.checks.registry import all_checks
from gpudiag_agent.host.facts import FABRIC_MANAGER, Daemon, HostFacts, PCIDevice
from gpudiag_agent.kernel_log.boot import Boot
from gpudiag_agent.kernel_log.decode import Decoder
from gpudiag_agent.kernel_log.record import parse
from gpudiag_agent.sample import Sample, SourceFault
from gpudiag_api import wire
from gpudiag_api.vocabulary import Capability
from gpudiag_api.wire import AgentInfo, Report

START = 1_800_000_000.0
INTERVAL = 10.0


class Node:
    """One node. ``sample`` is what NVML says from now on."""

    def __init__(self, sample: Sample, *, boot: str = "boot-1") -> None:
        self.now = START
        self.sample = sample
        self.host = usual_host(sample)
        self.owners: Mapping[int, Owner] = {}
        self._boot(boot)

    def _boot(self, boot: str) -> None:
        self.counters, self.links = Counters(boot), LinkBaseline(boot)
        checks = all_checks(INTERVAL, counters=self.counters, links=self.links)
        self.assessor = Assessor(agent=AgentInfo(version="1", node_name="n", boot_id=boot), checks=checks)
        self.decoder = Decoder(Boot(boot, self.now - 100))
        self.booted_at, self.sequence = self.now - 100, 0

    def reboot(self, boot: str = "boot-2") -> None:
        """Start the node anew: what the agent keeps on disk is left, in the form it has there."""
        kept = self.counters.dump(), self.links.dump(), self.assessor.ledger.dump()
        self.now += 300
        self._boot(boot)
        self.counters.load(kept[0])
        self.links.load(kept[1])
        assert self.assessor.ledger.load(kept[2], now=self.now) is None

    def look(self, seconds: float = INTERVAL) -> Report:
        """The next look, so much later."""
        self.now += seconds
        gpus = self.sample.gpus
        pids = {process.pid for gpu in gpus for process in gpu.processes or ()}
        usual = {pid: Owner(pid=pid, name="python3", state="S", state_since=0.0, pod_uid="p") for pid in pids}
        self.assessor.usage = Usage(pods=PodDevices(), owners={**usual, **self.owners})
        host = msgspec.structs.replace(self.host, taken_at=self.now)
        self.assessor.sampled(msgspec.structs.replace(self.sample, taken_at=self.now), host=host)
        return self.report()

    def looks(self, seconds: float) -> Report:
        """So much time in looks: every interval, or at most a dozen of them."""
        step = max(INTERVAL, seconds / 12)
        until = self.now + seconds
        report = self.report()
        while until - self.now > 1e-3:
            report = self.look(min(step, until - self.now))
        return report

    def without_driver(self) -> None:
        """A look at which the driver was gone."""
        self.now += INTERVAL
        fault = SourceFault(Capability.NO_DRIVER, "no driver")
        self.assessor.sampled(Sample(taken_at=self.now, fault=fault))

    def hear(self, *lines: str) -> Report:
        """Kernel lines, as the device gives them."""
        for line in lines:
            self.sequence += 1
            self.now += 0.001
            text = line.replace("\n", "\\x0a")
            record = parse(f"3,{self.sequence},{round((self.now - self.booted_at) * 1e6)},-;{text}\n".encode())
            event = None if record is None else self.decoder.feed(record, self.now)
            if event is not None:
                self.assessor.heard(event)
        return self.report()

    def report(self) -> Report:
        """What is served now, over the wire and back."""
        report = self.assessor.report(self.now)
        assert report is not None
        return wire.decode(wire.encode(report))


def usual_host(sample: Sample) -> HostFacts:
    """What the host of a healthy machine shows beside its GPUs."""
    switched = any(link.remote_kind == "switch" for gpu in sample.gpus for link in gpu.nvlinks or ())
    # The switches of a rack-scale machine are not on its nodes.
    switches = 4 if switched and not any("GB200" in gpu.model or "GB300" in gpu.model for gpu in sample.gpus) else 0
    return HostFacts(
        pci=tuple(PCIDevice(gpu.pci, "nvidia") for gpu in sample.gpus if gpu.pci),
        nvswitches=switches,
        ports=(),
        modules={},
        daemons={FABRIC_MANAGER: Daemon(pid=900, started=100)} if switches else {},
        uptime_seconds=100_000.0,
    )
