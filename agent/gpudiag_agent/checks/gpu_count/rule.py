"""How many GPUs there are, by three witnesses: PCI bus, NVML, kubelet. A fourth, policy, is the operator's.

GPUMissing, Critical, one per GPU: the bus shows it, bound to the NVIDIA driver or to none, and NVML does not list it.
Cleared when NVML lists it, when the bus no longer shows it, or when another driver has it. Not said in the first 5
minutes after boot nor in the first minute of a driver that came up under the agent's eyes: GPUs come one by one.

FewerAllocatable, Warning: for 5 minutes the kubelet may hand out fewer GPUs than NVML lists, by more than
``gpuCount.keptBack`` (0). Cleared when it may hand out as many, or no longer says. None at all counts only for a day
after there were some, and not over a restart of the agent: there are nodes without a device plugin.

No fault: a GPU that another driver has (vfio-pci: passed through to a virtual machine), one that the driver was told to
exclude, GPUs cut into MIG devices, shares of a GPU, GPUs handed out by DRA. No GPU at all is never healthy: see Driver.
Nothing is said where a witness is silent: no sysfs, NVML does not answer, no kubelet.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Identity, Problem, View, Witness, evidence, say
from gpudiag_agent.host.facts import PCIDevice
from gpudiag_agent.sample import Sample
from gpudiag_api.pci import slot
from gpudiag_api.vocabulary import Action, Blame, Capability, Check, Severity
from gpudiag_api.wire import Subject

_BOOT_SECONDS = 300.0
_STARTING_SECONDS = 60.0
_PLUGIN_SECONDS = 300.0
"""A device plugin that restarts, or waits for the driver, is back by then."""
_REMOVED_SECONDS = 86_400.0
"""A device plugin that offers nothing for so long was taken away."""


class GPUCount:
    """See the module."""

    name = Check.GPU_COUNT
    needs = Witness.NVML | Witness.PCI_BUS | Witness.KUBELET

    def __init__(self) -> None:
        self._blind = False
        self._driver_since = float("-inf")
        """Unix time of the first answer after there was none."""
        self._fewer_since: float | None = None
        self._offered_at = float("-inf")
        """Unix time at which the kubelet last had any GPU to hand out."""

    def observe(self, sample: Sample) -> None:
        """Remember since when the driver answers, and since when the kubelet has fewer GPUs."""
        if sample.host.allocatable_gpus:
            self._offered_at = sample.taken_at
        if sample.fault is not None and sample.fault.reason is not Capability.NO_GPUS:
            self._blind, self._fewer_since = True, None
            return
        if self._blind:
            self._blind, self._driver_since = False, sample.taken_at
        lacking = self._kept_back(sample, sample.host.allocatable_gpus, sample.taken_at) > 0
        self._fewer_since = (self._fewer_since or sample.taken_at) if lacking else None

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs that one witness knows and another does not."""
        fault = view.sample.fault
        if fault is not None and fault.reason is not Capability.NO_GPUS:
            return
        if not self._starting(view):
            yield from _missing_gpus(view)
        kept_back = self._kept_back(view.sample, view.allocatable_gpus, view.now)
        settled = self._fewer_since is not None and view.now - self._fewer_since >= _PLUGIN_SECONDS
        if settled and kept_back > view.thresholds.gpu_count.kept_back:
            yield _fewer_allocatable(kept_back, view.allocatable_gpus or 0)

    def _starting(self, view: View) -> bool:
        booting = view.host.uptime_seconds is not None and view.host.uptime_seconds < _BOOT_SECONDS
        return booting or view.now - self._driver_since < _STARTING_SECONDS

    def _kept_back(self, sample: Sample, allocatable: int | None, now: float) -> int:
        if allocatable is None or any(gpu.mig_current for gpu in sample.gpus):
            return 0
        if not allocatable and now - self._offered_at >= _REMOVED_SECONDS:
            return 0
        return max(0, sum(1 for gpu in sample.gpus if not gpu.lost) - allocatable)


def _missing_gpus(view: View) -> Iterable[Problem]:
    """One finding per GPU; one for the node where it cannot be told which."""
    ours = [device for device in view.pci or () if device.driver in {None, "nvidia"}]
    gpus = view.sample.gpus
    excluded = view.sample.excluded_gpus or 0
    expected = len(ours) - excluded
    if len(gpus) >= expected:
        return
    if excluded or any(not gpu.pci for gpu in gpus):
        yield _missing(Subject(), len(gpus), expected, driver="nvidia")
        return
    listed = {slot(gpu.pci) for gpu in gpus}
    for device in ours:
        if slot(device.pci) not in listed:
            yield _missing(_subject(device, view.by_pci.get(device.pci)), len(gpus), expected, driver=device.driver)


def _subject(device: PCIDevice, known: Identity | None) -> Subject:
    return known.subject if known else Subject(pci=device.pci)


def _missing(subject: Subject, listed: int, present: int, *, driver: str | None) -> Problem:
    who = say(subject) if subject != Subject() else f"{present - listed} of {present} GPUs"
    why = "" if driver else " No driver is bound to it."
    return Problem(
        check=Check.GPU_COUNT,
        reason="GPUMissing",
        severity=Severity.CRITICAL,
        blame=Blame.HARDWARE,
        action=Action.REBOOT_NODE,
        message=f"{who}: on the PCI bus, but the driver lists {listed} of {present} GPUs without it.{why}",
        subject=subject,
        evidence=(evidence("gpusListed", listed, threshold=present, unit="GPUs"),),
    )


def _fewer_allocatable(kept_back: int, allocatable: int) -> Problem:
    listed = kept_back + allocatable
    why = (
        "It withdraws a GPU after an error and offers it again only when it is restarted: once the GPU is sound, "
        "restart the device plugin's Pod on this node."
        if allocatable
        else "It offered some before: see whether the device plugin's Pod runs on this node, and its log."
    )
    return Problem(
        check=Check.GPU_COUNT,
        reason="FewerAllocatable",
        severity=Severity.WARNING,
        blame=Blame.UNKNOWN,
        action=Action.NONE,
        message=f"The device plugin offers {allocatable} of {listed} GPUs to the kubelet. {why}",
        evidence=(evidence("gpusAllocatable", allocatable, threshold=listed, unit="GPUs"),),
    )
