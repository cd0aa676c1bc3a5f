"""Faults that the kernel log tells of (facts/xids.md): lines as the driver writes them, and what follows."""

from collections.abc import Iterable
from typing import Any

from gpudiag_api.vocabulary import Action, Blame, Check, Severity

from . import needs
from .gpu_faults import APP, BOOT, DIAGNOSE, HARD, IDLE_RESET, NOBODY, NONE, RESET, SITE, SOFT, C, I, W, fault
from .model import REBOOT, RECOVERED, RELOAD, Clear, Fault, silence
from .node import Node
from .play import spoken

DAY, HOUR = 86_400.0, 3600.0
Judged = tuple[Severity, Blame, Action]
CHECK_APP, SUPPORT, COOLING = Action.CHECK_APPLICATION, Action.CONTACT_SUPPORT, Action.CHECK_COOLING
RESET_IT: Judged = (C, HARD, RESET)
APPLICATION: Judged = (I, APP, CHECK_APP)
EVIDENCE = (RECOVERED, RELOAD, REBOOT)
"""What clears a critical fault: never silence."""
SWITCH = "0000:05:00.0"


def line(code: int, text: str, *, instance: str = "", process: str = "pid=4242, name=python3, ") -> str:
    return f"NVRM: Xid (PCI:{{bus}}{instance}): {code}, {process}{text}"


def xid(name: str, code: int, text: str, judged: Judged, *clears: Clear, reason: str = "", **more: Any) -> Fault:
    lines = more.pop("lines", (line(code, text),))
    source = str(more.pop("source", "xids 3"))
    return fault(
        name, source, {}, Check.XID, reason or f"XID{code}", judged, *clears, lines=lines, **more
    )  # fmt: skip


def critical(name: str, code: int, text: str, judged: Judged = RESET_IT, **more: Any) -> Fault:
    return xid(name, code, text, judged, *EVIDENCE, standing=4 * DAY, **more)


_FIELDS = ("Ch 00000018, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f2c_4a000000. "
           "Fault is of type FAULT_PDE ACCESS_TYPE_READ")  # fmt: skip
_LOST_LINES = (
    "NVRM: The NVIDIA GPU {pci}",
    "NVRM: (PCI ID: 10de:2330) installed in this system has",
    "NVRM: fallen off the bus and is not responding to commands.",
)
LOST = (
    fault(
        "XID 79", "6.1 GPU lost", {}, Check.GPU_LOST, "GPULost", (C, HARD, BOOT), RECOVERED, REBOOT,
        lines=(line(79, "GPU has fallen off the bus.", process="pid='<unknown>', name=<unknown>, "),), standing=4 * DAY,
    ),
    fault(
        "fallen off the bus, without an XID", "xids 8.3", {}, Check.GPU_LOST, "GPULost", (C, HARD, BOOT), RECOVERED,
        REBOOT, lines=("NVRM: GPU {pci}: GPU has fallen off the bus.",), standing=DAY,
    ),
    fault(
        "fallen off the bus, one record of three lines", "xids 8.3", {}, Check.GPU_LOST, "GPULost", (C, HARD, BOOT),
        RECOVERED, REBOOT,
        lines=("\n".join(_LOST_LINES),),
    ),
    fault(
        "fallen off the bus, three records", "xids 8.3", {}, Check.GPU_LOST, "GPULost", (C, HARD, BOOT), RECOVERED,
        REBOOT,
        lines=_LOST_LINES,
    ),
)  # fmt: skip

APPLICATIONS = (
    xid("XID 13 alone", 13, "Graphics SM Warp Exception on (GPC 1, TPC 3, SM 0): Out Of Range Address", APPLICATION,
        silence(HOUR), REBOOT, source="xids 5"),
    xid("XID 31 alone", 31, _FIELDS, APPLICATION, silence(HOUR), REBOOT, source="xids 5"),
    xid("XID 31 of a MIG instance", 31, "", APPLICATION, silence(HOUR), source="xids 8.1", gpu_instance=2,
        compute_instance=0, needs=(needs.MIG_ON,), lines=(line(31, _FIELDS, instance=" GPU-I:02 GPU-CI:00"),)),
    xid("XID 43", 43, "Ch 00000008", APPLICATION, silence(HOUR), REBOOT),
    xid("XID 45 alone", 45, "Ch 00000010", APPLICATION, silence(HOUR), REBOOT, source="xids 5"),
    xid("XID 109", 109, "Ch 00000010, errorString CTX SWITCH TIMEOUT", (W, NOBODY, IDLE_RESET), silence(3 * DAY),
        REBOOT, RECOVERED),
)  # fmt: skip


