"""Numeric limits of the checks: the agent's configuration, with defaults that fit NVIDIA's own limits.

What the GPU itself gives a limit for (temperatures, margins, width of its link, number of spare rows) is judged by
that, unless a limit is set here. Flags of the GPU (remap failed, repair pending) have no threshold.
"""

from typing import Annotated

import msgspec

from gpudiag_api.naming import camel


def _doc(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


Celsius = Annotated[int, msgspec.Meta(ge=30, le=130)]
Degrees = Annotated[int, msgspec.Meta(ge=0, le=30)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=3600)]
Share = Annotated[int, msgspec.Meta(ge=1, le=100)]
Errors = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
Pages = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Lanes = Annotated[int, msgspec.Meta(ge=1, le=32)]
Generation = Annotated[int, msgspec.Meta(ge=1, le=15)]


class _Limits(msgspec.Struct, frozen=True, kw_only=True, rename=camel, forbid_unknown_fields=True):
    """Shared settings: camelCase, and a misspelt name is an error."""


class TemperatureLimits(_Limits, frozen=True, kw_only=True):
    """Check Temperature."""

    gpu_celsius: Annotated[Celsius | None, _doc("Highest GPU temperature; null: the GPU's own limits.")] = None
    memory_celsius: Annotated[Celsius | None, _doc("Highest memory temperature; null: the GPU's own limit.")] = None
    clear_below_celsius: Annotated[Degrees, _doc("Degrees inside the limit at which a reading counts as calm.")] = 3
    clear_after_seconds: Annotated[Seconds, _doc("Seconds of calm that clear a finding.")] = 60


class ThrottlingLimits(_Limits, frozen=True, kw_only=True):
    """Check Throttling. Shares of the last minute."""

    raise_percent: Annotated[Share, _doc("Share of the last minute slowed down that raises a finding.")] = 60
    clear_percent: Annotated[Share, _doc("Share below which it clears; not above raisePercent.")] = 20

    def __post_init__(self) -> None:
        """Refuse limits between which a finding would flap."""
        if self.clear_percent > self.raise_percent:
            raise ValueError(f"clearPercent {self.clear_percent} is above raisePercent {self.raise_percent}")


class PowerLimits(_Limits, frozen=True, kw_only=True):
    """Check Power."""

    lowest_limit_percent: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=100)] | None,
        _doc("A power limit below this share of the default is a Warning; null: never more than Info."),
    ] = None


class PCIeLinkLimits(_Limits, frozen=True, kw_only=True):
    """Check PCIeLink."""

    lowest_width: Annotated[
        Lanes | None, _doc("Lanes to be content with, for slots that are narrower than the GPU; null: all of them.")
    ] = None
    lowest_generation: Annotated[
        Generation | None, _doc("Generation to be content with under load; null: what GPU and slot can do.")
    ] = None


class PCIeErrorLimits(_Limits, frozen=True, kw_only=True):
    """Check PCIeErrors."""

    replays_per_minute: Annotated[Errors, _doc("More replays in any minute are a Warning (DCGM: 8).")] = 8
    correctable_per_hour: Annotated[
        Errors, _doc("More correctable errors (receiver, bad TLP or DLLP, LCRC) in an hour are an Info.")
    ] = 1000
    non_fatal_per_hour: Annotated[Errors, _doc("More non-fatal errors in an hour are a Warning.")] = 0
    fatal_per_hour: Annotated[Errors, _doc("More fatal errors in an hour are Critical.")] = 0


class ECCCorrectedLimits(_Limits, frozen=True, kw_only=True):
    """Check ECCCorrected."""

    per_hour: Annotated[Errors, _doc("More corrected errors in an hour are a Warning.")] = 1000
    per_day: Annotated[Errors, _doc("More in a day are an Info: a trend to watch.")] = 100


class RetiredPageLimits(_Limits, frozen=True, kw_only=True):
    """Check RetiredPages (GPUs before A100)."""

    total: Annotated[Pages, _doc("That many retired pages in all qualify for replacement (DCGM: 63).")] = 63
    double_bit: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=1000)],
        _doc("More pages retired for double-bit errors, while they grow, qualify for replacement (DCGM: 15)."),
    ] = 15
    double_bit_per_week: Annotated[Errors, _doc("Growth by more than this is what 'while they grow' means.")] = 1


