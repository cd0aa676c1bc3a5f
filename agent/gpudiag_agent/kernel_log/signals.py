r"""Lines that tell of trouble without an XID. Pure: text in, meaning out.

Forms from the driver's source (open-gpu-kernel-modules: ``nv.c``, ``nv-pci.c``, ``osapi.c``, ``kernel_gsp.c``) and,
for a crash within NCCL, from the kernel's own ``show_signal_msg``.
"""

import re
from collections.abc import Callable

import msgspec

from gpudiag_agent.state.bounds import Word
from gpudiag_api import pci


class AdapterInitLine(msgspec.Struct, frozen=True, tag=True):
    """``RmInitAdapter failed! (0x24:0xffff:1568)``, then ``rm_init_adapter failed, device minor number 0``."""

    pci: Word
    status: str = ""
    """The driver's three numbers; empty on the second of the two lines."""


class MismatchLine(msgspec.Struct, frozen=True, tag=True):
    """``API mismatch``: a process came with user libraries of another version than the kernel module."""

    client: str = ""
    process_id: int | None = None
    client_version: str = ""
    """Empty where the record was cut into lines."""
    module_version: str = ""


class RateLimitLine(msgspec.Struct, frozen=True, tag=True):
    """``Rate limiting GSP RPC error prints``: so many that most are no longer said."""

    pci: Word


class NotProbedLine(msgspec.Struct, frozen=True, tag=True):
    """``The NVIDIA probe routine was not called for N device(s)``: a GPU that the driver was not given."""

    devices: int
    failed: bool = False
    """The routine was called, and failed."""


class TrainingLine(msgspec.Struct, frozen=True, tag=True):
    """NVLink training failed; the line names no GPU."""

    function: str


class PeerMemoryLine(msgspec.Struct, frozen=True, tag=True):
    """``nvidia-peermem … ERROR detected invalid context``."""

    function: str
    message: str


class SegfaultLine(msgspec.Struct, frozen=True, tag=True):
    """A process crashed within NCCL."""

    process_name: str
    process_id: int
    library: str
    error: int


Signal = AdapterInitLine | MismatchLine | RateLimitLine | NotProbedLine | TrainingLine | PeerMemoryLine | SegfaultLine

_PCI = r"(?P<pci>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[01][0-9a-fA-F](?:\.[0-7])?)"
_INIT = re.compile(rf"NVRM: GPU {_PCI}: RmInitAdapter failed! ?\((?P<status>[0-9a-fA-FxX:]{{1,40}})\)")
_INIT_MINOR = re.compile(rf"NVRM: GPU {_PCI}: rm_init_adapter failed")
_MISMATCH = re.compile(r"NVRM: API mismatch: the client '(?P<client>[^'\n]{0,64})' \(pid (?P<pid>\d{1,10})\)", re.ASCII)
_VERSIONS = re.compile(
    r"has the version\s+(?P<client>[\w.-]{1,40}?)[,.]?\s+but this kernel module has\s+(?:NVRM:\s+)?"
    r"the version\s+(?P<module>[\w.-]{1,40}?)(?:\.\s|\s|\.?$)"
)
_RATE = re.compile(rf"NVRM: Rate limiting GSP RPC error prints for GPU at PCI:{_PCI}")
_PROBE = re.compile(
    r"NVRM: The NVIDIA probe routine (?P<how>was not called|failed) for (?P<count>\d{1,4}) device", re.ASCII
)
_TRAINING = re.compile(
    r"NVRM: (?P<function>knvlink(?:Update|Discover)PostRxDet\w{0,60}): "
    r"(?:Failed to update Rx Detect Link mask|Getting peer\S{0,8} postRxDetLinkMask failed)"
)
_PEER = re.compile(
    r"nvidia-peermem (?P<function>\w{1,60}):\d{1,6} ERROR (?P<message>detected invalid context[^\n]{0,200})"
)
_SEGFAULT = re.compile(
    r"(?P<name>[^\[\n]{1,16})\[(?P<pid>\d{1,10})\]: segfault at [^\n]{0,120} error (?P<error>\d{1,4}) in "
    r"(?P<library>libnccl[\w.-]{0,40})\[",
    re.ASCII,
)


def parse(text: str) -> Signal | None:
    """Read a line without its time stamp; None: nothing of this kind."""
    if text.startswith("NVRM: "):
        forms = _DRIVER
    elif "libnccl" in text or text.startswith("nvidia-peermem "):
        forms = _OTHERS
    else:
        return None
    for pattern, build in forms:
        if match := pattern.match(text):
            return build(match)
    return None


def _mismatch(match: re.Match[str]) -> MismatchLine:
    versions = _VERSIONS.search(match.string, match.end())
    return MismatchLine(
        client=match["client"],
        process_id=int(match["pid"]),
        client_version=versions["client"] if versions else "",
        module_version=versions["module"] if versions else "",
    )


_Forms = tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Signal]], ...]
_DRIVER: _Forms = (
    (_INIT, lambda match: AdapterInitLine(_address(match), match["status"])),
    (_INIT_MINOR, lambda match: AdapterInitLine(_address(match))),
    (_MISMATCH, _mismatch),
    (_RATE, lambda match: RateLimitLine(_address(match))),
    (_PROBE, lambda match: NotProbedLine(int(match["count"]), match["how"] == "failed")),
    (_TRAINING, lambda match: TrainingLine(match["function"])),
)
_OTHERS: _Forms = (
    (_PEER, lambda match: PeerMemoryLine(match["function"], match["message"])),
    (
        _SEGFAULT,
        lambda match: SegfaultLine(match["name"], int(match["pid"]), match["library"], int(match["error"])),
    ),
)


def _address(match: re.Match[str]) -> str:
    return pci.slot(match["pci"]) + ".0"
