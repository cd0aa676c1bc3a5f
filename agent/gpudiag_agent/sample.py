"""What one look at the GPUs gave: the seam between the sources (NVML, simulated) and the checks.

A value is None when the driver says NOT_SUPPORTED, the symbol is missing, or the read failed; ``errors`` tells the
failures apart. A check never sees an NVML handle, a process or a file: it judges samples.
"""

from typing import Protocol

import msgspec

from gpudiag_api.vocabulary import Capability

NVML_ERROR_GPU_IS_LOST = 15
NVML_ERROR_RESET_REQUIRED = 16


class CallError(msgspec.Struct, frozen=True):
    """An NVML call that failed with something other than "not supported"."""

    call: str
    """The C function, for example ``nvmlDeviceGetTemperature``."""
    code: int
    """NVML return code, for example 15 (nvml.h, ``nvmlReturn_t``)."""
    name: str
    """Its name, for example ``NVML_ERROR_GPU_IS_LOST``."""


class MIGDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One MIG device of a GPU."""

    uuid: str
    gpu_instance: int
    compute_instance: int
    profile: str = ""
    memory_bytes: int | None = None


class GPUSample(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU at one moment. Units are in the names."""

    index: int
    uuid: str = ""
    """Empty when the GPU would not even say who it is."""
    pci: str = ""
    model: str = ""
    serial: str = ""
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    mig_current: bool | None = None
    mig_pending: bool | None = None
    mig: tuple[MIGDevice, ...] = ()
    temperature_celsius: int | None = None
    temperature_slowdown_celsius: int | None = None
    """Where the GPU starts to slow down (absolute limit; before Hopper)."""
    temperature_shutdown_celsius: int | None = None
    temperature_max_celsius: int | None = None
    """Highest operating temperature the vendor specifies (GPU_MAX)."""
    memory_temperature_celsius: int | None = None
    memory_temperature_max_celsius: int | None = None
    thermal_margin_celsius: int | None = None
    """Distance to the slowdown point as the GPU itself reports it (T.Limit), signed."""
    thermal_margin_slowdown_celsius: int | None = None
    """The margin at which hardware slowdown begins (field 194), signed: -2 on H100."""
    power_milliwatts: int | None = None
    power_limit_milliwatts: int | None = None
    utilization_percent: int | None = None
    sm_clock_mhz: int | None = None
    performance_state: int | None = None
    """0 (P0, full speed) to 15."""
    clock_event_reasons: int | None = None
    """Bit mask (nvml.h, ``nvmlClocksEventReason*``)."""
    ecc_current: bool | None = None
    ecc_pending: bool | None = None
    ecc_uncorrected_volatile: int | None = None
    """Since the driver was loaded."""
    ecc_corrected_volatile: int | None = None
    ecc_uncorrected_aggregate: int | None = None
    """Over the life of the board: history, not a fault."""
    remapped_rows_corrected: int | None = None
    remapped_rows_uncorrected: int | None = None
    remap_pending: bool | None = None
    remap_failure: bool | None = None
    recovery_action: int | None = None
    """Field 230: 0 none, 1 GPU reset, 2 node reboot, 3 drain P2P, 4 drain and reset, 5 recover IMEX."""
    errors: tuple[CallError, ...] = ()

    @property
    def lost(self) -> bool:
        """Whether the driver says this GPU is gone."""
        return any(error.code == NVML_ERROR_GPU_IS_LOST for error in self.errors)


class SourceFault(msgspec.Struct, frozen=True):
    """Why a look gave nothing at all."""

    reason: Capability
    message: str
    """What was tried, what came back, what to do."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """All GPUs of a node at one moment."""

    taken_at: float
    """Unix time in seconds."""
    driver_version: str | None = None
    cuda_version: str | None = None
    nvml_version: str | None = None
    gpus: tuple[GPUSample, ...] = ()
    fault: SourceFault | None = None
    """Set: the GPUs could not be read; ``gpus`` is then empty."""


class Source(Protocol):
    """Where samples come from."""

    async def sample(self) -> Sample:
        """Look once, within the source's own deadline. Never raises for a fault of the GPUs or the driver."""
        ...

    async def close(self) -> None:
        """Release every process and handle. A D-state child is abandoned, not waited for."""
        ...
