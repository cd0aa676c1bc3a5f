r"""NVSwitch errors: ``nvidia-nvswitchN: SXid (PCI:DDDD:BB:dd.f): CCCCC, Fatal|Non-fatal, Link NN TEXT[ (First)]``.

The driver's format strings are in ``common_nvswitch.h`` (open-gpu-kernel-modules). Detail lines with the same code
follow each error; they are told apart here so that nobody counts them.
"""

import re

import msgspec

from gpudiag_api import pci


class SXIDLine(msgspec.Struct, frozen=True, kw_only=True):
    """An error of an NVSwitch."""

    switch: int
    """N of ``nvidia-nvswitchN``."""
    code: int
    pci: str
    """Of the switch, normalised."""
    fatal: bool
    link: int | None = None
    message: str = ""
    first: bool = False
    """Whether the driver calls it the first error of a cascade."""


class SXIDDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Registers and severities that belong to the error just above it."""

    switch: int
    code: int
    pci: str
    message: str


_PCI = r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[01][0-9a-fA-F](?:\.[0-7])?"
_LINE = re.compile(
    rf"nvidia-nvswitch(?P<switch>\d{{1,3}}): SXid \((?:PCI:)?(?P<pci>{_PCI})\): (?P<code>\d{{1,5}}),?\s*(?P<rest>.*)$",
    re.DOTALL | re.ASCII,
)
_ERROR = re.compile(
    r"(?P<word>Fatal|Non-fatal)(?:,\s*|\s+|$)(?:Link (?P<link>\d{1,3})\b,?\s*)?(?P<text>.*?)\s*$",
    re.DOTALL | re.ASCII | re.IGNORECASE,
)
_FIRST = re.compile(r"\s*\(First\)$")


def parse(text: str) -> SXIDLine | SXIDDetail | None:
    """Read a line without its time stamp; None: not about an NVSwitch's errors."""
    match = _LINE.match(text)
    if match is None or int(match["code"]) > 0xFFFF:
        return None
    switch, code, address = int(match["switch"]), int(match["code"]), pci.normalise(match["pci"])
    error = _ERROR.match(match["rest"])
    if error is None:
        return SXIDDetail(switch=switch, code=code, pci=address, message=match["rest"].strip())
    words = _FIRST.sub("", error["text"])
    return SXIDLine(
        switch=switch,
        code=code,
        pci=address,
        fatal=error["word"].lower() == "fatal",
        link=int(error["link"]) if error["link"] else None,
        message=words,
        first=words != error["text"],
    )
