"""Samples and kernel events → the node's report. Pure but for what it remembers; no I/O, no clock of its own.

A GPU's health is the worst of its findings. It is Unknown instead of Healthy or Degraded while it cannot be read; a
Critical finding from another witness (kernel log, PCI bus) outranks that. The node's is the worst of its GPUs and of
the findings about the node; no GPU at all is Unknown.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from gpudiag_agent import reporting
from gpudiag_agent.attribution.model import Owner, PodRef, Usage
from gpudiag_agent.attribution.places import Places, pod_behind
from gpudiag_agent.checks.base import Check, Identity, Problem, View
from gpudiag_agent.checks.driver.rule import NO_GPUS_MESSAGE, unreadable
from gpudiag_agent.checks.xid.ledger import XIDLedger
from gpudiag_agent.findings import FindingBook
from gpudiag_agent.host.facts import HostFacts
from gpudiag_agent.inventory import MAX_GPUS, Inventory
from gpudiag_agent.kernel_log.decode import KernelEvent
from gpudiag_agent.kernel_log.parse import XIDLine
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_agent.standings import Standings
from gpudiag_agent.thresholds import Thresholds
from gpudiag_api import wire
from gpudiag_api.times import to_rfc3339
from gpudiag_api.vocabulary import Capability, Health, Severity
from gpudiag_api.wire import GPU, AgentInfo, Allocation, CapabilityGap, Finding, Report

_BLINDING_READS = frozenset({"GPUNotReadable", "ReadFailed"})


class Assessor:
    """Everything the agent knows, and what it makes of it.

    Args:
        agent: who writes the reports.
        checks: the checks to run.
        thresholds: gives the limits in force.
    """

    def __init__(
        self, *, agent: AgentInfo, checks: Sequence[Check], thresholds: Callable[[], Thresholds] = Thresholds
    ) -> None:
        self._agent = agent
        self._checks = checks
        self._thresholds = thresholds
        self.inventory = Inventory(agent.boot_id)
        """Which GPUs there are."""
        self._book = FindingBook()
        self._driver = wire.Driver()
        self.ledger = XIDLedger(agent.boot_id)
        self.sample: Sample | None = None
        """The latest, with every GPU named; None before the first."""
        self.answered_at: float | None = None
        """Unix time of the last sample for which NVML answered."""
        self.kernel_log_problem: str | None = None
        """Why there is no kernel log, None where there is one."""
        self.thresholds_problem: str | None = None
        """Why the changed thresholds file is not used; those before it are."""
        self.usage = Usage()
        """Who uses the GPUs, as far as that is known."""
        self.places = Places()
        self.standings = Standings(checks)
        """Which checks can judge."""

    def sampled(self, sample: Sample, *, host: HostFacts | None = None) -> None:
        """Take a finished sample, and what the host showed beside it (None: not looked at)."""
        sample = self.inventory.take(sample, uuids=self.ledger.uuids, serials=self.ledger.serials)
        seen = msgspec.structs.replace(host or HostFacts(), allocatable_gpus=self._allocatable_gpus())
        self.sample = sample = msgspec.structs.replace(sample, host=seen)
        if sample.fault is None or sample.fault.reason is Capability.NO_GPUS:
            self.answered_at = sample.taken_at
        if sample.fault is None:
            self._driver = wire.Driver(
                version=reporting.word(sample.driver_version),
                cuda_version=reporting.word(sample.cuda_version),
                nvml_version=reporting.word(sample.nvml_version),
            )
        self.ledger.observe(sample)
        self.places.observe(sample)
        for check in self._checks:
            check.observe(sample)
        self.standings.sampled(sample)

    def heard(self, event: KernelEvent, *, owner: Owner | None = None, live: bool = False) -> None:
        """Take an event of the kernel log.

        Args:
            event: what the driver said.
            owner: the process that it names, where the node still knows it.
            live: it is happening now, so who holds the GPU now is who held it then.
        """
        pod = self._pod_behind(event, owner, live=live)
        self.ledger.hear(event, job=None if pod is None else f"{pod.namespace}/{pod.name}")

    def _pod_behind(self, event: KernelEvent, owner: Owner | None, *, live: bool) -> PodRef | None:
        if not isinstance(event.what, XIDLine):
            return None
        known = self._identities().get(event.what.pci)
        return pod_behind(
            owner,
            self._allocations() if live else (),
            gpu_uuid=known.uuid if known else None,
            gpu_instance=event.what.gpu_instance,
        )

    def _identities(self) -> Mapping[str, Identity]:
        return self.inventory.by_pci(uuids=self.ledger.uuids, serials=self.ledger.serials)

    def _allocations(self) -> tuple[Allocation, ...]:
        return self.places.allocations(self.usage.pods.held if self.usage.pods is not None else ())

    def _allocatable_gpus(self) -> int | None:
        return self.usage.pods.allocatable_gpus if self.usage.pods is not None else None

    def report(self, now: float) -> Report | None:
        """The report of this moment (Unix seconds); None before the first sample, when nothing is known."""
        sample = self.sample
        if sample is None:
            return None
        by_pci = self._identities()
        view = View(
            now=now,
            thresholds=self._thresholds(),
            sample=sample,
            host=sample.host,
            allocatable_gpus=self._allocatable_gpus(),
            owners=self.usage.owners,
            pods_seen=self.usage.pods is not None,
            vanished=self.inventory.vanished(sample),
            pci=sample.host.pci,
            xids=self.ledger.occurrences,
            boot=self.ledger.boot,
            xid_history=self.ledger.history,
            switch_history=self.ledger.switch_history,
            signals=self.ledger.signals.held,
            lost_lines=self.ledger.lost,
            by_pci=by_pci,
        )
        findings = self._book.enter(self._problems(view), now)
        self.standings.judged(now, kernel_log_problem=self.kernel_log_problem, usage=self.usage)
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
            allocations=self._allocations(),
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
        if self.usage.pods_problem is not None:
            gaps.append(CapabilityGap(reason=Capability.NO_POD_RESOURCES, message=self.usage.pods_problem[:1024]))
        if self.usage.owners_problem is not None:
            gaps.append(CapabilityGap(reason=Capability.NO_HOST_PIDS, message=self.usage.owners_problem[:1024]))
        return tuple(gaps)

    def _gpus(self, view: View, findings: Sequence[Finding]) -> tuple[GPU, ...]:
        """The GPUs that were read, and those that should have been: with their identity and no values."""
        read = [
            _read(gpu, [finding for finding in findings if _about(finding, gpu.uuid, gpu.pci)])
            for gpu in view.sample.gpus
        ]
        answered = view.sample.fault is None or view.sample.fault.reason is Capability.NO_GPUS
        unread = view.vanished if answered else self.inventory.known
        taken = {gpu.index for gpu in read}
        for known in unread:
            index = _free_index(known.index or 0, taken)
            taken.add(index)
            health = _gpu_health([f for f in findings if _about(f, known.uuid, known.pci)], blind=True)
            read.append(reporting.unread_gpu(known, index=index, health=health))
        return tuple(sorted(read, key=lambda gpu: gpu.index)[:MAX_GPUS])


def _read(gpu: GPUSample, about: Sequence[Finding]) -> GPU:
    return reporting.gpu(gpu, health=_gpu_health(about, blind=unreadable(gpu) and not gpu.lost), findings=about)


def _gpu_health(about: Sequence[Finding], *, blind: bool) -> Health:
    """The worst of a GPU's findings; Unknown is worse than anything but Unhealthy."""
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
