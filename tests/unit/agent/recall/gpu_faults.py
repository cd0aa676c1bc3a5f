"""Faults that NVML shows (facts, sections 6.1 to 6.7), as states of the stand-in."""

from typing import Any

import msgspec

from gpudiag_agent.attribution.model import Owner
from gpudiag_agent.host.facts import HostFacts, PCIDevice
from gpudiag_agent.sample import GPUSample
from gpudiag_api.vocabulary import Action, Blame, Capability, Check, Health, Severity

from . import needs
from .model import REBOOT, Clear, Expect, Fault, Need, Values, calm, gone

Judged = tuple[Severity, Blame, Action]
HOUR, DAY, WEEK = 3600.0, 86_400.0, 604_800.0
C, W, I = Severity.CRITICAL, Severity.WARNING, Severity.INFO  # noqa: E741
HARD, SOFT, SITE, APP, NOBODY = Blame.HARDWARE, Blame.DRIVER, Blame.ENVIRONMENT, Blame.APPLICATION, Blame.UNKNOWN
IDLE_RESET, RESET, BOOT = Action.RESET_GPU_WHEN_IDLE, Action.DRAIN_AND_RESET_GPU, Action.REBOOT_NODE
RESEAT, REPLACE, DIAGNOSE, COOL = (
    Action.RESEAT_OR_CHECK_LINK, Action.REPLACE_GPU, Action.RUN_DIAGNOSTICS, Action.CHECK_COOLING,
)  # fmt: skip
NONE = Action.NONE
NEW_BOARD = gone(words="another board, which answers without it")
AT_ONCE = gone()
OUT_OF_WINDOW = Clear(words="a minute without", after=15, healed=False)


def fault(
    name: str,
    source: str,
    reading: Values,
    check: Check,
    reason: str,
    judged: tuple[Severity, Blame, Action],
    *clears: Clear,
    needs: tuple[Need, ...] = (),
    **more: object,
) -> Fault:
    severity, blame, action = judged
    expected = {key: more.pop(key) for key in list(more) if key in Expect.__struct_fields__}
    said: dict[str, Any] = {"severity": severity, "blame": blame, "action": action, **expected}
    rest: dict[str, Any] = {"reading": reading, "clears": clears, "needs": needs, **more}
    return Fault(name=name, source=source, expect=Expect(check=check, reason=reason, **said), **rest)


def failing(*functions: str, code: int) -> Values:
    return {f"gpu.T.fail.nvml{function}": code for function in functions}


LOST = (
    fault(
        "NVML says GPU_IS_LOST (15)", "6.1 GPU lost", {"gpu.T.lost": 1}, Check.GPU_LOST, "GPULost", (C, HARD, BOOT),
        AT_ONCE,
    ),
    fault(
        "one call says GPU_IS_LOST", "4, 15", failing("DeviceGetPowerUsage", code=15), Check.GPU_LOST, "GPULost",
        (C, HARD, BOOT), AT_ONCE,
    ),
    fault(
        "NVML says RESET_REQUIRED (16)", "4, 16", failing("DeviceGetPowerUsage", code=16), Check.GPU_LOST,
        "ResetRequired", (C, HARD, RESET), AT_ONCE,
    ),
    fault(
        "GPU_NOT_FOUND (28) for a GPU that is listed", "4, 28",
        failing("DeviceGetHandleByIndex_v2", code=28), Check.DRIVER, "GPUNotReadable", (I, NOBODY, NONE), AT_ONCE,
        health=Health.UNKNOWN,
    ),
    fault(
        "on the PCI bus, not listed by NVML", "6.1 GPU count", {}, Check.GPU_COUNT, "GPUMissing", (C, HARD, BOOT),
        AT_ONCE, subject="0000:fe:00.0",
        host=lambda host: _with(host, "nvidia"),
    ),
    fault(
        "on the PCI bus, no driver bound", "6.1 GPU count", {}, Check.GPU_COUNT, "GPUMissing", (C, HARD, BOOT),
        AT_ONCE, subject="0000:fe:00.0", host=lambda host: _with(host, None),
    ),
)  # fmt: skip


