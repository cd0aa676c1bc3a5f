"""What each XID code means to the owner of a node: how bad, whose fault, what to do.

Severity and action are this project's reading of NVIDIA's XID catalogue (the "immediate" bucket) and of the driver
header ``nverror.h``: what restarts or ignores the application is ``Info`` and never degrades a GPU; what asks for a
reset or a reboot is ``Critical``. Codes that are not here are kept and shown, never dropped: drivers add codes.
"""

import msgspec

from gpudiag_api.vocabulary import Action, Blame, Severity


class Verdict(msgspec.Struct, frozen=True):
    """How bad, whose fault, what to do."""

    severity: Severity
    blame: Blame
    action: Action


class Entry(msgspec.Struct, frozen=True):
    """One code of the catalogue."""

    name: str
    """NVIDIA's mnemonic, shortened of its ROBUST_CHANNEL prefix."""
    meaning: str
    verdict: Verdict


_APPLICATION = Verdict(Severity.INFO, Blame.APPLICATION, Action.CHECK_APPLICATION)
_NOTE = Verdict(Severity.INFO, Blame.DRIVER, Action.NONE)
_HARDWARE_NOTE = Verdict(Severity.INFO, Blame.HARDWARE, Action.NONE)
_RESET = Verdict(Severity.CRITICAL, Blame.HARDWARE, Action.DRAIN_AND_RESET_GPU)
_FIRMWARE_RESET = Verdict(Severity.CRITICAL, Blame.DRIVER, Action.DRAIN_AND_RESET_GPU)
_REBOOT = Verdict(Severity.CRITICAL, Blame.HARDWARE, Action.REBOOT_NODE)
_RESET_WHEN_IDLE = Verdict(Severity.WARNING, Blame.HARDWARE, Action.RESET_GPU_WHEN_IDLE)
_SUPPORT = Verdict(Severity.WARNING, Blame.HARDWARE, Action.CONTACT_SUPPORT)

UNCLASSIFIED = Entry(
    "", "not in this agent's catalogue", Verdict(Severity.WARNING, Blame.UNKNOWN, Action.CONTACT_SUPPORT)
)
"""For every other code. Warning: it may be the first sign of a fault, and it may be nothing."""

