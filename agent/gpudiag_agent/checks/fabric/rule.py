"""Registration and health of a GPU in its NVSwitch fabric (``nvmlDeviceGetGpuFabricInfoV``).

| what | finding | cleared by |
|---|---|---|
| registration not started or under way for 5 minutes | RegistrationPending, Warning | it completes |
| completed, with a status that is no success | RegistrationFailed, Critical | it succeeds |
| the same with "insufficient resources" | InsufficientResources, Info | it succeeds |
| a route is unhealthy, or the summary says so | FabricUnhealthy, Critical | the driver says that it is healthy |
| less bandwidth, timeouts under recovery, limited capacity | FabricDegraded, Warning | as above |
| a configuration that does not fit (GUID, serial, partition, firmware …) | FabricMisconfigured, Warning | as above |

Not judged: a GPU without a fabric (state "not supported"), PCIe boards, GH200, a node with one GPU, and registration on
a node without NVSwitches (GB200 and GB300 have theirs elsewhere). "Insufficient resources" was seen on machines that
work (azhpc-images #506). A reboot clears all. What cannot be read is as it was.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence, say, subject_of
from gpudiag_agent.checks.fabric import mask as masks
from gpudiag_agent.checks.memory import LastKnown
from gpudiag_agent.sample import FabricSample, GPUSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity
from gpudiag_api.wire import Evidence

_NOT_SUPPORTED, _COMPLETED = 0, 3
_UNHEALTHY, _LIMITED = 2, 3
_INSUFFICIENT_RESOURCES = 23
"""NVML_ERROR_INSUFFICIENT_RESOURCES."""
_SETTLED_SECONDS = 300.0
_STATES = {1: "not started", 2: "in progress"}
_RACK_SCALE = ("GB200", "GB300")


class Fabric:
    """See the module."""

    name = Check.FABRIC
    needs = Witness.NVML | Witness.PCI_BUS

    def __init__(self) -> None:
        self._fabric = LastKnown(lambda gpu: gpu.fabric)
        self._pending: dict[str, float] = {}
        """GPU → since when it is not registered."""

    def observe(self, sample: Sample) -> None:
        """Remember since when a GPU is not registered."""
        if sample.fault is not None:
            return
        self._fabric.observe(sample)
        found = {gpu.uuid: self._fabric.get(gpu) for gpu in sample.gpus}
        pending = {
            uuid for uuid, fabric in found.items() if fabric and fabric.state not in {_NOT_SUPPORTED, _COMPLETED}
        }
        self._pending = {uuid: self._pending.get(uuid, sample.taken_at) for uuid in pending}

    def judge(self, view: View) -> Iterable[Problem]:
        """GPUs that their fabric does not serve."""
        gpus = view.sample.gpus
        if len(gpus) < 2:
            return
        for gpu in gpus:
            fabric = self._fabric.get(gpu)
            if fabric is None or fabric.state == _NOT_SUPPORTED or _exempt(gpu.model):
                continue
            if fabric.state == _COMPLETED:
                yield from _completed(gpu, fabric)
            elif self._overdue(gpu, view):
                yield _pending(gpu, fabric)

    def _overdue(self, gpu: GPUSample, view: View) -> bool:
        expected = bool(view.host.nvswitches) or any(name in gpu.model for name in _RACK_SCALE)
        return expected and view.now - self._pending.get(gpu.uuid, view.now) >= _SETTLED_SECONDS


def _exempt(model: str) -> bool:
    return "PCIe" in model or "GH200" in model


def _completed(gpu: GPUSample, fabric: FabricSample) -> Iterable[Problem]:
    if fabric.status:
        yield _failed(gpu, fabric.status)
        return
    told = masks.decode(fabric.health_mask or 0)
    mask = evidence("healthMask", fabric.health_mask) if fabric.health_mask is not None else None
    if told.misconfigured:
        words = f"its fabric is configured wrongly: {told.misconfigured}"
        yield _problem(
            gpu, "FabricMisconfigured", Severity.WARNING, Blame.ENVIRONMENT, Action.RESTART_FABRIC_MANAGER, words, mask
        )
    if told.broken or fabric.health_summary == _UNHEALTHY:
        words = f"its fabric is unhealthy: {', '.join(told.broken) or 'the driver says no more'}"
        yield _problem(
            gpu, "FabricUnhealthy", Severity.CRITICAL, Blame.HARDWARE, Action.RESTART_FABRIC_MANAGER, words, mask
        )
    elif told.reduced or fabric.health_summary == _LIMITED:
        words = f"its fabric is degraded: {', '.join(told.reduced) or 'limited capacity'}"
        yield _problem(
            gpu, "FabricDegraded", Severity.WARNING, Blame.HARDWARE, Action.RESTART_FABRIC_MANAGER, words, mask
        )


def _failed(gpu: GPUSample, status: int) -> Problem:
    shown = evidence("status", status, threshold=0)
    if status == _INSUFFICIENT_RESOURCES:
        words = "its fabric says 'insufficient resources', which machines that work have said as well"
        return _problem(gpu, "InsufficientResources", Severity.INFO, Blame.DRIVER, Action.NONE, words, shown)
    words = f"it could not join its NVSwitch fabric (status {status})"
    return _problem(
        gpu, "RegistrationFailed", Severity.CRITICAL, Blame.DRIVER, Action.RESTART_FABRIC_MANAGER, words, shown
    )


def _pending(gpu: GPUSample, fabric: FabricSample) -> Problem:
    words = f"it has not joined its NVSwitch fabric for 5 minutes ({_STATES.get(fabric.state, fabric.state)})"
    shown = evidence("state", _STATES.get(fabric.state, fabric.state), threshold="completed")
    return _problem(
        gpu, "RegistrationPending", Severity.WARNING, Blame.DRIVER, Action.RESTART_FABRIC_MANAGER, words, shown
    )


def _problem(
    gpu: GPUSample,
    reason: str,
    severity: Severity,
    blame: Blame,
    action: Action,
    words: str,
    shown: Evidence | None,
) -> Problem:
    subject = subject_of(gpu)
    return Problem(
        check=Check.FABRIC,
        reason=reason,
        severity=severity,
        blame=blame,
        action=action,
        message=f"{say(subject)}: {words}.",
        subject=subject,
        evidence=() if shown is None else (shown,),
    )