class RowRemapLimits(_Limits, frozen=True, kw_only=True):
    """Check RowRemap."""

    banks_without_spares: Annotated[
        Errors, _doc("More memory banks with no spare row left are a Warning, before the first remap fails.")
    ] = 0
    banks_low: Annotated[Errors, _doc("More memory banks with few spare rows left are an Info.")] = 0


class NVLinkErrorLimits(_Limits, frozen=True, kw_only=True):
    """Check NVLinkErrors. Per link."""

    recoveries_per_hour: Annotated[Errors, _doc("More recoveries from errors in an hour are a Warning.")] = 1
    replays_per_hour: Annotated[Errors, _doc("More replayed packets in an hour are a Warning.")] = 100
    crc_per_second: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=1_000_000)],
        _doc("More checksum errors per second, over a minute, are a Warning (DCGM: 100)."),
    ] = 100
    faults_per_hour: Annotated[
        Errors, _doc("NVLink 5: more faults that the link cannot mend in an hour are a Warning.")
    ] = 0
    effective_errors_per_hour: Annotated[
        Errors, _doc("NVLink 5: more errors that correction left in an hour are a Warning.")
    ] = 100


class C2CLimits(_Limits, frozen=True, kw_only=True):
    """Check C2C. Per link."""

    interrupts_per_hour: Annotated[Errors, _doc("More error interrupts in an hour are a Warning.")] = 0


class GPUCountLimits(_Limits, frozen=True, kw_only=True):
    """Check GPUCount."""

    kept_back: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=64)],
        _doc("GPUs that the device plugin keeps from the kubelet on purpose; more are a Warning."),
    ] = 0


class InfiniBandLimits(_Limits, frozen=True, kw_only=True):
    """Check InfiniBand. Per port."""

    down_seconds: Annotated[
        Annotated[int, msgspec.Meta(ge=20, le=3600)],
        _doc("Seconds for which a port that was active may be down (gpud: 240)."),
    ] = 240
    drops_per_hour: Annotated[Errors, _doc("Going down more often in an hour is a Warning.")] = 2
    symbol_errors_per_hour: Annotated[
        Errors, _doc("More symbol errors in an hour are a Warning (NVSentinel: 120).")
    ] = 120
    recoveries_per_minute: Annotated[
        Errors, _doc("More recoveries from link errors in a minute are a Warning (NVSentinel: 5).")
    ] = 5
    faults_per_hour: Annotated[
        Errors, _doc("More integrity errors and buffer overruns of the link in an hour are a Warning.")
    ] = 0
    slow_restarts_per_second: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=1_000_000)],
        _doc("RoCE: more slow restarts per second, over a minute, are an Info (NVSentinel: 10)."),
    ] = 10
    active_ports: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=128)] | None,
        _doc("Fewer active ports on a node are Critical; null: only ports that had been active are missed."),
    ] = None
    lowest_gbps: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None,
        _doc("Slower ports do not count among activePorts; null: all do."),
    ] = None


class Thresholds(_Limits, frozen=True, kw_only=True):
    """Every limit that a check compares with and that the GPU does not name itself."""

    temperature: TemperatureLimits = TemperatureLimits()
    throttling: ThrottlingLimits = ThrottlingLimits()
    power: PowerLimits = PowerLimits()
    pcie_link: PCIeLinkLimits = PCIeLinkLimits()
    pcie_errors: PCIeErrorLimits = PCIeErrorLimits()
    ecc_corrected: ECCCorrectedLimits = ECCCorrectedLimits()
    retired_pages: RetiredPageLimits = RetiredPageLimits()
    row_remap: RowRemapLimits = RowRemapLimits()
    nvlink_errors: NVLinkErrorLimits = NVLinkErrorLimits()
    c2c: C2CLimits = C2CLimits()
    gpu_count: GPUCountLimits = GPUCountLimits()
    infiniband: InfiniBandLimits = InfiniBandLimits()
