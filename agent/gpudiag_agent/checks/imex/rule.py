"""The IMEX service, through which GPUs of several nodes share memory over NVLink (GB200 NVL72 and its like).

| what | finding | cleared by |
|---|---|---|
| configured for a domain, its service ran and is away for 60 s | NotRunning, Warning | it runs; no configuration |
| the same of one that was never seen to run | NotRunning, Info | as above |
| 3 restarts within 10 minutes with one configuration | Flapping, Warning | 10 minutes with fewer |

A node is configured for a domain when ``/etc/nvidia-imex/nodes_config.cfg`` lists more than itself. Nothing else asks
for IMEX: not the model, not an NVSwitch (EKS node agent #63, NVSentinel #1471), and not a driver that runs it in pods,
where it comes and goes with the jobs (DCGM #308, aicr #2641). A process in a pod counts as running, never as missing.
A start after ``nodes_config.cfg`` was written anew is no restart: prologues of jobs do so, several times in ten minutes
where jobs are short.
That a GPU demands a recovery of its domain (field 230, XID 154) is the XID check's finding. Not judged: the first 5
minutes after boot, a driver that cannot be read, a container that sees no processes of the node. The 60 s begin when
the driver answers and the configuration is there.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence
from gpudiag_agent.checks.daemon import RESTARTS, DaemonWatch
from gpudiag_agent.host.facts import IMEX as DAEMON
from gpudiag_agent.sample import Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

_DOMAIN = 2
"""Nodes of the smallest domain."""


class IMEX:
    """See the module."""

    name = Check.IMEX
    needs = Witness.NVML | Witness.DAEMONS

    def __init__(self) -> None:
        self._daemon = DaemonWatch(DAEMON)

    def observe(self, sample: Sample) -> None:
        """Follow the process."""
        in_domain = (sample.host.imex_nodes or 0) >= _DOMAIN
        needed = in_domain and sample.fault is None
        self._daemon.observe(sample.host, sample.taken_at, needed=needed, task=sample.host.imex_written)

    def judge(self, view: View) -> Iterable[Problem]:
        """Whether a node of a domain lacks it."""
        nodes = view.host.imex_nodes or 0
        if view.sample.fault is not None or nodes < _DOMAIN:
            return
        if self._daemon.missing(view.host, view.now):
            yield _not_running(nodes, seen=self._daemon.seen)
        restarts = self._daemon.restarts(view.now)
        if restarts >= RESTARTS:
            yield Problem(
                check=Check.IMEX,
                reason="Flapping",
                severity=Severity.WARNING,
                blame=Blame.DRIVER,
                action=Action.RESTART_FABRIC_MANAGER,
                message=f"nvidia-imex was started {restarts} times within 10 minutes, its configuration unchanged: "
                "something ends it. Read its log before starting it again.",
                evidence=(evidence("restarts", restarts, threshold=RESTARTS, unit="1/10min"),),
            )


def _not_running(nodes: int, *, seen: bool) -> Problem:
    why = "jobs over several nodes cannot share GPU memory" if seen else "fine where pods run it, job by job"
    return Problem(
        check=Check.IMEX,
        reason="NotRunning",
        severity=Severity.WARNING if seen else Severity.INFO,
        blame=Blame.DRIVER if seen else Blame.UNKNOWN,
        action=Action.RESTART_FABRIC_MANAGER if seen else Action.NONE,
        message=f"nvidia-imex does not run, and this node is configured for a domain of {nodes} nodes: {why}.",
        evidence=(evidence("running", 0, threshold=1, unit="processes"), evidence("domainNodes", nodes, unit="nodes")),
    )
