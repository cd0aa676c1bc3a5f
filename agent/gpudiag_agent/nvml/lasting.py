"""What lasts from one look to the next, so that most looks need not read it.

The InfoROM takes long to validate, a VBIOS does not change under a running driver. So a full look is taken at first,
every ten minutes, and after anything that may have changed a board or the driver; what it read completes the quick
looks between, GPU by GPU. Another GPU at the same place starts with nothing.
"""

from collections.abc import Callable

import msgspec

from gpudiag_agent.sample import GPUSample, NVLinkSample, Sample

PERIOD_SECONDS = 600.0
_VALUES = (
    "temperature_shutdown_celsius",
    "temperature_slowdown_celsius",
    "temperature_max_celsius",
    "memory_temperature_max_celsius",
    "power_default_limit_milliwatts",
    "sm_clock_max_mhz",
    "application_clock_default_mhz",
    "inforom_valid",
    "vbios_version",
    "gsp_enabled",
    "gsp_default",
    "gsp_version",
    "architecture",
    "numa_node",
)


class Lasting:
    """Memory of the last full look.

    Args:
        monotonic: clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._due_at = float("-inf")
        self._seen: object = None
        self._known: dict[str, GPUSample] = {}

    @property
    def due(self) -> bool:
        """Whether the next look should be a full one."""
        return self._monotonic() >= self._due_at

    def complete(self, sample: Sample, *, full: bool) -> Sample:
        """Remember a full look, complete a quick one."""
        seen = None if sample.fault is not None else _machine(sample)
        if full:
            self._known = {gpu.uuid: gpu for gpu in sample.gpus if gpu.uuid}
            self._due_at = self._monotonic() + PERIOD_SECONDS
        elif seen != self._seen:
            self._due_at = float("-inf")
        if seen is None:
            self._due_at = float("-inf")
        self._seen = seen
        if full or seen is None:
            return sample
        return msgspec.structs.replace(sample, gpus=tuple(self._completed(gpu) for gpu in sample.gpus))

    def _completed(self, gpu: GPUSample) -> GPUSample:
        known = self._known.get(gpu.uuid)
        if known is None or gpu.lost:
            return gpu
        changes: dict[str, object] = {name: getattr(known, name) for name in _VALUES}
        if gpu.pcie is not None and known.pcie is not None:
            limits = {name: getattr(known.pcie, name) for name in ("generation_max", "width_max")}
            changes["pcie"] = msgspec.structs.replace(gpu.pcie, **limits)
        if gpu.nvlinks is not None and known.nvlinks is not None:
            links = {link.link: link for link in known.nvlinks}
            changes["nvlinks"] = tuple(_linked(link, links.get(link.link)) for link in gpu.nvlinks)
        return msgspec.structs.replace(gpu, **changes)


def _linked(link: NVLinkSample, known: NVLinkSample | None) -> NVLinkSample:
    if known is None:
        return link
    return msgspec.structs.replace(
        link, remote_pci=known.remote_pci, remote_kind=known.remote_kind, version=known.version
    )


def _machine(sample: Sample) -> object:
    """What a changed board, a reset or a reloaded driver changes."""
    return sample.driver_version, tuple((gpu.index, gpu.uuid, bool(gpu.errors)) for gpu in sample.gpus)
