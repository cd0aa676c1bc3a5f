"""PCI addresses: parsed to numbers, compared as numbers, written in one form.

NVML writes ``00000000:3B:00.0``, the kernel's XID lines ``0000:3b:00``, sysfs ``0000:3b:00.0``; comparing the
strings almost never matches. The domain and the device are not always zero (Grace: ``0018:01:00``).
"""

import re

_ADDRESS = re.compile(
    r"(?:(?P<domain>[0-9a-f]{4,8}):)?(?P<bus>[0-9a-f]{2}):(?P<device>[01][0-9a-f])(?:\.(?P<function>[0-7]))?",
    re.IGNORECASE,
)


def normalise(address: str) -> str:
    """Write a PCI address in the project's one form, ``0000:3b:00.0``.

    Args:
        address: any of the forms above; a missing domain or function counts as zero.

    Returns:
        Lower case; a domain of 4 hex digits, 8 when it does not fit.

    Raises:
        ValueError: the text is not a PCI address.
    """
    match = _ADDRESS.fullmatch(address.strip())
    if match is None:
        raise ValueError(f"{address!r} is not a PCI address such as 0000:3b:00.0")
    domain = int(match["domain"] or "0", 16)
    width = 4 if domain <= 0xFFFF else 8
    return f"{domain:0{width}x}:{match['bus'].lower()}:{match['device'].lower()}.{match['function'] or '0'}"


def slot(address: str) -> str:
    """The address without its function, ``0000:3b:00``: what identifies a GPU in a kernel line."""
    return normalise(address).rpartition(".")[0]