def _with(host: HostFacts, driver: str | None) -> HostFacts:
    return msgspec.structs.replace(host, pci=(*(host.pci or ()), PCIDevice("0000:fe:00.0", driver)))


RECOVERY = tuple(
    fault(
        f"field 230 asks for {words}", "6.1 recovery action", {"gpu.T.field.230": f"uint:{number}"}, Check.XID,
        "RecoveryActionRequired", judged, AT_ONCE, needs=(needs.RECOVERY_FIELD,),
    )
    for number, words, judged in (
        (1, "a GPU reset", (C, HARD, RESET)),
        (2, "a node reboot", (C, HARD, BOOT)),
        (3, "draining of P2P", (C, HARD, RESET)),
        (4, "drain and reset", (C, HARD, RESET)),
        (5, "recovery of the IMEX domain", (W, HARD, Action.RESTART_FABRIC_MANAGER)),
        (6, "a bus reset", (C, HARD, RESET)),
        (7, "a system reboot", (C, HARD, BOOT)),
        (42, "something unheard of", (W, NOBODY, Action.CONTACT_SUPPORT)),
    )
)  # fmt: skip

MEMORY = (
    fault(
        "uncorrectable ECC error (volatile)", "6.2 ECC counters",
        {"gpu.T.ecc.uncorrected.volatile": 1, "gpu.T.ecc.uncorrected.aggregate": 1},
        Check.ECC_UNCORRECTABLE, "UncorrectableErrors", (C, HARD, RESET), gone(words="reset: the counter is 0"),
        needs=(needs.ECC,),
    ),
    fault(
        "storm of corrected errors", "6.2 single-bit rate", {"gpu.T.ecc.corrected.volatile": 5000},
        Check.ECC_CORRECTED, "CorrectedErrorStorm", (W, HARD, DIAGNOSE), REBOOT, needs=(needs.ECC,),
    ),
    fault(
        "trend of corrected errors", "6.2 single-bit rate", {"gpu.T.ecc.corrected.volatile": 500},
        Check.ECC_CORRECTED, "CorrectedErrorTrend", (I, HARD, NONE), calm(2 * DAY), REBOOT, needs=(needs.ECC,),
    ),
    fault(
        "SRAM threshold exceeded", "6.2 SRAM", {"gpu.T.sram.exceeded": 1, "gpu.T.sram.l2": 4}, Check.SRAM_ECC,
        "SRAMThresholdExceeded", (C, HARD, REPLACE), NEW_BOARD, needs=(needs.SRAM,),
    ),
    fault(
        "row remap pending", "6.2 row remapping", {"gpu.T.rows.pending": 1, "gpu.T.rows.uncorrected": 1},
        Check.ROW_REMAP, "RemapPending", (W, HARD, IDLE_RESET), gone(words="reset: the flag is gone"),
        needs=(needs.ROWS,),
    ),
    fault(
        "bank remap pending (field 307)", "6.2 row remapping", {"gpu.T.field.307": "uint:1"}, Check.ROW_REMAP,
        "RemapPending", (W, HARD, IDLE_RESET), gone(words="reset: the flag is gone"), needs=(needs.ROWS,),
        before={"gpu.T.field.307": "uint:0"},
    ),
    fault(
        "row remap failed", "6.2 row remapping", {"gpu.T.rows.failure": 1}, Check.ROW_REMAP, "RemapFailed",
        (C, HARD, REPLACE), NEW_BOARD, needs=(needs.ROWS,),
    ),
    fault(
        "row remap failed and pending", "6.2 row remapping", {"gpu.T.rows.failure": 1, "gpu.T.rows.pending": 1},
        Check.ROW_REMAP, "RemapFailed", (C, HARD, REPLACE), NEW_BOARD, needs=(needs.ROWS,),
    ),
    fault(
        "banks without spare rows", "6.2 row remapping", {"gpu.T.rows.none": 1, "gpu.T.rows.low": 2}, Check.ROW_REMAP,
        "SpareRowsExhausted", (W, HARD, DIAGNOSE), NEW_BOARD, needs=(needs.HISTOGRAM,),
    ),
    fault(
        "banks with few spare rows", "6.2 row remapping", {"gpu.T.rows.low": 2}, Check.ROW_REMAP, "SpareRowsLow",
        (I, HARD, NONE), NEW_BOARD, needs=(needs.HISTOGRAM,),
    ),
    fault(
        "63 retired pages", "6.2 retired pages", {"gpu.T.field.29": "uint:60", "gpu.T.field.30": "uint:3"},
        Check.RETIRED_PAGES, "RetiredPageLimit", (C, HARD, REPLACE), NEW_BOARD, needs=(needs.PAGES,),
    ),
    fault(
        "double-bit pages that grow", "6.2 retired pages", {"gpu.T.field.30": "uint:18"}, Check.RETIRED_PAGES,
        "RetiredPagesGrowing", (C, HARD, REPLACE), calm(WEEK), needs=(needs.PAGES,),
        before={"gpu.T.field.30": "uint:14"},
    ),
    fault(
        "page retirement pending", "6.2 retired pages", {"gpu.T.field.31": "uint:1"}, Check.RETIRED_PAGES,
        "RetirementPending", (W, HARD, RESET), gone(words="reset: the flag is gone"), needs=(needs.PAGES,),
    ),
    fault(
        "channel repair pending", "6.2 repair", {"gpu.T.repair.channel": 1}, Check.MEMORY_REPAIR,
        "ChannelRepairPending", (W, HARD, IDLE_RESET), gone(words="reset: the flag is gone"), needs=(needs.REPAIR,),
    ),
    fault(
        "TPC repair pending", "6.2 repair", {"gpu.T.repair.tpc": 1}, Check.MEMORY_REPAIR, "TPCRepairPending",
        (W, HARD, IDLE_RESET), gone(words="reset: the flag is gone"), needs=(needs.REPAIR,),
    ),
    fault(
        "unrepairable memory", "6.2 repair", {"gpu.T.unrepairable": 1}, Check.MEMORY_REPAIR, "UnrepairableMemory",
        (C, HARD, REPLACE), NEW_BOARD, needs=(needs.REPAIR,), before={"gpu.T.unrepairable": 0},
    ),
    fault(
        "ECC off", "6.2 ECC mode", {"gpu.T.ecc.current": 0, "gpu.T.ecc.pending": 0}, Check.ECC_MODE, "ECCDisabled",
        (I, SITE, NONE), AT_ONCE, needs=(needs.ECC_MODE, needs.SERVER),
    ),
    fault(
        "ECC to be switched off", "6.2 ECC mode", {"gpu.T.ecc.pending": 0}, Check.ECC_MODE, "ECCModePending",
        (I, SITE, IDLE_RESET), AT_ONCE, needs=(needs.ECC,),
    ),
    fault(
        "ECC to be switched on", "6.2 ECC mode", {"gpu.T.ecc.current": 0, "gpu.T.ecc.pending": 1}, Check.ECC_MODE,
        "ECCModePending", (I, SITE, IDLE_RESET), AT_ONCE, needs=(needs.ECC_MODE,),
    ),
)  # fmt: skip

