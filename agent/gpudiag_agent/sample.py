"""What one look at the GPUs gave: the seam between the sources (NVML, simulated) and the checks.

A value is None when the driver says NOT_SUPPORTED, the symbol is missing, or the read failed; ``errors`` and ``unread``
tell the failures apart. A check never sees an NVML handle, a process or a file: it judges samples.
"""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from gpudiag_agent.host.facts import HostFacts
from gpudiag_api.naming import camel
from gpudiag_api.vocabulary import Capability

NVML_ERROR_GPU_IS_LOST = 15
NVML_ERROR_RESET_REQUIRED = 16


class _Part(msgspec.Struct, frozen=True, rename=camel, forbid_unknown_fields=True):
    """What a GPU's sample holds. A scenario file says it in the same words, camelCase; a misspelt one is an error."""


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
    memory_used_bytes: int | None = None


class GPUProcess(_Part, frozen=True, kw_only=True):
    """A process that uses a GPU, as the driver lists it (host pid)."""

    pid: int
    kind: str
    """``compute`` or ``graphics``."""
    memory_bytes: int | None = None
    mig_gpu_instance: int | None = None
    mig_compute_instance: int | None = None


class PCIeSample(_Part, frozen=True, kw_only=True):
    """The PCIe link of a GPU. The generation drops at idle: judge it only under load (P0)."""

    generation: int | None = None
    generation_max: int | None = None
    """What GPU and slot together can do (``nvmlDeviceGetMaxPcieLinkGeneration``)."""
    width: int | None = None
    width_max: int | None = None
    replays: int | None = None
    """Counter since the driver was loaded (field 94)."""
    errors: Mapping[str, int] = {}
    """Counters of fields 169 and 173 to 183 that the GPU has, by name: ``correctable``, ``naks_received``,
    ``receiver``, ``bad_tlp``, ``naks_sent``, ``bad_dllp``, ``non_fatal``, ``fatal``, ``unsupported_request``, ``lcrc``,
    ``lane``, ``l0_to_recovery``."""


class NVLinkSample(_Part, frozen=True, kw_only=True):
    """One NVLink of a GPU."""

    link: int
    active: bool | None = None
    remote_pci: str = ""
    remote_kind: str = ""
    """``gpu``, ``switch``, ``cpu`` (``nvmlDeviceGetNvLinkRemoteDeviceType``); empty: unknown."""
    version: int | None = None
    errors: Mapping[str, int] = {}
    """Lifetime counters by name: ``replay``, ``recovery``, ``crc_flit``, ``crc_data``, ``ecc_data`` (up to NVLink 4);
    ``malformed``, ``buffer_overrun``, ``receive``, ``receive_remote``, ``receive_general``, ``link_integrity``,
    ``transmit_discards``, ``recovery_successful``, ``recovery_failed``, ``recovery_events``, ``effective``, ``symbol``
    (NVLink 5, fields 206 to 222)."""
    effective_bit_error_rate: float | None = None
    symbol_bit_error_rate: float | None = None


class C2CLinkSample(_Part, frozen=True, kw_only=True):
    """One chip-to-chip link of a Grace superchip (fields 170 to 172, 231 to 234)."""

    link: int
    active: bool | None = None
    errors: Mapping[str, int] = {}
    """Counters: ``interrupt``, ``replay``, ``replay_back_to_back``."""


class FabricSample(_Part, frozen=True, kw_only=True):
    """Where a GPU stands in its NVSwitch fabric (``nvmlDeviceGetGpuFabricInfoV``)."""

    state: int
    """0 not supported, 1 not started, 2 in progress, 3 completed."""
    status: int | None = None
    """An ``nvmlReturn_t``: 0 success; only once completed."""
    health_summary: int | None = None
    """0 not supported, 1 healthy, 2 unhealthy, 3 limited capacity."""
    health_mask: int | None = None
    clique_id: int | None = None
    cluster_uuid: str = ""


class RowHistogram(_Part, frozen=True):
    """Banks of the row remapper by how many spare rows they have left."""

    maximum: int
    high: int
    partial: int
    low: int
    none: int