def _twice(node: Node, at: str, *, apart: float, texts: Iterable[str], code: int, names: tuple[str, ...]) -> None:
    for text, name in zip(texts, names, strict=False):
        node.hear(*spoken([f"NVRM: Xid (PCI:{{bus}}): {code}, pid=1{names.index(name)}, name={name}, {text}"], at))
        node.looks(apart)


_SM = "Graphics SM Warp Exception on (GPC 1, TPC 3, SM 0): Out Of Range Address"
REPEATED = (
    xid("XID 13 of two jobs at one place", 13, "", (W, HARD, DIAGNOSE), silence(DAY), source="xids 5",
        reason="XID13Repeated", also=("XID13",), lines=(),
        story=lambda node, at: _twice(node, at, apart=600, texts=(_SM, _SM), code=13, names=("train", "serve"))),
    xid("XID 31 of two jobs at one place", 31, "", (W, HARD, DIAGNOSE), silence(DAY), source="xids 5",
        reason="XID31Repeated", also=("XID31",), lines=(),
        story=lambda node, at: _twice(node, at, apart=600, texts=(_FIELDS, _FIELDS), code=31, names=("train",
        "serve"))),
)  # fmt: skip


def _reboots(node: Node, at: str) -> None:
    for boot in ("boot-2", "boot-3"):
        node.hear(*spoken([line(62, "62000000")], at))
        node.reboot(boot)
        node.look()
    node.hear(*spoken([line(62, "62000000")], at))


def _storm(node: Node, at: str) -> None:
    for _ in range(5):
        node.hear(*spoken([line(62, "62000000")], at))
        node.looks(HOUR)
        node.hear(*spoken(RECOVERED.lines, at))


ESCALATIONS = (
    xid("the same XID after two reboots", 62, "", (C, HARD, DIAGNOSE), RECOVERED, source="xids 5",
        reason="FaultSurvivesReboots", also=("XID62",), lines=(), story=_reboots),
    xid("five critical bursts in a day", 62, "", (W, HARD, SUPPORT), silence(DAY), source="xids 5",
        reason="RepeatedFaults", lines=(), story=_storm),
)  # fmt: skip

MEMORY = (
    critical("XID 48", 48, "An uncorrectable double bit error (DBE) has been detected on GPU (00 02 07)."),
    critical("XID 48 in DRAM (171)", 48, "", source="xids 5",
             lines=(line(48, "DBE (double bit error) ECC Error"), line(171, "Uncorrectable DRAM error"))),
    critical("XID 48 in SRAM (172)", 48, "", source="xids 5",
             lines=(line(48, "DBE (double bit error) ECC Error"), line(172, "Uncorrectable SRAM error"))),
    critical("XID 64", 64, "Row Remapper: All reserved rows for bank are remapped"),
    xid("XID 63 where the GPU itself tells nothing", 63,
        "Row Remapper: New row marked for remapping, reset gpu to activate.", (W, HARD, IDLE_RESET),
        silence(3 * DAY), RECOVERED, REBOOT, source="xids 5", needs=(needs.TELLS_NO_REPAIRS,)),
    xid("XID 94, no reset asked for", 94, "Contained: CE User Channel (0x9). RST: No, D-RST: No",
        (W, HARD, IDLE_RESET), RECOVERED, REBOOT, source="xids 5"),
    critical("XID 94 that asks for a reset", 94, "Contained: CE User Channel (0x9). RST: Yes, D-RST: No",
             source="xids 5"),
    critical("XID 94 that asks for drain and reset", 94, "Contained: SM (0x1). physAddr: 0x1234 RST: No, D-RST: Yes",
             source="xids 5"),
    xid("XID 94 of a MIG instance", 94, "", (W, HARD, IDLE_RESET), RECOVERED, gpu_instance=5, needs=(needs.MIG_ON,),
        lines=(line(94, "Contained: CE User Channel (0x9). RST: No, D-RST: No", instance=" GPU-I:05"),)),
    critical("XID 95", 95, "Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No", source="xids 5"),
)  # fmt: skip


def registers(*words: int) -> str:
    values = ", ".join(hex(word) for word in (*words, *(0,) * (7 - len(words))))
    return line(74, f"NVLink: fatal error detected on link 14({values})")