_LIMITS: Values = {"gpu.T.threshold.1": 90, "gpu.T.threshold.0": 100}


def _slowdown(name: str, bits: str, reason: str, judged: tuple[Severity, Blame, Action]) -> Fault:
    return fault(
        name, "6.3 throttling", {"gpu.T.reasons": bits}, Check.THROTTLING, reason, judged, gone(after=60), after=30,
    )  # fmt: skip


HEAT_AND_POWER = (
    fault(
        "thermal margin below the slowdown margin", "6.3 thermal margin", {"gpu.T.margin": -5}, Check.TEMPERATURE,
        "Overheating", (W, SITE, COOL), gone(after=60), needs=(needs.MARGIN,),
    ),
    fault(
        "temperature at the slowdown limit", "6.3 GPU temperature", {**_LIMITS, "gpu.T.temperature": 92},
        Check.TEMPERATURE, "Overheating", (W, SITE, COOL), gone(after=60), needs=(needs.NO_MARGIN,), before=_LIMITS,
    ),
    fault(
        "temperature at the shutdown limit", "6.3 GPU temperature", {**_LIMITS, "gpu.T.temperature": 101},
        Check.TEMPERATURE, "Overheating", (C, SITE, COOL), gone(after=60), needs=(needs.NO_MARGIN,), before=_LIMITS,
    ),
    fault(
        "memory too hot", "6.3 memory temperature", {"gpu.T.field.82": "uint:110"}, Check.TEMPERATURE,
        "MemoryOverheating", (W, SITE, COOL), gone(after=60), needs=(needs.MEMORY_LIMIT,),
    ),
    _slowdown("hardware thermal slowdown", "0x48", "HardwareThermalSlowdown", (W, SITE, COOL)),
    _slowdown("power brake", "0x88", "PowerBrake", (W, SITE, Action.CHECK_POWER)),
    _slowdown("hardware slowdown, no reason given", "0x8", "HardwareSlowdown", (W, HARD, DIAGNOSE)),
    _slowdown("software thermal slowdown", "0x20", "SoftwareThermalSlowdown", (I, SITE, COOL)),
    *(
        fault(
            f"slowed down between the looks (field {field})", "6.3 throttling",
            {f"gpu.T.field.{field}": "ullong:300000000000"}, Check.THROTTLING, "HardwareThermalSlowdown",
            (W, SITE, COOL), OUT_OF_WINDOW, needs=(needs.THROTTLE_TIMES, need), after=30,
        )
        for field, need in ((252, needs.OLD_NUMBERS), (270, needs.NEW_NUMBERS))
    ),
    fault(
        "not enough power (8)", "4, 8", failing("DeviceGetPowerUsage", code=8), Check.POWER, "InsufficientPower",
        (C, SITE, Action.CHECK_POWER), AT_ONCE,
    ),
    fault(
        "power limit lowered", "6.3 power", {"gpu.T.power.limit": 50_000}, Check.POWER, "PowerLimitLowered",
        (I, SITE, NONE), AT_ONCE, after=120,
    ),
    fault(
        "application clocks lowered", "6.3 clocks", {"gpu.T.clock.1.application": 300}, Check.CLOCKS,
        "ApplicationClocksLowered", (I, SITE, NONE), AT_ONCE, needs=(needs.APPLICATION_CLOCKS,),
    ),
)  # fmt: skip

