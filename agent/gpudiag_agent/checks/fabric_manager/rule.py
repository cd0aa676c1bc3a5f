"""The Fabric Manager, without which GPUs behind NVSwitches cannot be used together, or at all.

| what | finding | cleared by |
|---|---|---|
| NVSwitches on the PCI bus, and it does not run for 60 s | NotRunning, Critical | it runs |
| the same where every GPU has joined its fabric | NotRunning, Warning | it runs |
| no NVSwitch to be seen, but it ran, the GPUs have a fabric, and it is away for 60 s | NotRunning, Warning | it runs |
| 3 restarts within 10 minutes | Flapping, Warning | 10 minutes with fewer |

Not judged: the first 5 minutes after boot; a node with one GPU, or with MIG on every one (their NVLinks are off); GPUs
that cannot be read (a driver that is being changed: the 60 s begin when it answers, as the service starts after it); a
container that sees no processes of the node. GB200 and GB300
have no Fabric Manager on the node. Its version is not compared: one that does not fit the driver ends at once, and
that is seen.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence
from gpudiag_agent.checks.daemon import ABSENT_SECONDS, RESTARTS, DaemonWatch
from gpudiag_agent.host.facts import FABRIC_MANAGER
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

_COMPLETED = 3
_RACK_SCALE = ("GB200", "GB300")


class FabricManager:
    """See the module."""

    name = Check.FABRIC_MANAGER
    needs = Witness.NVML | Witness.PCI_BUS | Witness.DAEMONS

    def __init__(self) -> None:
        self._daemon = DaemonWatch(FABRIC_MANAGER)

    def observe(self, sample: Sample) -> None:
        """Follow the process."""
        self._daemon.observe(sample.host, sample.taken_at, needed=sample.fault is None)

    def judge(self, view: View) -> Iterable[Problem]:
        """Whether the node lacks it."""
        linked = [gpu for gpu in view.sample.gpus if not gpu.mig_current]
        if len(view.sample.gpus) < 2 or not linked:
            return
        if self._daemon.missing(view.host, view.now):
            if view.host.nvswitches:
                joined = all(gpu.fabric is not None and gpu.fabric.state == _COMPLETED for gpu in linked)
                yield _not_running(view.host.nvswitches, Severity.WARNING if joined else Severity.CRITICAL)
            elif self._daemon.seen and any(map(_served_here, linked)):
                yield _not_running(0, Severity.WARNING)
        restarts = self._daemon.restarts(view.now)
        if restarts >= RESTARTS:
            yield _flapping(restarts)


def _served_here(gpu: GPUSample) -> bool:
    return bool(gpu.fabric and gpu.fabric.state) and not any(name in gpu.model for name in _RACK_SCALE)


def _not_running(switches: int, severity: Severity) -> Problem:
    effect = (
        "GPUs keep the links they have, and nobody mends them."
        if severity is Severity.WARNING
        else "CUDA cannot start on GPUs that have not joined their fabric (error 802)."
    )
    where = f"this node has {switches} NVSwitches" if switches else "it ran before"
    return Problem(
        check=Check.FABRIC_MANAGER,
        reason="NotRunning",
        severity=severity,
        blame=Blame.DRIVER,
        action=Action.RESTART_FABRIC_MANAGER,
        message=f"The Fabric Manager does not run, and {where}. {effect}",
        evidence=(
            evidence("running", 0, threshold=1, unit="processes"),
            evidence("nvswitches", switches),
            evidence("absentFor", f"{ABSENT_SECONDS:.0f}+", unit="s"),
        ),
    )


def _flapping(restarts: int) -> Problem:
    return Problem(
        check=Check.FABRIC_MANAGER,
        reason="Flapping",
        severity=Severity.WARNING,
        blame=Blame.DRIVER,
        action=Action.RESTART_FABRIC_MANAGER,
        message=f"The Fabric Manager was started {restarts} times within 10 minutes: something ends it. "
        "Read its log before starting it again.",
        evidence=(evidence("restarts", restarts, threshold=RESTARTS, unit="1/10min"),),
    )