class ThrottleTimes(_Part, frozen=True, kw_only=True):
    """Nanoseconds spent slowed down since the driver was loaded (fields 269 to 271)."""

    software_thermal: int | None = None
    hardware_thermal: int | None = None
    hardware_power_brake: int | None = None


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
    memory_reserved_bytes: int | None = None
    """What the driver and the firmware keep; beside what is used. None: an older driver counts it as used."""
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
    energy_millijoules: int | None = None
    """Drawn since the driver was loaded (Volta and later)."""
    utilization_percent: int | None = None
    memory_utilization_percent: int | None = None
    """Share of time in which memory was read or written."""
    encoder_utilization_percent: int | None = None
    decoder_utilization_percent: int | None = None
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
    ecc_corrected_aggregate: int | None = None
    sram_threshold_exceeded: bool | None = None
    """The vendor's criterion for replacement on A100 and later (``nvmlDeviceGetSramEccErrorStatus``)."""
    sram_uncorrected: Mapping[str, int] = {}
    """Aggregate uncorrectable SRAM errors by place: ``l2``, ``sm``, ``microcontroller``, ``pcie``, ``other``."""
    remap_histogram: RowHistogram | None = None
    bank_remap_pending: bool | None = None
    """Field 307."""
    retired_pages_single_bit: int | None = None
    """Pages retired, before A100 (V100, T4, P100)."""
    retired_pages_double_bit: int | None = None
    retired_pages_pending: bool | None = None
    channel_repair_pending: bool | None = None
    tpc_repair_pending: bool | None = None
    unrepairable_memory: bool | None = None
    power_default_limit_milliwatts: int | None = None
    sm_clock_max_mhz: int | None = None
    memory_clock_mhz: int | None = None
    application_clock_mhz: int | None = None
    """The SM clock that somebody set for applications."""
    application_clock_default_mhz: int | None = None
    throttle_times: ThrottleTimes | None = None
    persistence_mode: bool | None = None
    inforom_valid: bool | None = None
    """Read rarely: it is slow. None: not read this time, or unsupported."""
    vbios_version: str = ""
    gsp_enabled: bool | None = None
    gsp_default: bool | None = None
    """Whether the GPU would use the GSP by default."""
    gsp_version: str = ""
    architecture: int | None = None
    """``nvmlDeviceArchitecture_t``: 5 Volta, 6 Turing, 7 Ampere, 8 Ada, 9 Hopper, 10 Blackwell."""
    numa_node: int | None = None
    """Of the memory nearest to the GPU (``nvmlDeviceGetMemoryAffinity``)."""
    pcie: PCIeSample | None = None
    nvlinks: tuple[NVLinkSample, ...] | None = None
    """None: the GPU has none."""
    c2c: tuple[C2CLinkSample, ...] | None = None
    fabric: FabricSample | None = None
    processes: tuple[GPUProcess, ...] | None = None
    """None: the driver does not say."""
    recovery_action: int | None = None
    """Field 230: 0 none, 1 GPU reset, 2 node reboot, 3 drain P2P, 4 drain and reset, 5 recover IMEX."""
    errors: tuple[CallError, ...] = ()
    unread: tuple[CallError, ...] = ()
    """Details that were asked for and not told. Drivers refuse details for many reasons, so none says that the GPU is
    ill; but what they feed cannot be judged."""

    @property
    def incomplete(self) -> bool:
        """Whether anything was asked for and not told: a value that is None may be there all the same."""
        return bool(self.errors or self.unread)

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
    excluded_gpus: int | None = None
    """GPUs that the driver was told to leave alone (``nvmlGetExcludedDeviceCount``)."""
    confidential_compute: bool | None = None
    confidential_compute_ready: bool | None = None
    """Whether GPUs accept work in confidential mode (``nvmlSystemGetConfComputeGpusReadyState``)."""
    gpus: tuple[GPUSample, ...] = ()
    unread: tuple[CallError, ...] = ()
    """Details of the whole node that were asked for and not told, see :attr:`GPUSample.unread`."""
    fault: SourceFault | None = None
    """Set: the GPUs could not be read; ``gpus`` is then empty."""
    host: HostFacts = HostFacts()
    """What the node said besides, at the same moment; no source sets it."""


class Source(Protocol):
    """Where samples come from."""

    async def sample(self) -> Sample:
        """Look once, within the source's own deadline. Never raises for a fault of the GPUs or the driver."""
        ...

    async def close(self) -> None:
        """Release every process and handle. A D-state child is abandoned, not waited for."""
        ...
