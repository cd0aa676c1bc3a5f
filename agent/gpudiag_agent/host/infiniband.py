"""Ports of InfiniBand and RoCE adapters, from ``/sys/class/infiniband``.

Virtual functions are left out, their ports repeat what the physical one says; so are software adapters and
sub-functions, which hang on no PCI device. Counters are read of active ports only: each read asks the adapter.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from gpudiag_agent.host import files
from gpudiag_agent.host.facts import Port
from gpudiag_api import pci

DEFAULT_ROOT = Path("/sys/class/infiniband")
_MAX_DEVICES = 64
_MAX_PORTS = 8
_COUNTERS = (
    "counters/symbol_error",
    "counters/link_error_recovery",
    "counters/link_downed",
    "counters/local_link_integrity_errors",
    "counters/excessive_buffer_overrun_errors",
    "hw_counters/roce_slow_restart",
)
_RATE = re.compile(r"(\d{1,6}(?:\.\d{1,3})?) Gb/sec", re.ASCII)
_STATE = re.compile(r"\d{1,3}: (\w{1,32})", re.ASCII)


def ports(root: Path = DEFAULT_ROOT) -> tuple[Port, ...] | None:
    """Every port; none where the kernel knows no adapter; None: there is no sysfs that could say so."""
    devices = files.names(root, _MAX_DEVICES)
    if devices is None and files.names(root.parent, 1) is None:
        return None
    return tuple(port for device in devices or () for port in _of(root / device))


def _of(folder: Path) -> Iterator[Port]:
    hardware = folder / "device"
    try:
        address = pci.normalise(os.path.basename(os.path.realpath(hardware, strict=True)))  # noqa: PTH119
    except (OSError, ValueError):
        return
    if os.path.lexists(hardware / "physfn"):
        return
    board = files.line(folder / "board_id")[:63]
    for name in files.names(folder / "ports", _MAX_PORTS) or ():
        if name.isascii() and name.isdigit() and len(name) < 4:
            yield _port(
                folder / "ports" / name, device=folder.name[:48], number=int(name), address=address, board=board
            )


def _port(folder: Path, *, device: str, number: int, address: str, board: str) -> Port:
    state = _word(folder / "state")
    rate = _RATE.match(files.line(folder / "rate"))
    counters = {}
    if state == "ACTIVE":
        values = ((name.partition("/")[2], files.number(folder / name)) for name in _COUNTERS)
        counters = {name: value for name, value in values if value is not None and value >= 0}
    return Port(
        device=device,
        port=number,
        pci=address,
        board=board,
        link_layer=files.line(folder / "link_layer")[:32],
        state=state,
        physical_state=_word(folder / "phys_state"),
        rate_gbps=float(rate[1]) if rate else None,
        counters=counters,
    )


def _word(path: Path) -> str:
    """``ACTIVE`` out of ``4: ACTIVE``."""
    match = _STATE.fullmatch(files.line(path))
    return match[1] if match else ""
