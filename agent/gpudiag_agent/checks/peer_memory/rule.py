"""The nvidia-peermem module, through which InfiniBand and RoCE adapters reach GPU memory.

| what | finding | cleared by |
|---|---|---|
| it was in use and is not for 5 minutes | Detached, Warning | it is in use; no active port; the agent's restart |
| the same with the open kernel module | Detached, Info | as above |
| it is loaded and ib_core does not use it for 5 minutes | NotAttached, Info | it is in use, or unloaded |
| it is not loaded, with the proprietary kernel module | NotLoaded, Info | it is loaded |

Only where the NVIDIA module is loaded and an active port carries jobs between nodes: InfiniBand, or Ethernet of 200
Gb/s and more. Every server's network card is a RoCE adapter too, and EFA has a way of its own. Without it jobs between
nodes work, slowly: data takes the way over the host's memory. The open kernel module shares GPU memory by DMA-BUF and
needs none, so there a missing one is as good as a loaded one; hence never more than Info unless it was in use before.
The kernel line "detected invalid context" is a finding of this check too, see the kernel signals.
"""

from collections.abc import Iterable

from gpudiag_agent.checks.base import Problem, View, Witness, evidence
from gpudiag_agent.host.facts import HostFacts
from gpudiag_agent.sample import Sample
from gpudiag_api.vocabulary import Action, Blame, Check, Severity

_SETTLED_SECONDS = 300.0
"""After a driver reload the module follows within minutes."""
_NAMES = ("nvidia_peermem", "nv_peer_mem")
"""Today's module, and its predecessor of another source."""


class PeerMemory:
    """See the module."""

    name = Check.PEER_MEMORY
    needs = Witness.NVML | Witness.PORTS | Witness.MODULES

    def __init__(self) -> None:
        self._was_in_use = False
        self._lacking_since: float | None = None

    def observe(self, sample: Sample) -> None:
        """Remember whether it was in use, and since when it is not."""
        if not _concerned(sample.host):
            self._lacking_since = None
            return
        if _in_use(sample.host):
            self._was_in_use, self._lacking_since = True, None
        elif self._lacking_since is None:
            self._lacking_since = sample.taken_at

    def judge(self, view: View) -> Iterable[Problem]:
        """Why adapters do not reach GPU memory, where they might."""
        host = view.host
        if view.sample.fault is not None or not _concerned(host) or _in_use(host):
            return
        if self._lacking_since is None or view.now - self._lacking_since < _SETTLED_SECONDS:
            return
        loaded = any(name in (host.modules or {}) for name in _NAMES)
        dma_buf = host.kernel_driver is not None and host.kernel_driver.open
        if self._was_in_use:
            words = "nvidia-peermem was in use by the network adapters and no longer is."
            yield _problem("Detached", Severity.INFO if dma_buf else Severity.WARNING, words)
        elif loaded:
            yield _problem("NotAttached", Severity.INFO, "nvidia-peermem is loaded, and ib_core does not use it.")
        elif host.kernel_driver is not None and not dma_buf:
            words = "nvidia-peermem is not loaded, and the node has InfiniBand or RoCE."
            yield _problem("NotLoaded", Severity.INFO, words)


def _concerned(host: HostFacts) -> bool:
    used = any(port.active and port.carries_jobs(port.rate_gbps or 0) for port in host.ports or ())
    return used and host.modules is not None and "nvidia" in host.modules and "ib_core" in host.modules


def _in_use(host: HostFacts) -> bool:
    users = {*(host.modules or {}).get("ib_core", ()), *(host.modules or {}).get("ib_uverbs", ())}
    return any(name in users for name in _NAMES)


def _problem(reason: str, severity: Severity, words: str) -> Problem:
    return Problem(
        check=Check.PEER_MEMORY,
        reason=reason,
        severity=severity,
        blame=Blame.DRIVER,
        action=Action.NONE,
        message=f"{words} Data between nodes may take the slow way over the host's memory; load it: "
        "modprobe nvidia-peermem.",
        evidence=(evidence("ibCoreUsesPeermem", 0, threshold=1),),
    )
