"""What every check sees and gives: samples, kernel events and inventory in, problems out. No I/O.

A check is a class with two methods. :meth:`Check.observe` is called once per finished sample and may remember;
:meth:`Check.judge` may be called any number of times between samples (a kernel line does not wait for the next one)
and says what is wrong right now. A problem that is no longer given is cleared: so every rule states what clears it.
"""

from collections.abc import Iterable, Mapping
from enum import Flag, auto
from typing import Protocol

import msgspec

from gpudiag_agent.attribution.model import Owner
from gpudiag_agent.checks.kernel.signals import HeldSignal
from gpudiag_agent.checks.xid.catalogue import Verdict
from gpudiag_agent.checks.xid.history import Bursts
from gpudiag_agent.host.facts import HostFacts, PCIDevice
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_agent.thresholds import Thresholds
from gpudiag_api.vocabulary import Action, Blame, Severity
from gpudiag_api.vocabulary import Check as Name
from gpudiag_api.wire import Evidence, Subject


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a GPU is: what stays true while it cannot be read."""

    uuid: str
    index: int | None = None
    """None: only the kernel log has named it so far."""
    pci: str = ""
    model: str = ""
    serial: str = ""
    memory_bytes: int | None = None

    @property
    def subject(self) -> Subject:
        """As a finding names it."""
        return Subject(gpu_index=self.index, gpu_uuid=self.uuid, pci=self.pci or None, serial=self.serial or None)


class Occurrence(msgspec.Struct, frozen=True, kw_only=True):
    """One XID identity from the kernel log: the first occurrence and the count of its repeats."""

    id: str
    code: int
    pci: str
    verdict: Verdict
    message: str = ""
    gpu_instance: int | None = None
    compute_instance: int | None = None
    process_id: int | None = None
    process_name: str | None = None
    job: str | None = None
    """The Pod that used the GPU, as ``namespace/name``, kept after it is gone; None: not known."""
    link: str | None = None
    """The link that it is about, as a subject names it."""
    first_seen: float
    last_seen: float
    count: int = 1
    cleared: bool = False
    """Evidence has come that the GPU recovered since the last occurrence."""

    def subject(self, known: Identity | None) -> Subject:
        """What it is about, with the GPU's identity where that is known."""
        return Subject(
            gpu_index=known.index if known else None,
            gpu_uuid=known.uuid if known else None,
            pci=self.pci,
            serial=(known.serial or None) if known else None,
            mig_gpu_instance=self.gpu_instance,
            mig_compute_instance=self.compute_instance,
            link=self.link,
        )


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Everything there is to judge at one moment."""

    now: float
    """Unix time in seconds."""
    thresholds: Thresholds = Thresholds()
    """Limits as configured; a reload shows in the next view."""
    host: HostFacts = HostFacts()
    """What the node says besides NVML, the PCI bus and the kernel log."""
    allocatable_gpus: int | None = None
    """Whole GPUs that the kubelet would hand out; None: not asked, or no answer."""
    owners: Mapping[int, Owner] | None = None
    """Host pid → process, for the processes on the GPUs; None: the node's processes cannot be seen."""
    pods_seen: bool = False
    """Whether the kubelet says who holds which GPU."""
    sample: Sample
    """The latest; every GPU in it is named."""
    vanished: tuple[Identity, ...] = ()
    """GPUs that an earlier sample had and this one, which did answer, has not."""
    pci: tuple[PCIDevice, ...] | None = None
    """What the PCI bus shows; None: unknown."""
    xids: tuple[Occurrence, ...] = ()
    boot: str = ""
    """The kernel's boot id."""
    xid_history: Bursts = ()
    """Two weeks of XIDs, over reboots."""
    switch_history: Bursts = ()
    """Two weeks of SXids, over reboots; ``pci`` is the switch's."""
    signals: tuple[HeldSignal, ...] = ()
    """Kernel lines without an XID that nothing has cleared."""
    lost_lines: Mapping[str, float] = {}
    """PCI address → Unix time of the kernel's words "fallen off the bus"."""
    by_pci: Mapping[str, Identity] = {}
    """Every GPU that a sample or the kernel log has named, by address."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong now. (check, reason, subject) names it over time."""

    check: Name
    reason: str
    severity: Severity
    blame: Blame
    action: Action
    message: str
    subject: Subject = Subject()
    evidence: tuple[Evidence, ...] = ()
    since: float | None = None
    """Unix time it began, where the check knows; None: when it was first given."""
    until: float | None = None
    """Unix time it was last seen; None: now."""
    count: int = 1


class Witness(Flag):
    """Sources of what is judged. One that is silent leaves the checks that need it blind, and no others."""

    LOOK = auto()
    """A look at the GPUs came to its end, whatever it gave."""
    NVML = auto()
    """The driver answered."""
    KERNEL_LOG = auto()
    PCI_BUS = auto()
    PORTS = auto()
    """InfiniBand and RoCE, from sysfs."""
    MODULES = auto()
    """Of the kernel."""
    DAEMONS = auto()
    """Services among the node's processes."""
    PROCESSES = auto()
    """Those on the GPUs, as the node's kernel describes them."""
    KUBELET = auto()


class Check(Protocol):
    """One check. A new one is a folder with this interface and one line in the registry."""

    name: Name
    needs: Witness
    """Those without whom a Warning or a Critical fault could go unseen; not those who only say the same again."""

    def observe(self, sample: Sample) -> None:
        """Take a finished sample into memory. Never called twice for one sample."""
        ...

    def judge(self, view: View) -> Iterable[Problem]:
        """What is wrong now. Changes nothing that a later call could notice."""
        ...


class Memoryless:
    """Base of checks that need nothing but the view."""

    def observe(self, sample: Sample) -> None:
        """See :class:`Check`: remembers nothing."""


def subject_of(gpu: GPUSample) -> Subject:
    """A sampled GPU as a finding names it."""
    return Subject(gpu_index=gpu.index, gpu_uuid=gpu.uuid or None, pci=gpu.pci or None, serial=gpu.serial or None)


def say(subject: Subject) -> str:
    """``GPU 3 (0000:3b:00.0)``: how messages name a GPU; with its MIG instance where it is about one."""
    parts = [f"GPU {subject.gpu_index}" if subject.gpu_index is not None else "GPU"]
    if subject.pci:
        parts.append(f"({subject.pci})" if subject.gpu_index is not None else f"at {subject.pci}")
    if subject.mig_gpu_instance is not None:
        parts.append(f"MIG GI {subject.mig_gpu_instance}")
        if subject.mig_compute_instance is not None:
            parts.append(f"CI {subject.mig_compute_instance}")
    return " ".join(parts)


def evidence(name: str, value: object, *, threshold: object = None, unit: str | None = None) -> Evidence:
    """A measured value as text, within the wire's bounds."""
    limit = None if threshold is None else str(threshold)[:253]
    return Evidence(name=name[:63], value=str(value)[:253], threshold=limit, unit=unit)
