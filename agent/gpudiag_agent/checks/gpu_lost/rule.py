"""GPUs that are gone, whichever of four witnesses says so.

| witness | finding | cleared by |
|---|---|---|
| NVML error 15 (GPU_IS_LOST) on any call | GPULost | the GPU answers without it |
| an earlier sample had it, this one has not | GPULost | it is back; it was given to another driver (vfio-pci) |
| XID 79 in the kernel log | GPULost | reboot; XID 154 "to 0x0" |
| "fallen off the bus" without an XID | GPULost | reboot; XID 154 "to 0x0" |
| NVML error 16 (RESET_REQUIRED) on any call | ResetRequired | the GPU answers without it |

One finding per GPU whatever the number of witnesses, so that a second one joining is no news.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Memoryless, Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.xid.ledger import LOST_CODE
from gpudiag_agent.sample import NVML_ERROR_RESET_REQUIRED, GPUSample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity
from gpudiag_api.wire import Evidence, Subject

_WITNESSES = {"nvml": "NVML", "kernelLog": "kernel log"}


class GPULost(Memoryless):
    """See the module."""

    name = Check.GPU_LOST
    needs = Witness.NVML

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs that are gone, and GPUs that must be reset before they work again."""
        witnesses: dict[str, tuple[Subject, list[Evidence], list[float]]] = {}

        def testify(subject: Subject, witness: Evidence, since: float | None = None) -> None:
            key = subject.pci or subject.gpu_uuid or str(subject.gpu_index)
            _, said, times = witnesses.setdefault(key, (subject, [], []))
            said.append(witness)
            times.extend([] if since is None else [since])

        for gpu in view.sample.gpus:
            if gpu.lost:
                testify(subject_of(gpu), evidence("nvml", "ERROR_GPU_IS_LOST"))
        passed_on = {device.pci for device in view.pci or () if device.driver not in {None, "nvidia"}}
        for known in view.vanished:
            if known.pci not in passed_on:
                testify(known.subject, evidence("nvml", "no longer listed"))
        for held in view.xids:
            if held.code == LOST_CODE and not held.cleared:
                known_here = view.by_pci.get(held.pci)
                subject = known_here.subject if known_here else Subject(pci=held.pci)
                testify(subject, evidence("kernelLog", f"XID {LOST_CODE}"), held.first_seen)
        for pci, at in view.lost_lines.items():
            subject = view.by_pci[pci].subject if pci in view.by_pci else Subject(pci=pci)
            testify(subject, evidence("kernelLog", "fallen off the bus"), at)
        lost = [_lost(subject, tuple(said), times) for subject, said, times in witnesses.values()]
        return lost + [_reset(gpu) for gpu in view.sample.gpus if _must_reset(gpu)]


def _lost(subject: Subject, said: tuple[Evidence, ...], times: list[float]) -> Problem:
    return Problem(
        check=Check.GPU_LOST,
        reason="GPULost",
        severity=Severity.CRITICAL,
        blame=Blame.HARDWARE,
        action=Action.REBOOT_NODE,
        message=f"{say(subject)} is lost ({'; '.join(f'{_WITNESSES[one.name]}: {one.value}' for one in said)})."
        " Only a reboot of the node brings it back; if it happens again, have it inspected.",
        subject=subject,
        evidence=said[:16],
        since=min(times, default=None),
    )


def _must_reset(gpu: GPUSample) -> bool:
    return not gpu.lost and any(error.code == NVML_ERROR_RESET_REQUIRED for error in gpu.errors)


def _reset(gpu: GPUSample) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.GPU_LOST,
        reason="ResetRequired",
        severity=Severity.CRITICAL,
        blame=Blame.HARDWARE,
        action=Action.DRAIN_AND_RESET_GPU,
        message=f"{say(subject)} does not work until it is reset: NVML answers ERROR_RESET_REQUIRED.",
        subject=subject,
        evidence=(evidence("nvml", "ERROR_RESET_REQUIRED"),),
    )