_E = Entry
CATALOGUE: dict[int, Entry] = {
    8: _E("FIFO_ERROR_IDLE_TIMEOUT", "the GPU stopped processing a channel", _APPLICATION),
    11: _E("GR_ERROR_MISSING_HW", "invalid or corrupted push buffer", _APPLICATION),
    13: _E("GR_EXCEPTION", "illegal access or instruction in a kernel of the application", _APPLICATION),
    14: _E("FAKE_ERROR", "test message of the driver", _NOTE),
    25: _E("GR_ILLEGAL_NOTIFY", "illegal push buffer stream", _APPLICATION),
    31: _E("FIFO_ERROR_MMU_ERR_FLT", "the application touched GPU memory it does not own", _APPLICATION),
    32: _E("PBDMA_ERROR", "corrupted push buffer", _APPLICATION),
    37: _E("FECS_ERR_UNIMP_FIRMWARE_METHOD", "unimplemented firmware method", _NOTE),
    38: _E("FECS_ERR_WATCHDOG_TIMEOUT", "firmware watchdog timeout", _NOTE),
    43: _E("RESETCHANNEL_VERIF_ERROR", "a channel was reset after an application fault", _APPLICATION),
    44: _E("GR_FAULT_DURING_CTXSW", "fault during a context switch", _APPLICATION),
    45: _E("PREEMPTIVE_REMOVAL", "clean-up after another error or a killed application", _APPLICATION),
    46: _E("GPU_TIMEOUT_ERROR", "the GPU stopped processing", _RESET),
    48: _E("GPU_ECC_DBE", "uncorrectable memory error", _RESET),
    54: _E(
        "SILENT_RUNNING_PWR_REDUCED_CLOCKING",
        "auxiliary power is not connected",
        Verdict(Severity.WARNING, Blame.ENVIRONMENT, Action.CHECK_POWER),
    ),
    60: _E("SEC2_ERROR", "exception in the security engine", _APPLICATION),
    61: _E("PMU_BREAKPOINT", "breakpoint in the power micro-controller", _SUPPORT),
    62: _E("PMU_HALT_ERROR", "the power micro-controller halted", _RESET),
    # 63 records a remap; whether anything is left to do, the RowRemap check reads from the GPU itself.
    63: _E("INFOROM_DRAM_RETIREMENT_EVENT", "a row remap or page retirement was recorded", _HARDWARE_NOTE),
    64: _E("INFOROM_DRAM_RETIREMENT_FAILURE", "a row remap could not be recorded", _RESET),
    66: _E("FECS_ERR_REG_ACCESS_VIOLATION", "illegal firmware register access", _NOTE),
    67: _E("FECS_ERR_VERIF_VIOLATION", "illegal firmware access", _NOTE),
    68: _E("NVDEC0_ERROR", "exception in video decoder 0", _APPLICATION),
    69: _E("GR_CLASS_ERROR", "graphics class error", _APPLICATION),
    74: _E("NVLINK_ERROR", "NVLink error", _RESET),
    78: _E(
        "VGPU_START_ERROR",
        "a vGPU could not start",
        Verdict(Severity.WARNING, Blame.DRIVER, Action.UPDATE_DRIVER),
    ),
    79: _E("GPU_HAS_FALLEN_OFF_THE_BUS", "the GPU has fallen off the bus", _REBOOT),
    80: _E("PBDMA_PUSHBUFFER_CRC_MISMATCH", "corrupted data was sent to the GPU", _APPLICATION),
    92: _E(
        "EXCESSIVE_SBE_INTERRUPTS",
        "many corrected memory errors",
        Verdict(Severity.INFO, Blame.HARDWARE, Action.RUN_DIAGNOSTICS),
    ),
    93: _E("INFOROM_ERASE_LIMIT_EXCEEDED", "the InfoROM is worn", _HARDWARE_NOTE),
    94: _E("CONTAINED_ERROR", "memory error contained to one application", _RESET_WHEN_IDLE),
    95: _E("UNCONTAINED_ERROR", "memory error that may have reached every application on the GPU", _RESET),
    106: _E("SMBPBI_TEST_MESSAGE", "test message", _NOTE),
    107: _E("SMBPBI_TEST_MESSAGE_SILENT", "test message", _NOTE),
    108: _E("NVLINK_REMOTE_TRANSLATION_ERROR", "illegal access over NVLink", _APPLICATION),
    109: _E(
        "CTXSW_TIMEOUT_ERROR",
        "context switch timeout",
        Verdict(Severity.WARNING, Blame.UNKNOWN, Action.RESET_GPU_WHEN_IDLE),
    ),
    110: _E("SEC_FAULT_ERROR", "security fault", _RESET),
    119: _E("GSP_RPC_TIMEOUT", "the GPU's system processor does not answer", _FIRMWARE_RESET),
    120: _E("GSP_ERROR", "error in the GPU's system processor", _FIRMWARE_RESET),
    121: _E("C2C_ERROR", "corrected errors on the link to the CPU, without effect", _HARDWARE_NOTE),
    122: _E("SPI_PMU_RPC_READ_FAIL", "the InfoROM could not be read", _SUPPORT),
    123: _E("SPI_PMU_RPC_WRITE_FAIL", "the InfoROM could not be written", _SUPPORT),
    124: _E("SPI_PMU_RPC_ERASE_FAIL", "the InfoROM could not be erased", _SUPPORT),
    125: _E("INFOROM_FS_ERROR", "the InfoROM's file system is damaged", _SUPPORT),
    136: _E("ALI_TRAINING_FAIL", "NVLink training failed", _RESET),
    137: _E("NVLINK_PRIV_ERR", "illegal peer access by the application", _APPLICATION),
    140: _E("UNRECOVERABLE_ECC_ERROR_ESCAPE", "memory error that was not recovered", _RESET),
    141: _E("FAST_PATH_ERROR", "CUDA fast-path error", _APPLICATION),
    143: _E("GPU_INIT_ERROR", "the GPU could not be initialised", _RESET),
    151: _E(
        "KEY_ROTATION_ERROR",
        "key rotation failed (confidential computing)",
        Verdict(Severity.WARNING, Blame.DRIVER, Action.REBOOT_NODE),
    ),
    152: _E("DLA_SMMU_ERROR", "DLA address translation error", _APPLICATION),
    153: _E("DLA_TIMEOUT", "DLA timeout", _APPLICATION),
    154: _E("GPU_RECOVERY_ACTION_CHANGED", "the driver says what the GPU needs", _NOTE),
    155: _E("NVLINK_SW_DEFINED_ERROR", "NVLink error", _RESET),
    156: _E("RESOURCE_RETIREMENT_EVENT", "a part of the GPU was retired", _RESET),
    157: _E("RESOURCE_RETIREMENT_FAILURE", "a part of the GPU could not be retired", _HARDWARE_NOTE),
    158: _E("GPU_FATAL_TIMEOUT", "fatal timeout", _RESET),
    159: _E("CHI_NON_DATA_ERROR", "coherence error between CPU and GPU", _NOTE),
    160: _E("CHANNEL_RETIREMENT_EVENT", "a memory channel was marked for repair", _HARDWARE_NOTE),
    161: _E("CHANNEL_RETIREMENT_FAILURE", "a memory channel could not be repaired", _HARDWARE_NOTE),
    162: _E("PSHC_REENGAGED", "power smoothing works again", _NOTE),
    163: _E(
        "PSHC_DISENGAGED",
        "power smoothing is off until the GPU is reset",
        Verdict(Severity.WARNING, Blame.ENVIRONMENT, Action.RESET_GPU_WHEN_IDLE),
    ),
    164: _E("PSHC_LOW_LIFETIME", "power smoothing is worn", _HARDWARE_NOTE),
    165: _E("PSHC_ZERO_LIFETIME", "power smoothing is worn out", _HARDWARE_NOTE),
    166: _E("NVLINK_SECURE_CRYPTO_ERR", "NVLink encryption error", _RESET_WHEN_IDLE),
    167: _E("PCIE_FATAL_TIMEOUT", "PCIe fatal timeout", _REBOOT),
    168: _E(
        "REDUCED_GPU_MEMORY_CAPACITY",
        "errors in protected memory while ECC is off",
        Verdict(Severity.WARNING, Blame.HARDWARE, Action.REBOOT_NODE),
    ),
    169: _E("SEC2_HALT_ERROR", "the security micro-controller halted", _FIRMWARE_RESET),
    170: _E("NVLINK_SECURE_OTHER", "NVLink error (confidential computing)", _APPLICATION),
    171: _E("UNCORRECTABLE_DRAM_ERROR", "the uncorrectable error is in the GPU's memory", _RESET),
    172: _E("UNCORRECTABLE_SRAM_ERROR", "the uncorrectable error is in the GPU's caches", _RESET),
    173: _E("C2C_FATAL_LINK_FAILURE", "the link to the CPU failed", _REBOOT),
    174: _E("RESETCHANNEL_KILL_PROCESS_SILENT", "a process was ended with its channel", _APPLICATION),
    175: _E("MEMORY_SUBSYSTEM_ERROR", "memory subsystem error", _RESET),
    176: _E("PCIE_CORRECTABLE_ERROR_FAULT", "many corrected PCIe errors", _HARDWARE_NOTE),
}