LINK_ERRORS = (
    critical("XID 74", 74, "", source="xids 5", link="nvlink 14", lines=(registers(0, 0, 0x10000),)),
    critical("XID 74, marginal signal (REG0 bit 21)", 74, "", (C, HARD, Action.RESEAT_OR_CHECK_LINK),
    source="xids 5", link="nvlink 14",
             lines=(registers(1 << 21),)),
    critical("XID 74, unexpected error (REG2 bit 13)", 74, "", (C, HARD, SUPPORT), source="xids 5", link="nvlink 14",
             lines=(registers(0, 0, 1 << 13),)),
    critical("XID 149, link down (NVLink 5)", 149, "", source="xids 6", link="nvlink 9",
             lines=(line(149, "NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x00000000)", process=""),)),
    critical("the same with an unknown pid", 149, "", source="xids 6", link="nvlink 9",
             lines=(line(149, "NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x00000000)",
                         process="pid='<unknown>', name=<unknown>, "),)),
    critical("XID 144, SAW_MVB status 2", 144, "", source="xids 6", link="nvlink 3",
             lines=(line(144, "SAW_MVB Fatal XC0 i0 Link 03 (0x00000021 0x00000002)", process=""),)),
)  # fmt: skip


def changed(number: int, words: str) -> str:
    return line(154, f"GPU recovery action changed from 0x0 (None) to {number:#x} ({words})", process="")


_RECOVERY = tuple(
    xid(
        f"XID 154 to {words}",
        154,
        "",
        judged,
        RECOVERED,
        RELOAD,
        REBOOT,
        reason="RecoveryActionRequired",
        source="6.1 recovery action",
        lines=(changed(number, words),),
        standing=4 * DAY,
    )
    for number, words, judged in (
        (1, "GPU Reset Required", RESET_IT),
        (2, "Node Reboot Required", (C, HARD, BOOT)),
        (2, "OS Reboot", (C, HARD, BOOT)),
        (3, "Drain P2P", RESET_IT),
        (4, "Drain and Reset", RESET_IT),
    )
)
RECOVERY = (
    *_RECOVERY,
    xid("XID 154 to Recover IMEX Domain", 154, "", (W, HARD, Action.RESTART_FABRIC_MANAGER), RECOVERED, RELOAD, REBOOT,
        reason="RecoveryActionRequired", source="6.1 recovery action", lines=(changed(5, "Recover IMEX Domain"),)),
    xid("XID 154 overrides the XID beside it", 62, "", (C, HARD, BOOT), RECOVERED, RELOAD, source="xids 5",
        also=("RecoveryActionRequired",), lines=(line(62, "2a00"), changed(2, "Node Reboot Required"))),
)  # fmt: skip

OTHERS = (
    critical("XID 119, GSP timeout", 119, "Timeout after 6s of waiting for RPC response from GPU4 GSP! Expected "
             "function 103 (GSP_RM_ALLOC) (0x2081 0x4).", (C, SOFT, RESET), source="6.1 GSP"),
    critical("XID 120, GSP error", 120, "GSP task timeout", (C, SOFT, RESET), source="6.1 GSP"),
    critical("XID 143, initialisation error", 143, "GPU initialization error", source="6.1 adapter init"),
    xid("XID 163, power smoothing off", 163, "Power smoothing disengaged", (W, SITE, IDLE_RESET),
        Clear(words="XID 162", lines=(line(162, "Power smoothing re-engaged"),)), silence(3 * DAY), source="xids 5"),
    xid("an XID that nobody knows", 4711, "something new", (W, NOBODY, SUPPORT), silence(3 * DAY), RECOVERED, REBOOT,
        reason="UnclassifiedXID"),
    xid("the old form without PCI:", 46, "", RESET_IT, RECOVERED, source="xids 8.1",
        lines=("NVRM: Xid ({bus}): 46, Channel 00000001",)),
    xid("the form without a message", 46, "", RESET_IT, RECOVERED, source="xids 8.1",
        lines=("NVRM: Xid (PCI:{bus}): 46",)),
    xid("the form with a function", 46, "", RESET_IT, RECOVERED, source="xids 8.1",
        lines=("NVRM: Xid (PCI:{pci}): 46, pid=1, x",)),
)  # fmt: skip

_MISMATCH = ("NVRM: API mismatch: the client 'python3' (pid 4242)\nNVRM: has the version 550.54.15, but this kernel "
             "module has\nNVRM: the version 570.133.20.  Please make sure that this\nNVRM: kernel module and all "
             "NVIDIA driver components\nNVRM: have the same version.")  # fmt: skip


def signal(name: str, text: str, check: Check, reason: str, judged: Judged, *clears: Clear, **more: Any) -> Fault:
    source = str(more.pop("source", "xids 8.4"))
    return fault(name, source, {}, check, reason, judged, *clears, lines=(text,), **more)


