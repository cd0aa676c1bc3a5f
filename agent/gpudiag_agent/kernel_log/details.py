r"""What an XID's own words say beyond its number. Pure: code and message in, details out.

Forms from the driver's format strings (open-gpu-kernel-modules) and from field logs; a message that fits none gives
None, never an error: the code still counts.
"""

import re
from collections.abc import Callable

import msgspec


class _Detail(msgspec.Struct, frozen=True, tag_field="kind", omit_defaults=True):
    """Shared settings: the kind goes along, so that a history can be stored."""


class SMException(_Detail, frozen=True, tag="sm"):
    """XID 13: where the exception happened."""

    gpc: int
    tpc: int
    sm: int | None = None
    what: str = ""

    @property
    def place(self) -> str:
        """What repeats when the hardware is at fault: NVIDIA's workflow compares GPC and TPC."""
        return f"GPC {self.gpc} TPC {self.tpc}"


class PageFault(_Detail, frozen=True, tag="mmu"):
    """XID 31: who touched which address."""

    channel: str = ""
    engine: str = ""
    client: str = ""
    address: str = ""
    fault: str = ""
    access: str = ""

    @property
    def place(self) -> str:
        """The unit that asked for the address."""
        return f"{self.engine} {self.client}".strip()


class Containment(_Detail, frozen=True, tag="ecc"):
    """XIDs 94 and 95: whose memory error it is, and what the driver asks for."""

    contained: bool
    unit: str = ""
    reset: bool = False
    """``RST: Yes``: the GPU must be reset."""
    drain_reset: bool = False
    """``D-RST: Yes``: drain it, then reset."""


class RPCTimeout(_Detail, frozen=True, tag="gsp"):
    """XID 119: a question to the GSP that was not answered."""

    seconds: int
    gpu: int | None = None
    function: int | None = None
    name: str = ""
    words: tuple[str, ...] = ()


class LinkRegisters(_Detail, frozen=True, tag="nvlink4"):
    """XID 74: the link and its seven error registers."""

    link: int
    registers: tuple[int, ...]


class LinkEvent(_Detail, frozen=True, tag="nvlink5"):
    """XIDs 144 to 150: an error of NVLink 5."""

    unit: str
    fatal: bool | None
    """The driver's own word; the decode table wins over it."""
    cross_contained: int | None = None
    injected: int | None = None
    link: int | None = None
    info: int | None = None
    """The first word, ``intrinfo``."""
    status: int | None = None
    """The second word, ``errstatus``."""

    @property
    def sub(self) -> int | None:
        """Sub-code: bits 25 to 20 of ``intrinfo``."""
        return None if self.info is None else self.info >> 20 & 0x3F


class Recovery(_Detail, frozen=True, tag="recovery"):
    """XID 154: what the GPU needs, by number (NVML field 230): the texts vary."""

    before: int | None
    after: int


Detail = SMException | PageFault | Containment | RPCTimeout | LinkRegisters | LinkEvent | Recovery

