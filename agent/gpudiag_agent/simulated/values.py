"""What a GPU of a scenario says: every value of a sample, each of which may be left out."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from gpudiag_agent.sample import (
    C2CLinkSample,
    CallError,
    FabricSample,
    GPUProcess,
    NVLinkSample,
    PCIeSample,
    RowHistogram,
    ThrottleTimes,
)
from gpudiag_api.naming import camel

Whole = int | None | UnsetType
Flag = bool | None | UnsetType
Index = Annotated[int, msgspec.Meta(ge=0, le=63)]


class Part(msgspec.Struct, frozen=True, kw_only=True, rename=camel, forbid_unknown_fields=True):
    """Shared settings: camelCase, and a misspelt field is an error."""


class MIGSlice(Part, frozen=True, kw_only=True):
    """Some MIG devices of one profile."""

    profile: str
    count: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None


class Values(Part, frozen=True, kw_only=True):
    """What one GPU says. Fields left out keep the value of ``defaults``; there, they are not supported."""

    memory_total_bytes: Whole = UNSET
    memory_used_bytes: Whole = UNSET
    memory_reserved_bytes: Whole = UNSET
    mig_current: Flag = UNSET
    mig_pending: Flag = UNSET
    temperature_celsius: Whole = UNSET
    temperature_slowdown_celsius: Whole = UNSET
    temperature_shutdown_celsius: Whole = UNSET
    temperature_max_celsius: Whole = UNSET
    memory_temperature_celsius: Whole = UNSET
    memory_temperature_max_celsius: Whole = UNSET
    thermal_margin_celsius: Whole = UNSET
    thermal_margin_slowdown_celsius: Whole = UNSET
    power_milliwatts: Whole = UNSET
    power_limit_milliwatts: Whole = UNSET
    power_default_limit_milliwatts: Whole = UNSET
    energy_millijoules: Whole = UNSET
    utilization_percent: Whole = UNSET
    memory_utilization_percent: Whole = UNSET
    encoder_utilization_percent: Whole = UNSET
    decoder_utilization_percent: Whole = UNSET
    sm_clock_mhz: Whole = UNSET
    sm_clock_max_mhz: Whole = UNSET
    memory_clock_mhz: Whole = UNSET
    application_clock_mhz: Whole = UNSET
    application_clock_default_mhz: Whole = UNSET
    performance_state: Whole = UNSET
    clock_event_reasons: Whole = UNSET
    throttle_times: ThrottleTimes | UnsetType | None = UNSET
    persistence_mode: Flag = UNSET
    ecc_current: Flag = UNSET
    ecc_pending: Flag = UNSET
    ecc_uncorrected_volatile: Whole = UNSET
    ecc_corrected_volatile: Whole = UNSET
    ecc_uncorrected_aggregate: Whole = UNSET
    ecc_corrected_aggregate: Whole = UNSET
    sram_threshold_exceeded: Flag = UNSET
    sram_uncorrected: Mapping[str, int] | UnsetType = UNSET
    remapped_rows_corrected: Whole = UNSET
    remapped_rows_uncorrected: Whole = UNSET
    remap_pending: Flag = UNSET
    remap_failure: Flag = UNSET
    remap_histogram: RowHistogram | UnsetType | None = UNSET
    bank_remap_pending: Flag = UNSET
    retired_pages_single_bit: Whole = UNSET
    retired_pages_double_bit: Whole = UNSET
    retired_pages_pending: Flag = UNSET
    channel_repair_pending: Flag = UNSET
    tpc_repair_pending: Flag = UNSET
    unrepairable_memory: Flag = UNSET
    inforom_valid: Flag = UNSET
    vbios_version: str | UnsetType = UNSET
    gsp_enabled: Flag = UNSET
    gsp_default: Flag = UNSET
    gsp_version: str | UnsetType = UNSET
    architecture: Whole = UNSET
    numa_node: Whole = UNSET
    pcie: PCIeSample | UnsetType | None = UNSET
    nvlinks: tuple[NVLinkSample, ...] | UnsetType | None = UNSET
    c2c: tuple[C2CLinkSample, ...] | UnsetType | None = UNSET
    fabric: FabricSample | UnsetType | None = UNSET
    processes: tuple[GPUProcess, ...] | UnsetType | None = UNSET
    recovery_action: Whole = UNSET
    errors: tuple[CallError, ...] | UnsetType = UNSET
    """Calls that fail: the values that they would give are to be left out or null."""
    unread: tuple[CallError, ...] | UnsetType = UNSET
    """Details that are not told, likewise."""
    mig: tuple[MIGSlice, ...] | UnsetType = UNSET


class GPUChange(Values, frozen=True, kw_only=True):
    """One GPU that differs from ``defaults``."""

    index: Index
    model: str | UnsetType = UNSET
    uuid: str | UnsetType = UNSET
    pci: str | UnsetType = UNSET
    serial: str | UnsetType = UNSET
    lost: bool = False
    """Every call says GPU_IS_LOST (NVML error 15)."""
    reset_required: bool = False
    """Every call says RESET_REQUIRED (NVML error 16)."""
    absent: bool = False
    """NVML does not list it."""


SAMPLED = tuple(field.name for field in msgspec.structs.fields(Values) if field.name != "mig")
"""Names of the values that a sample takes as they are."""


def given(change: Values, defaults: Values) -> dict[str, Any]:
    """The values of a GPU: its own, else the default, and nothing where neither says."""
    found = {}
    for name in SAMPLED:
        value = getattr(change, name)
        if value is UNSET:
            value = getattr(defaults, name)
        if value is not UNSET:
            found[name] = value
    return found


def inherit(document: object) -> object:
    """Complete the composite values of single GPUs from ``defaults``, before they are typed.

    ``pcie: {width: 8}`` of one GPU changes the width alone; in a list of links, the entries with the same ``link``.
    """
    if not isinstance(document, dict) or not isinstance(document.get("defaults"), dict):
        return document
    gpus = document.get("gpus")
    if not isinstance(gpus, list):
        return document
    defaults = document["defaults"]
    return {**document, "gpus": [_inherited(gpu, defaults) for gpu in gpus]}


def _inherited(gpu: object, defaults: dict[Any, Any]) -> object:
    if not isinstance(gpu, dict):
        return gpu
    return {name: _merged(value, defaults.get(name)) for name, value in gpu.items()}


def _merged(value: object, default: object) -> object:
    if isinstance(value, dict) and isinstance(default, dict):
        return {**default, **{name: _merged(part, default.get(name)) for name, part in value.items()}}
    if _are_links(value) and _are_links(default):
        assert isinstance(value, list)
        assert isinstance(default, list)
        changes = {entry["link"]: entry for entry in value}
        known = {entry["link"]: entry for entry in default}
        links = [*known, *(link for link in changes if link not in known)]
        return [_merged(changes.get(link, known.get(link)), known.get(link)) for link in links]
    return value


def _are_links(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("link"), int) for entry in value
    )