SIGNALS = (
    signal("RmInitAdapter failed", "NVRM: GPU {pci}: RmInitAdapter failed! (0x24:0xffff:1568)", Check.ADAPTER_INIT,
           "AdapterInitFailed", (C, HARD, BOOT), RELOAD, REBOOT, Clear(words="the GPU answers")),
    signal("rm_init_adapter failed", "NVRM: GPU {pci}: rm_init_adapter failed, device minor number 1",
           Check.ADAPTER_INIT, "AdapterInitFailed", (C, HARD, BOOT), RELOAD, REBOOT),
    signal("GSP errors rate-limited", "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:{bus} (printing 1 of "
           "every 30).  The GPU likely needs to be reset.", Check.GSP, "GSPErrorStorm", (C, SOFT, RESET), RECOVERED,
           RELOAD, REBOOT, source="6.1 GSP", standing=4 * DAY),
    signal("API mismatch of a process", _MISMATCH, Check.DRIVER, "ClientVersionMismatch", (I, SITE, CHECK_APP),
           silence(HOUR), RELOAD, REBOOT, subject="node", source="6.7 mismatch"),
    signal("probe routine failed", "NVRM: The NVIDIA probe routine failed for 1 device(s).", Check.ADAPTER_INIT,
           "GPUNotProbed", (W, SOFT, BOOT), RELOAD, REBOOT, subject="node", host=needs.unbound,
           also=("GPUMissing",)),
    signal("NVLink training failed", "NVRM: knvlinkUpdatePostRxDetectLinkMask_IMPL: Failed to update Rx Detect Link "
           "mask!", Check.NVLINK, "LinkTrainingFailed", (W, HARD, BOOT), RELOAD, REBOOT, subject="node"),
    signal("NVLink training failed, paired form", "NVRM: knvlinkDiscoverPostRxDetLinks_GH100: Getting peer1's "
           "postRxDetLinkMask failed!", Check.NVLINK, "LinkTrainingFailed", (W, HARD, BOOT), RELOAD, REBOOT,
           subject="node"),
    signal("nvidia-peermem: invalid context", "nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid "
           "context, skipping further processing", Check.PEER_MEMORY, "InvalidContext", (I, SOFT, NONE),
           silence(HOUR), RELOAD, REBOOT, subject="node", source="6.7 peermem"),
)  # fmt: skip


def sxid(name: str, code: int, word: str, judged: Judged, *clears: Clear, link: bool = True, reason: str = "") -> Fault:
    where = " Link 30" if link else ""
    return fault(
        name, "xids 7", {}, Check.SXID, reason or f"SXid{code}", judged, *clears, subject=SWITCH,
        link="nvlink 30" if link else None, needs=(needs.SWITCHED,),
        lines=(f"nvidia-nvswitch0: SXid (PCI:{SWITCH}): {code:05}, {word},{where} some words",
               f"nvidia-nvswitch0: SXid (PCI:{SWITCH}): {code:05}, Severity 1 Engine instance 62 Sub-engine 0"),
    )  # fmt: skip


SWITCHES = (
    sxid("SXid 20034, fatal", 20034, "Fatal", (C, HARD, BOOT), RELOAD, REBOOT),
    sxid("SXid 12020, always fatal", 12020, "Non-fatal", (C, HARD, BOOT), RELOAD, REBOOT),
    sxid("SXid 11001, potentially fatal, non-fatal here", 11001, "Non-fatal", (W, HARD, DIAGNOSE), silence(DAY),
         RELOAD, REBOOT),
    sxid("SXid 10004, switch too hot", 10004, "Non-fatal", (W, SITE, COOLING), RELOAD, REBOOT,
         Clear(words="SXid 10005", lines=(f"nvidia-nvswitch0: SXid (PCI:{SWITCH}): 10005, Non-fatal, Link 30 end",))),
    sxid("an SXid that nobody knows, fatal", 31999, "Fatal", (C, HARD, BOOT), RELOAD, REBOOT,
         reason="UnclassifiedSXid"),
    sxid("an SXid that nobody knows", 31999, "Non-fatal", (I, NOBODY, SUPPORT), silence(DAY), RELOAD, REBOOT,
         reason="UnclassifiedSXid"),
)  # fmt: skip

ALL: tuple[Fault, ...] = (
    *LOST, *APPLICATIONS, *REPEATED, *ESCALATIONS, *MEMORY, *LINK_ERRORS, *RECOVERY, *OTHERS, *SIGNALS, *SWITCHES,
)  # fmt: skip
