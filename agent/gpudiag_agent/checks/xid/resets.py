"""Evidence in samples that a GPU was reset, or that the driver says it recovered."""

import msgspec

from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api.vocabulary import Capability

_MAX_ADDRESSES = 256


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What one sample shows."""

    driver_loaded: bool = False
    recovered: tuple[str, ...] = ()
    """PCI addresses of GPUs whose recovery action (field 230) went back to none."""
    reset: tuple[str, ...] = ()
    """PCI addresses of GPUs whose counters all began anew."""


class ResetWatch:
    """Compares each sample with the one before."""

    def __init__(self) -> None:
        self.demands: dict[str, int] = {}
        """PCI address → the recovery action last seen."""
        self._counters: dict[str, tuple[int, ...]] = {}
        self._driver_was_gone = False

    def remember(self, demands: dict[str, int]) -> None:
        """Take the recovery actions that an earlier life of the agent had seen."""
        self.demands = dict(demands)

    def forget(self) -> None:
        """The driver was loaded anew: nothing from before compares."""
        self.demands.clear()
        self._counters.clear()

    def observe(self, sample: Sample) -> Seen:
        """Take a finished sample."""
        if sample.fault is not None:
            self._driver_was_gone |= sample.fault.reason is Capability.NO_DRIVER
            return Seen()
        loaded, self._driver_was_gone = self._driver_was_gone, False
        recovered, reset = [], []
        for gpu in sample.gpus:
            if not gpu.pci or (gpu.pci not in self.demands and len(self.demands) >= _MAX_ADDRESSES):
                continue
            if gpu.recovery_action is not None:
                if self.demands.get(gpu.pci) and gpu.recovery_action == 0:
                    recovered.append(gpu.pci)
                self.demands[gpu.pci] = gpu.recovery_action
            if self._began_anew(gpu):
                reset.append(gpu.pci)
        return Seen(driver_loaded=loaded, recovered=tuple(recovered), reset=tuple(reset))

    def _began_anew(self, gpu: GPUSample) -> bool:
        now = _counters(gpu)
        before = self._counters.get(gpu.pci)
        if now is None:
            return False
        if before is not None or len(self._counters) < _MAX_ADDRESSES:
            self._counters[gpu.pci] = now
        if before is None or len(before) != len(now):
            return False
        # All that had counted fell: one that is reset alone (nvidia-smi can do that) is no reset of the GPU.
        counted = [(old, new) for old, new in zip(before, now, strict=True) if old > 0]
        return bool(counted) and all(new < old for old, new in counted)


def _counters(gpu: GPUSample) -> tuple[int, ...] | None:
    """Counters that start at zero with a reset; None: not all of those that the GPU has could be read."""
    if gpu.errors:
        return None
    replays = gpu.pcie.replays if gpu.pcie is not None else None
    times = gpu.throttle_times
    values = (
        gpu.ecc_uncorrected_volatile,
        gpu.ecc_corrected_volatile,
        replays,
        times.software_thermal if times else None,
        times.hardware_thermal if times else None,
        times.hardware_power_brake if times else None,
    )
    return tuple(value for value in values if value is not None)