PCIE = (
    fault(
        "half of the PCIe lanes", "6.5 width", {"gpu.T.pcie.width": 8}, Check.PCIE_LINK, "LinkWidthReduced",
        (W, HARD, RESEAT), AT_ONCE,
    ),
    fault(
        "PCIe slow under load", "6.5 generation", {"gpu.T.pcie.generation": 1}, Check.PCIE_LINK,
        "LinkGenerationReduced",
        (W, HARD, RESEAT), AT_ONCE, needs=(needs.PERFORMS_AT_P0,), after=40,
    ),
    fault(
        "PCIe replays", "6.5 replay", {"gpu.T.field.94": "uint:100"}, Check.PCIE_ERRORS, "ReplayRate", (W, HARD,
        RESEAT),
        calm(15 * 60), REBOOT,
    ),
    fault(
        "fatal PCIe errors", "6.5 AER", {"gpu.T.field.180": "uint:1"}, Check.PCIE_ERRORS, "FatalErrors", (C, HARD,
        RESEAT),
        calm(HOUR), REBOOT, needs=(needs.PCIE_COUNTERS,),
    ),
    fault(
        "non-fatal PCIe errors", "6.5 AER", {"gpu.T.field.179": "uint:3"}, Check.PCIE_ERRORS, "NonFatalErrors",
        (W, HARD, RESEAT), calm(HOUR), REBOOT, needs=(needs.PCIE_COUNTERS,),
    ),
    fault(
        "correctable PCIe errors", "6.5 AER", {"gpu.T.field.173": "uint:5000"}, Check.PCIE_ERRORS, "CorrectableErrors",
        (I, HARD, NONE), calm(2 * HOUR), REBOOT, needs=(needs.PCIE_COUNTERS,),
    ),
)  # fmt: skip


def _link_errors(name: str, keys: Values, reason: str, need: Need, clear: Clear) -> Fault:
    return fault(
        f"NVLink: {name}",
        "6.4 NVLink errors",
        keys,
        Check.NVLINK_ERRORS,
        reason,
        (W, HARD, RESEAT),
        clear,
        REBOOT,
        needs=(need,),
    )


