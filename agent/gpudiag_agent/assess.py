"""Samples and kernel events → the node's report. Pure but for what it remembers; no I/O, no clock of its own.

A GPU's health is the worst of its findings. It is Unknown instead of Healthy or Degraded while it cannot be read; a
Critical finding from another witness (kernel log, PCI bus) outranks that. The node's is the worst of its GPUs and of
the findings about the node; no GPU at all is Unknown.
"""

from collections.abc import Iterable, Sequence

from gpudiag_agent import reporting
from gpudiag_agent.checks.base import Check, PCIDevice, Problem, View
from gpudiag_agent.checks.driver.rule import NO_GPUS_MESSAGE, unreadable
from gpudiag_agent.checks.xid.ledger import XIDLedger
from gpudiag_agent.findings import FindingBook
from gpudiag_agent.inventory import MAX_GPUS, Inventory
from gpudiag_agent.kernel_log.decode import KernelEvent
from gpudiag_agent.sample import Sample
from gpudiag_api import wire
from gpudiag_api.times import to_rfc3339
from gpudiag_api.vocabulary import Capability, Health, Severity
from gpudiag_api.wire import GPU, AgentInfo, CapabilityGap, Finding, Report

_BLINDING_READS = frozenset({"GPUNotReadable", "ReadFailed"})


class Assessor:
    """Everything the agent knows, and what it makes of it.

    Args:
        agent: who writes the reports.
        checks: the checks to run.
    """

    def __init__(self, *, agent: AgentInfo, checks: Sequence[Check]) -> None:
        self._agent = agent
        self._checks = checks
        self._inventory = Inventory()
        self._book = FindingBook()
        self._pci: tuple[PCIDevice, ...] | None = None
        self._driver = wire.Driver()
        self.ledger = XIDLedger()
        self.sample: Sample | None = None
        """The latest, with every GPU named; None before the first."""
        self.answered_at: float | None = None
        """Unix time of the last sample for which NVML answered."""
        self.kernel_log_problem: str | None = None
        """Why there is no kernel log, None where there is one."""

    def sampled(self, sample: Sample, *, pci: tuple[PCIDevice, ...] | None = None) -> None:
        """Take a finished sample, and what the PCI bus showed beside it (None: unknown)."""
        sample = self._inventory.take(sample, uuids=self.ledger.uuids, serials=self.ledger.serials)
        self.sample, self._pci = sample, pci
        if sample.fault is None or sample.fault.reason is Capability.NO_GPUS:
            self.answered_at = sample.taken_at
        if sample.fault is None:
            self._driver = wire.Driver(
                version=reporting.word(sample.driver_version),
                cuda_version=reporting.word(sample.cuda_version),
                nvml_version=reporting.word(sample.nvml_version),
            )
        self.ledger.observe(sample)
        for check in self._checks:
            check.observe(sample)

    def heard(self, event: KernelEvent) -> None:
        """Take an event of the kernel log."""
        self.ledger.hear(event)

    def report(self, now: float) -> Report | None:
        """The report of this moment (Unix seconds); None before the first sample, when nothing is known."""
        sample = self.sample
        if sample is None:
            return None
        by_pci = self._inventory.by_pci(uuids=self.ledger.uuids, serials=self.ledger.serials)
        view = View(
            now=now,
            sample=sample,
            vanished=self._inventory.vanished(sample),
            pci=self._pci,
            xids=self.ledger.occurrences,
            lost_lines=self.ledger.lost,
            by_pci=by_pci,
        )
        findings = self._book.enter(self._problems(view), now)
        gpus = self._gpus(view, findings)
        return Report(
            version=wire.WIRE_VERSION,
            agent=self._agent,
            sampled_at=None if self.answered_at is None else to_rfc3339(self.answered_at),
            health=_node_health(gpus, findings),
            driver=self._driver,
            capabilities=self._capabilities(sample),
            gpus=gpus,
            findings=findings,
            xids=tuple(reporting.xid(held, by_pci.get(held.pci)) for held in view.xids),
        )

    def _problems(self, view: View) -> Iterable[Problem]:
        for check in self._checks:
            yield from check.judge(view)

    def _capabilities(self, sample: Sample) -> tuple[CapabilityGap, ...]:
        gaps = []
        if sample.fault is not None:
            gaps.append(CapabilityGap(reason=sample.fault.reason, message=sample.fault.message[:1024]))
        elif not sample.gpus:
            gaps.append(CapabilityGap(reason=Capability.NO_GPUS, message=NO_GPUS_MESSAGE))
        if self.kernel_log_problem is not None:
            gaps.append(CapabilityGap(reason=Capability.NO_KERNEL_LOG, message=self.kernel_log_problem[:1024]))
        return tuple(gaps)

    def _gpus(self, view: View, findings: Sequence[Finding]) -> tuple[GPU, ...]:
        """The GPUs that were read, and those that should have been: with their identity and no values."""
        read = [
            reporting.gpu(gpu, health=_gpu_health(gpu.uuid, gpu.pci, findings, blind=unreadable(gpu) and not gpu.lost))
            for gpu in view.sample.gpus
        ]
        answered = view.sample.fault is None or view.sample.fault.reason is Capability.NO_GPUS
        unread = view.vanished if answered else self._inventory.known
        taken = {gpu.index for gpu in read}
        for known in unread:
            index = _free_index(known.index or 0, taken)
            taken.add(index)
            health = _gpu_health(known.uuid, known.pci, findings, blind=True)
            read.append(reporting.unread_gpu(known, index=index, health=health))
        return tuple(sorted(read, key=lambda gpu: gpu.index)[:MAX_GPUS])


def _gpu_health(uuid: str, pci: str, findings: Sequence[Finding], *, blind: bool) -> Health:
    """The worst of a GPU's findings; Unknown is worse than anything but Unhealthy."""
    about = [finding for finding in findings if _about(finding, uuid, pci)]
    parts = [Health.HEALTHY, *(finding.severity.health for finding in about)]
    if blind or any(finding.reason in _BLINDING_READS for finding in about):
        parts.append(Health.UNKNOWN)
    return Health.worst(parts)


def _about(finding: Finding, uuid: str, pci: str) -> bool:
    subject = finding.subject
    return subject.gpu_uuid == uuid if subject.gpu_uuid else bool(pci) and subject.pci == pci


def _node_health(gpus: Sequence[GPU], findings: Sequence[Finding]) -> Health:
    if not gpus:
        about = [f.severity.health for f in findings if f.severity is Severity.CRITICAL]
        return Health.worst([Health.UNKNOWN, *about])
    loud = [finding.severity.health for finding in findings if finding.severity is not Severity.INFO]
    return Health.worst([*(gpu.health for gpu in gpus), *loud])


def _free_index(wanted: int, taken: set[int]) -> int:
    """The index a GPU had; the next free one where the driver has given that to another GPU since."""
    return wanted if wanted not in taken else min(set(range(256)) - taken)
