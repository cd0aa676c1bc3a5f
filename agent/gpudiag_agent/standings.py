"""Which sources speak, when each last did, and so which checks can judge. Pure."""

from collections.abc import Iterable, Iterator

import msgspec

from gpudiag_agent.attribution.model import Usage
from gpudiag_agent.checks.base import Check, Witness
from gpudiag_agent.sample import Sample
from gpudiag_api.vocabulary import Capability
from gpudiag_api.vocabulary import Check as Name


class Standing(msgspec.Struct, frozen=True):
    """Whether a check can judge."""

    up: bool
    """Every source that it needs speaks."""
    last_success: float | None
    """Unix time at which all of them last did; None: one never has."""


class Standings:
    """Follows the sources of all checks.

    Args:
        checks: those that are run; several may share a name, which then needs what any of them needs.
    """

    def __init__(self, checks: Iterable[Check]) -> None:
        self._needs: dict[Name, Witness] = {}
        for check in checks:
            self._needs[check.name] = self._needs.get(check.name, Witness(0)) | check.needs
        self._speaking = Witness(0)
        self._last: dict[Witness, float] = {}

    def sampled(self, sample: Sample) -> None:
        """Take what a look at the GPUs and at the host gave."""
        host, at = sample.host, sample.taken_at
        # A driver that lists no GPU has answered; that this makes nobody healthy is the report's to say.
        answered = sample.fault is None or sample.fault.reason is Capability.NO_GPUS
        # A bus without a single GPU is believed where the driver has none either.
        bus = host.pci is not None or (host.nvswitches is not None and not sample.gpus)
        seen = at if host.taken_at is None else host.taken_at
        self._heard(Witness.LOOK, at)
        self._heard(Witness.NVML, at if answered else None)
        self._heard(Witness.PCI_BUS, seen if bus else None)
        self._heard(Witness.PORTS, None if host.ports is None else seen)
        self._heard(Witness.MODULES, None if host.modules is None else seen)
        self._heard(Witness.DAEMONS, None if host.daemons is None else seen)

    def judged(self, now: float, *, kernel_log_problem: str | None, usage: Usage) -> None:
        """Take how the sources stand that speak at any time; ``now`` in Unix seconds."""
        self._heard(Witness.KERNEL_LOG, now if kernel_log_problem is None else None)
        self._heard(Witness.PROCESSES, None if usage.owners is None else now)
        # A kubelet that nobody asks for is none that is missing: there are machines without one.
        answered = now if usage.pods_at is None else usage.pods_at
        self._heard(Witness.KUBELET, answered if usage.pods_problem is None else None)

    def failed(self) -> None:
        """The agent itself failed: until it looks and judges again, nothing that was said counts."""
        self._speaking = Witness(0)

    def all(self) -> Iterator[tuple[Name, Standing]]:
        """Every check, by name."""
        for name, needs in self._needs.items():
            times = [self._last.get(witness) for witness in needs]
            known = [at for at in times if at is not None]
            last = min(known) if len(known) == len(times) else None
            yield name, Standing(self._speaking & needs == needs, last)

    def _heard(self, witness: Witness, at: float | None) -> None:
        """It spoke at that Unix time; None: it is silent."""
        if at is None:
            self._speaking &= ~witness
            return
        self._speaking |= witness
        self._last[witness] = at