_HEX = r"0x[0-9a-fA-F]{1,16}"
_SM = re.compile(r"\(GPC (\d{1,3}), TPC (\d{1,3})(?:, SM (\d{1,3}))?\)(?::\s*(.{0,200}))?", re.DOTALL | re.ASCII)
# Each begins with fixed text, which the search finds fast.
_CHANNEL = re.compile(r"Ch (\w{1,16})")
_ENGINE = re.compile(r"ENGINE (\w{1,40})(?: GPC\d{1,2})?(?: ((?:GPC|HUB)CLIENT_\w{1,40}))?")
_ADDRESS = re.compile(r"faulted @ (0x[0-9a-fA-F_]{1,24})")
_FAULT = re.compile(r"FAULT_\w{1,40}")
_ACCESS = re.compile(r"ACCESS_TYPE_\w{1,40}")
_CONTAINED = re.compile(r"(Contained|Uncontained): ?(.{0,120}?)(?:\. |,? physAddr|$)", re.DOTALL)
_RST = re.compile(r"(?<![-\w])RST: (Yes|No)")
_D_RST = re.compile(r"\bD-RST: (Yes|No)")
_RPC = re.compile(
    r"Timeout after (\d{1,6})s of waiting for RPC response(?: from GPU(\d{1,3}) GSP)?"
    rf"(?:!? Expected function (\d{{1,6}}) \((\w{{1,80}})\)(?: \(({_HEX}(?: {_HEX}){{0,7}})\))?)?",
    re.ASCII,
)
_LINK4 = re.compile(rf"\bon link (\d{{1,3}}) ?\(({_HEX}(?:, ?{_HEX}){{6}})\)", re.ASCII)
_LINK5 = re.compile(
    r"(?P<unit>[A-Za-z]\w{0,40})\s+(?P<word>Fatal|Nonfatal)\b(?:\s+XC(?P<xc>\d))?(?:\s+i(?P<i>\d))?"
    rf"(?:\s+Link (?P<link>-?\d{{1,3}}))?(?:\s*\((?P<info>{_HEX})\s+(?P<status>{_HEX}))?",
    re.IGNORECASE | re.ASCII,
)
_CHANGED = re.compile(r"(?:\bfrom 0x([0-9a-fA-F]{1,8})\b.{0,64}?)?\bto 0x([0-9a-fA-F]{1,8})\b")


def read(code: int, message: str) -> Detail | None:
    """What the message of that XID says; None: nothing that is known.

    Args:
        code: the XID.
        message: the driver's words after the process.
    """
    reader = _READERS.get(code)
    return reader(message) if reader else None


def _exception(message: str) -> SMException | None:
    match = _SM.search(message)
    if match is None:
        return None
    return SMException(int(match[1]), int(match[2]), _number(match[3]), (match[4] or "").strip())


def _page_fault(message: str) -> PageFault | None:
    engine, fault = _ENGINE.search(message), _FAULT.search(message)
    if engine is None and fault is None:
        return None
    channel, address, access = _CHANNEL.search(message), _ADDRESS.search(message), _ACCESS.search(message)
    return PageFault(
        channel=channel[1] if channel else "",
        engine=engine[1] if engine else "",
        client=engine[2] or "" if engine else "",
        address=address[1] if address else "",
        fault=fault[0] if fault else "",
        access=access[0] if access else "",
    )


def _containment(message: str) -> Containment | None:
    match, reset, drain = _CONTAINED.search(message), _RST.search(message), _D_RST.search(message)
    if match is None and reset is None and drain is None:
        return None
    return Containment(
        contained=match is None or match[1] == "Contained",
        unit=match[2].strip().rstrip(".") if match else "",
        reset=reset is not None and reset[1] == "Yes",
        drain_reset=drain is not None and drain[1] == "Yes",
    )


def _rpc(message: str) -> RPCTimeout | None:
    match = _RPC.search(message)
    if match is None:
        return None
    words = tuple((match[5] or "").split())
    return RPCTimeout(int(match[1]), _number(match[2]), _number(match[3]), match[4] or "", words)


def _registers(message: str) -> LinkRegisters | None:
    match = _LINK4.search(message)
    return LinkRegisters(int(match[1]), tuple(int(word, 16) for word in match[2].split(","))) if match else None


def _link_event(message: str) -> LinkEvent | None:
    match = _LINK5.match(message)
    if match is None:
        return None
    return LinkEvent(
        unit=match["unit"].upper(),
        fatal=match["word"].lower() == "fatal",
        cross_contained=_number(match["xc"]),
        injected=_number(match["i"]),
        link=_number(match["link"]),
        info=int(match["info"], 16) if match["info"] else None,
        status=int(match["status"], 16) if match["status"] else None,
    )


def _recovery(message: str) -> Recovery | None:
    match = _CHANGED.search(message)
    return Recovery(int(match[1], 16) if match[1] else None, int(match[2], 16)) if match else None


def _number(text: str | None) -> int | None:
    return int(text) if text else None


_READERS: dict[int, Callable[[str], Detail | None]] = {
    13: _exception,
    31: _page_fault,
    74: _registers,
    94: _containment,
    95: _containment,
    119: _rpc,
    154: _recovery,
    **dict.fromkeys(range(144, 151), _link_event),
}
