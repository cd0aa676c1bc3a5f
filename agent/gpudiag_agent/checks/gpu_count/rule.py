"""GPUs that sit in the machine and that the driver does not list.

Finding GPUMissing, one per GPU: the PCI bus shows an NVIDIA display or 3D controller, bound to the NVIDIA driver or
to none, and NVML does not list it. Cleared when NVML lists it, when the bus no longer shows it, or when it is given
to another driver (vfio-pci: passed through to a virtual machine).

No finding where either side is unknown: no access to sysfs, no NVIDIA device on the bus, NVML did not answer.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Identity, Memoryless, PCIDevice, Problem, View, evidence, say
from gpudiag_api.pci import slot
from gpudiag_api.vocabulary import Action, Blame, Capability, Check, Severity
from gpudiag_api.wire import Subject


class GPUCount(Memoryless):
    """See the module."""

    name = Check.GPU_COUNT

    def judge(self, view: View) -> Iterable[Problem]:
        """One finding per GPU that the bus shows and NVML does not."""
        fault = view.sample.fault
        if not view.pci or (fault is not None and fault.reason is not Capability.NO_GPUS):
            return []
        ours = [device for device in view.pci if device.driver in {None, "nvidia"}]
        gpus = view.sample.gpus
        if len(gpus) >= len(ours):
            return []
        if any(not gpu.pci for gpu in gpus):  # Which one is missing cannot be told.
            return [_missing(Subject(), len(gpus), len(ours), driver="nvidia")]
        listed = {slot(gpu.pci) for gpu in gpus}
        return [
            _missing(_subject(device, view.by_pci.get(device.pci)), len(gpus), len(ours), driver=device.driver)
            for device in ours
            if slot(device.pci) not in listed
        ]


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
