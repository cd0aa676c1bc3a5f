"""What lasts from one look to the next, so that most looks need not read it.

The InfoROM takes long to validate, a VBIOS does not change under a running driver. So a full look is taken at first,
every ten minutes, and after anything that may have changed a board or the driver; what it read completes the quick
looks between, GPU by GPU. Another GPU at the same place starts with nothing.

A read that failed lasts as well, or the quick looks would seem to have read it. One that had not failed before is tried
again with the next look, so that a single failure is over by then, and every minute for as long as it fails.
"""

from collections.abc import Callable

import msgspec

from gpudiag_agent.sample import CallError, GPUSample, NVLinkSample, Sample

PERIOD_SECONDS = 600.0
FAILING_SECONDS = 60.0
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
CALLS = frozenset({
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetDefaultApplicationsClock",
    "nvmlDeviceGetGspFirmwareMode",
    "nvmlDeviceGetGspFirmwareVersion",
    "nvmlDeviceGetMaxClockInfo",
    "nvmlDeviceGetMaxPcieLinkGeneration",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "nvmlDeviceGetMemoryAffinity",
    "nvmlDeviceGetNvLinkRemoteDeviceType",
    "nvmlDeviceGetNvLinkRemotePciInfo",
    "nvmlDeviceGetNvLinkVersion",
    "nvmlDeviceGetPowerManagementDefaultLimit",
    "nvmlDeviceGetTemperatureThreshold",
    "nvmlDeviceGetVbiosVersion",
    "nvmlDeviceValidateInforom",
})  # fmt: skip
"""What only a full look calls."""


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
        self._failing: frozenset[tuple[str, str]] = frozenset()
        """GPU and call: what failed in the last full look."""

    @property
    def due(self) -> bool:
        """Whether the next look should be a full one."""
        return self._monotonic() >= self._due_at

    def complete(self, sample: Sample, *, full: bool) -> Sample:
        """Remember a full look, complete a quick one."""
        seen = None if sample.fault is not None else _machine(sample)
        if full:
            self._known = {gpu.uuid: gpu for gpu in sample.gpus if gpu.uuid}
            self._due_at = self._next(sample)
        elif seen != self._seen:
            self._due_at = float("-inf")
        if seen is None:
            self._due_at = float("-inf")
        self._seen = seen
        if full or seen is None:
            return sample
        return msgspec.structs.replace(sample, gpus=tuple(self._completed(gpu) for gpu in sample.gpus))

    def _next(self, sample: Sample) -> float:
        """When to take the next full look after this one."""
        before = self._failing
        self._failing = frozenset(
            (gpu.uuid, error.call) for gpu in sample.gpus for error in _lasting(gpu.errors + gpu.unread)
        )
        if self._failing - before:
            return float("-inf")
        return self._monotonic() + (FAILING_SECONDS if self._failing else PERIOD_SECONDS)

    def _completed(self, gpu: GPUSample) -> GPUSample:
        known = self._known.get(gpu.uuid)
        if known is None or gpu.lost:
            return gpu
        changes: dict[str, object] = {name: getattr(known, name) for name in _VALUES}
        changes["errors"] = gpu.errors + _lasting(known.errors)
        changes["unread"] = gpu.unread + _lasting(known.unread)
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
    return sample.driver_version, tuple((gpu.index, gpu.uuid, _ill(gpu)) for gpu in sample.gpus)


def _ill(gpu: GPUSample) -> bool:
    """Whether calls failed that every look makes."""
    return len(_lasting(gpu.errors)) < len(gpu.errors)


def _lasting(errors: tuple[CallError, ...]) -> tuple[CallError, ...]:
    return tuple(error for error in errors if error.call in CALLS)