_ALL_DOWN: Values = {f"gpu.T.nvlink.{link}.state": 0 for link in range(18)}
_DOWN: Values = {"gpu.T.nvlink.5.state": 0}
LINKS = (
    fault(
        "NVLink: a link to a switch goes down", "6.4 NVLink state", _DOWN, Check.NVLINK, "LinkDown", (C, HARD,
        RESET), AT_ONCE,
        needs=(needs.SWITCHED,), after=20,
    ),
    fault(
        "NVLink: a link to a GPU goes down", "6.4 NVLink state", _DOWN, Check.NVLINK, "LinkDown", (W, HARD, RESEAT),
        AT_ONCE,
        needs=(needs.DIRECT,), after=20,
    ),
    fault(
        "NVLink: all links go down", "6.4 NVLink state", _ALL_DOWN, Check.NVLINK,
        "LinkDown", (C, HARD, RESET), AT_ONCE, needs=(needs.SWITCHED,), after=20,
    ),
    fault(
        "NVLink: a link never came up", "6.4 NVLink state", _DOWN, Check.NVLINK, "FewerLinks", (C, HARD, RESET),
        AT_ONCE,
        needs=(needs.SWITCHED, needs.SEVERAL), before=_DOWN, after=300,
    ),
    _link_errors(
        "recoveries", {"gpu.T.nvlink.3.error.1": 5}, "RecoveryErrors", needs.NVLINK_4, calm(HOUR),
    ),
    _link_errors("replays", {"gpu.T.nvlink.3.error.0": 500}, "ReplayErrors", needs.NVLINK_4, calm(2 * HOUR)),
    _link_errors("checksum errors", {"gpu.T.nvlink.3.error.2": 20_000}, "CRCErrors", needs.NVLINK_4, calm(15 * 60)),
    _link_errors("data checksum errors", {"gpu.T.nvlink.3.error.3": 20_000}, "CRCErrors", needs.NVLINK_4,
    calm(15 * 60)),
    *(
        _link_errors(words, {f"gpu.T.field.{field}.3": "ullong:2"}, "LinkFaults", needs.NVLINK_5, calm(HOUR))
        for field, words in (
            (206, "malformed packets"),
            (207, "buffer overruns"),
            (211, "link integrity errors"),
            (214, "recoveries that failed"),
        )
    ),
    _link_errors(
        "effective errors", {"gpu.T.field.219.3": "ullong:900"}, "SignalErrors", needs.NVLINK_5, calm(2 * HOUR)
    ),
    fault(
        "C2C link down", "6.4 C2C", {"gpu.T.field.171.2": "uint:0"}, Check.C2C, "LinkInactive", (C, HARD, DIAGNOSE),
        AT_ONCE, needs=(needs.C2C,), after=20, link="c2c 2",
    ),
    fault(
        "C2C error interrupts", "6.4 C2C", {"gpu.T.field.231.2": "uint:3"}, Check.C2C, "LinkErrors",
        (W, HARD, DIAGNOSE), calm(HOUR), REBOOT, needs=(needs.C2C,), link="c2c 2",
    ),
)  # fmt: skip

_FM = Action.RESTART_FABRIC_MANAGER


def _fabric(name: str, keys: Values, reason: str, judged: tuple[Severity, Blame, Action], **more: object) -> Fault:
    return fault(
        name, "6.4 fabric", keys, Check.FABRIC, reason, judged, AT_ONCE, needs=(needs.FABRIC, needs.SEVERAL), **more
    )  # fmt: skip


