r"""What the NVIDIA driver says in the kernel log. Pure: text in, meaning out.

The forms come from the driver's own format strings (open-gpu-kernel-modules: ``kernel_rc.c``, ``gpu.c``,
``osinit.c``). Addresses have no function there, the domain is not always zero, and the process is named, unknown
or absent depending on the driver's age.
"""

import re

import msgspec

from gpudiag_agent.kernel_log import details, signals, sxid
from gpudiag_agent.kernel_log.details import Detail
from gpudiag_agent.kernel_log.signals import Signal
from gpudiag_agent.kernel_log.sxid import SXIDDetail, SXIDLine
from gpudiag_api import pci


class XIDLine(msgspec.Struct, frozen=True, kw_only=True):
    """``NVRM: Xid (PCI:0000:3b:00): 31, pid=17, name=python3, MMU Fault …``."""

    code: int
    pci: str
    """Normalised, function 0."""
    message: str = ""
    """The driver's words after the process."""
    gpu_instance: int | None = None
    compute_instance: int | None = None
    process_id: int | None = None
    process_name: str | None = None
    caused_by: int | None = None
    """XID 45 of drivers from 570.124.04 on: the code that it cleans up after."""
    detail: Detail | None = None
    """What the words say, where they have a known form."""


class LostLine(msgspec.Struct, frozen=True):
    """A GPU has fallen off the bus, said without an XID."""

    pci: str


class LostBegin(msgspec.Struct, frozen=True):
    """First line of the lost-GPU text where its lines arrive one by one; a :class:`LostEnd` completes it."""

    pci: str


class LostEnd(msgspec.Struct, frozen=True):
    """``fallen off the bus and is not responding to commands``, without an address of its own."""


class IdentityLine(msgspec.Struct, frozen=True):
    """``NVRM: GPU at PCI:0000:66:00: GPU-<uuid>``: printed once, before the first XID of a GPU."""

    pci: str
    uuid: str


class SerialLine(msgspec.Struct, frozen=True):
    """A board's serial number; ``pci`` None: that of the GPU named in the line before."""

    serial: str
    pci: str | None = None


class DriverLoaded(msgspec.Struct, frozen=True):
    """The kernel module was loaded: every GPU starts anew."""


Said = XIDLine | LostLine | IdentityLine | SerialLine | DriverLoaded | SXIDLine | SXIDDetail | Signal
"""What becomes an event."""
Line = Said | LostBegin | LostEnd

_PCI = r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[01][0-9a-fA-F](?:\.[0-7])?"
_XID = re.compile(
    rf"NVRM: Xid \((?:PCI:)?(?P<pci>{_PCI})(?: GPU-I:(?P<gi>\d{{1,4}}))?(?: GPU-CI:(?P<ci>\d{{1,4}}))?\):"
    r" (?P<code>\d{1,5})(?:,\s*(?P<rest>.*))?$",
    re.DOTALL | re.ASCII,
)
_PROCESS = re.compile(r"pid='?(?P<pid>[^,']{0,32})'?,\s*(?:name=(?P<name>.{0,64}?),\s+)?", re.DOTALL)
_CAUSED_BY = re.compile(r" caused by previous Xid (\d{1,5})\s*$", re.ASCII)
_LOST = re.compile(rf"NVRM: (?:GPU|The NVIDIA GPU) (?P<pci>{_PCI}):?\s.*fallen off the bus", re.DOTALL)
_LOST_BEGIN = re.compile(rf"NVRM: The NVIDIA GPU (?P<pci>{_PCI})\s*$")
_LOST_END = re.compile(r"NVRM: fallen off the bus and is not responding")
_IDENTITY = re.compile(rf"NVRM: GPU at PCI:(?P<pci>{_PCI}): (?P<uuid>GPU-[0-9a-fA-F-]{{8,40}})\s*$")
_SERIAL = re.compile(r"NVRM: GPU Board Serial Number: (?P<serial>\w{1,40})\s*$", re.ASCII)
_SERIAL_AT = re.compile(rf"NVRM: GPU (?P<pci>{_PCI}): GPU serial number is (?P<serial>\w{{1,40}})\.?\s*$", re.ASCII)
_LOADED = re.compile(r"NVRM: loading NVIDIA UNIX ")
_STAMP = re.compile(r"(?:<\d{1,3}>)?\s*(?:\[[ \d.]{1,24}\]\s*)?", re.ASCII)
"""What ``dmesg`` puts before a line. Nothing else may stand there: text before ``NVRM:`` may be a process's own."""


def parse(text: str) -> Line | None:
    """What the driver means by a line of the kernel log; None: nothing that concerns a GPU's health."""
    stamp = _STAMP.match(text)
    if stamp is not None and stamp.end():
        text = text[stamp.end() :]
    if not text.startswith("NVRM: "):
        return sxid.parse(text) or signals.parse(text)
    if match := _XID.match(text):
        return _xid(match)
    for pattern, build in _FORMS:
        if match := pattern.match(text):
            return build(match)
    return signals.parse(text)


def _xid(match: re.Match[str]) -> XIDLine | None:
    code = int(match["code"])
    if code > 0xFFFF:
        return None
    rest = match["rest"] or ""
    process = _PROCESS.match(rest)
    message = (rest[process.end() :] if process else rest).strip()
    cause = _CAUSED_BY.search(message) if code == 45 else None
    return XIDLine(
        code=code,
        pci=_address(match),
        message=message,
        gpu_instance=_number(match["gi"]),
        compute_instance=_number(match["ci"]),
        process_id=_number(process["pid"]) if process else None,
        process_name=_name(process["name"]) if process else None,
        caused_by=int(cause[1]) if cause else None,
        detail=details.read(code, message),
    )


def _address(match: re.Match[str]) -> str:
    return pci.slot(match["pci"]) + ".0"


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 10 else None


def _name(text: str | None) -> str | None:
    """A process name; the driver's ``<unknown>`` is none."""
    text = (text or "").strip().strip("'")
    return None if text in {"", "<unknown>"} else text


_FORMS = (
    (_LOST, lambda match: LostLine(_address(match))),
    (_LOST_BEGIN, lambda match: LostBegin(_address(match))),
    (_LOST_END, lambda _: LostEnd()),
    (_IDENTITY, lambda match: IdentityLine(_address(match), match["uuid"])),
    (_SERIAL_AT, lambda match: SerialLine(match["serial"], _address(match))),
    (_SERIAL, lambda match: SerialLine(match["serial"])),
    (_LOADED, lambda _: DriverLoaded()),
)