_ENGINES = {
    "copy engine": (39, 40, 41, 70, 71, 72, 75, 76, 77, 85, *range(126, 136)),
    "video decoder": (83, 84, 88, 89, 96, 97, 98),
    "JPEG engine": (82, *range(99, 106)),
    "optical-flow engine": (86, 139),
    "video encoder": (47, 65, 73, 142),
}
for _engine, _codes in _ENGINES.items():
    for _code in _codes:
        CATALOGUE[_code] = Entry(
            f"{_engine.upper().replace(' ', '_').replace('-', '_')}_ERROR", f"{_engine} error", _APPLICATION
        )

_LINK_UNITS = {144: "SAW", 145: "RLW", 146: "TLW", 147: "TREX", 148: "NVLPW_CTRL", 149: "NETIR", 150: "MSE"}
for _code, _unit in _LINK_UNITS.items():
    # Without the driver's word Fatal these are corrected, or an XID 154 that follows says what they need.
    CATALOGUE[_code] = Entry(f"NVLINK_{_unit}_ERROR", f"NVLink 5 error in unit {_unit}", _HARDWARE_NOTE)

RECOVERY: dict[int, tuple[str, Verdict]] = {
    0: ("none", _NOTE),
    1: ("GPU reset", _RESET),
    2: ("node reboot", _REBOOT),
    3: ("drain peer-to-peer traffic, then reset", _RESET),
    4: ("drain and reset", _RESET),
    5: (
        "recover the IMEX domain",
        Verdict(Severity.WARNING, Blame.HARDWARE, Action.RESTART_FABRIC_MANAGER),
    ),
    6: ("bus reset", _RESET),
    7: ("system reboot", _REBOOT),
}
"""Recovery actions by number (NVML field 230, XID 154): the number counts, the driver's text for it varies."""


def recovery(number: int) -> tuple[str, Verdict]:
    """Words and verdict for a recovery action."""
    return RECOVERY.get(number, (f"unknown action {number}", UNCLASSIFIED.verdict))


def lookup(code: int) -> Entry:
    """The entry of a code, :data:`UNCLASSIFIED` where there is none."""
    return CATALOGUE.get(code, UNCLASSIFIED)


def judge(
    code: int, *, recovery_action: int | None = None, reset_required: bool = False, link_fatal: bool | None = None
) -> Verdict:
    """The verdict on one line: the driver's own words in it come before the code's entry.

    Args:
        code: the XID.
        recovery_action: XID 154: the new action's number.
        reset_required: XIDs 94, 95: the line's tail says that a reset is needed.
        link_fatal: XIDs 144 to 150: the line says Fatal (True) or Nonfatal (False).
    """
    if recovery_action is not None:
        return recovery(recovery_action)[1]
    if reset_required or (code in _LINK_UNITS and link_fatal):
        return _RESET
    return lookup(code).verdict