FABRIC = (
    _fabric("fabric: could not join", {"gpu.T.fabric.status": 999}, "RegistrationFailed", (C, SOFT, _FM)),
    _fabric("fabric: insufficient resources", {"gpu.T.fabric.status": 23}, "InsufficientResources", (I, SOFT, NONE)),
    _fabric("fabric: unhealthy (summary)", {"gpu.T.fabric.summary": 2}, "FabricUnhealthy", (C, HARD, _FM)),
    _fabric("fabric: a route is unhealthy", {"gpu.T.fabric.mask": 410}, "FabricUnhealthy", (C, HARD, _FM)),
    _fabric("fabric: limited capacity", {"gpu.T.fabric.summary": 3}, "FabricDegraded", (W, HARD, _FM)),
    _fabric("fabric: less bandwidth", {"gpu.T.fabric.mask": 425}, "FabricDegraded", (W, HARD, _FM)),
    _fabric("fabric: routes under recovery", {"gpu.T.fabric.mask": 422}, "FabricDegraded", (W, HARD, _FM)),
    _fabric("fabric: access timeouts", {"gpu.T.fabric.mask": 362}, "FabricDegraded", (W, HARD, _FM)),
    *(
        _fabric(
            f"fabric: {words}", {"gpu.T.fabric.mask": 426 - 256 + 256 * number}, "FabricMisconfigured", (W, SITE, _FM)
        )
        for number, words in (
            (2, "wrong system GUID"),
            (3, "wrong chassis serial"),
            (4, "no partition"),
            (5, "insufficient NVLinks"),
            (6, "firmware that does not fit"),
            (7, "invalid location"),
            (8, "invalid GPU state"),
        )
    ),
)

CONFIGURATION = (
    fault(
        "persistence mode off", "6.6 persistence mode", {"gpu.T.persistence": 0}, Check.PERSISTENCE_MODE,
        "PersistenceModeOff", (I, SITE, NONE), AT_ONCE, needs=(needs.SERVER,), after=120,
    ),
    fault(
        "InfoROM corrupt (14)", "6.6 InfoROM", {"gpu.T.inforom": 14}, Check.INFOROM, "InfoROMCorrupted",
        (W, HARD, IDLE_RESET), AT_ONCE, needs=(needs.INFOROM,),
    ),
    fault(
        "another call says CORRUPTED_INFOROM", "4, 14", failing("DeviceGetPowerUsage", code=14), Check.INFOROM,
        "InfoROMCorrupted", (W, HARD, IDLE_RESET), AT_ONCE,
    ),
    fault(
        "MIG to be switched on", "6.6 MIG", {"gpu.T.mig.pending": 1}, Check.MIG, "MIGModePending",
        (I, SITE, IDLE_RESET), AT_ONCE, needs=(needs.MIG_ABLE, needs.NO_MIG),
    ),
    fault(
        "MIG to be switched off", "6.6 MIG", {"gpu.T.mig.pending": 0}, Check.MIG, "MIGModePending",
        (I, SITE, IDLE_RESET), AT_ONCE, needs=(needs.MIG_ON,),
    ),
    fault(
        "confidential mode, GPUs not ready", "6.6 confidential compute", {"confidential": 1, "confidential.ready": 0},
        Check.CONFIDENTIAL_COMPUTE, "ConfidentialComputeNotReady", (W, SITE, NONE), AT_ONCE,
        needs=(needs.CONFIDENTIAL,), after=300, subject="node",
    ),
)  # fmt: skip


def _blind(name: str, source: str, code: int, capability: Capability, judged: tuple[Blame, Action]) -> Fault:
    return fault(
        name, source, {"init.result": code}, Check.DRIVER, str(capability), (I, *judged), AT_ONCE, subject="node",
        capability=capability,
    )  # fmt: skip


def _unread(name: str, code: int, *functions: str, field: int | None = None) -> Fault:
    reading = failing(*functions, code=code) if field is None else {f"gpu.T.field.{field}": f"error:{code}"}
    return fault(
        name, f"4, {code}", reading, Check.DRIVER, "ReadFailed", (I, NOBODY, NONE), AT_ONCE, after=10,
        health=Health.UNKNOWN,
    )  # fmt: skip


def _partly(name: str, code: int, *functions: str, blame: Blame = NOBODY) -> Fault:
    return fault(
        name, f"4, {code}", failing(*functions, code=code), Check.DRIVER, "GPUPartlyReadable", (I, blame, NONE),
        AT_ONCE, after=10,
    )  # fmt: skip


DRIVER = (
    _blind("driver not loaded (9)", "4, 9", 9, Capability.NO_DRIVER, (SOFT, Action.UPDATE_DRIVER)),
    _blind("driver and library differ (18)", "6.7 mismatch", 18, Capability.DRIVER_MISMATCH, (SOFT, BOOT)),
    _blind("the driver times out (10)", "6.7 driver hung", 10, Capability.DRIVER_HUNG, (SOFT, BOOT)),
    _blind("no permission (4)", "4, 4", 4, Capability.PERMISSION_DENIED, (SITE, NONE)),
    _blind("the container lost /dev/nvidia* (999)", "4, 999", 999, Capability.PERMISSION_DENIED, (SITE, NONE)),
    fault(
        "library missing (12)", "4, 12", {"init.result": 12}, Check.DRIVER, "NoLibrary", (I, SITE, NONE), AT_ONCE,
        subject="node", capability=Capability.NO_LIBRARY,
    ),
    fault(
        "the driver lists no GPU", "6.1 GPU count", {"count": 0}, Check.DRIVER, "NoGPUs", (I, NOBODY, NONE), AT_ONCE,
        subject="node", capability=Capability.NO_GPUS, also=("GPULost", "GPUMissing"),
    ),
    _unread("temperature cannot be read (10)", 10, "DeviceGetTemperature", "DeviceGetTemperatureV"),
    _unread("an IRQ fails (11)", 11, "DeviceGetFieldValues"),
    _unread("the operating system refuses (17)", 17, "DeviceGetPciInfo_v3"),
    _unread("no resources (23)", 23, "DeviceGetUUID"),
    _unread("not ready (27)", 27, "DeviceGetFieldValues"),
    _unread("in an invalid state (29)", 29, "DeviceGetFieldValues"),
    _unread("SRAM errors cannot be read (999)", 999, "DeviceGetSramEccErrorStatus"),
    _unread("NVLink states cannot be read (999)", 999, "DeviceGetNvLinkState"),
    _unread("the fabric cannot be read (999)", 999, "DeviceGetGpuFabricInfoV", "DeviceGetGpuFabricInfo"),
    _unread("retired pages cannot be read (999)", 999, field=29),
    _unread("field 230 cannot be read (999)", 999, field=230),
    _partly("the PCIe width cannot be read (999)", 999, "DeviceGetCurrPcieLinkWidth"),
    _partly("the list of processes is refused (4)", 4, "DeviceGetComputeRunningProcesses_v3", blame=SITE),
)  # fmt: skip


def _process(state: str, pod: str | None, name: str = "python3") -> object:
    def owners(gpu: GPUSample) -> dict[int, Owner]:
        return {
            one.pid: Owner(pid=one.pid, name=name, state=state, state_since=0.0, pod_uid=pod)
            for one in gpu.processes or ()
            if one.kind == "compute"
        }

    return owners


_NOBODY: Values = {
    "gpu.T.processes.compute": "", "gpu.T.utilization": 0, "gpu.T.memory.used": 12_884_901_888,
}  # fmt: skip
PROCESSES = (
    fault(
        "memory in use and no process", "6.7 processes", _NOBODY, Check.PROCESSES, "OrphanedMemory",
        (I, SOFT, IDLE_RESET), AT_ONCE, needs=(needs.NO_MIG, needs.NO_C2C), after=60,
    ),
    fault(
        "the same for a quarter of an hour", "6.7 processes", _NOBODY, Check.PROCESSES, "OrphanedMemory",
        (W, SOFT, IDLE_RESET), AT_ONCE, needs=(needs.NO_MIG, needs.NO_C2C), after=900, earlier=True,
    ),
    fault(
        "a zombie holds the GPU", "6.7 processes", {}, Check.PROCESSES, "ZombieProcess",
        (W, NOBODY, Action.CHECK_APPLICATION), AT_ONCE, needs=(needs.PROCESSES,), owners=_process("Z", "p"), after=50,
    ),
    fault(
        "a process outside of every pod", "6.7 processes", {}, Check.PROCESSES, "ProcessWithoutPod",
        (I, APP, Action.CHECK_APPLICATION), AT_ONCE, needs=(needs.PROCESSES,), owners=_process("S", None), after=50,
    ),
)  # fmt: skip

ALL: tuple[Fault, ...] = (
    *LOST, *RECOVERY, *MEMORY, *HEAT_AND_POWER, *PCIE, *LINKS, *FABRIC, *CONFIGURATION, *DRIVER, *PROCESSES,
)  # fmt: skip
