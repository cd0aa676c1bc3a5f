"""What the PCI bus shows, from sysfs: the second witness beside the driver's own list of GPUs.

Reads what the kernel keeps in memory, never a device's own configuration space, so a dead GPU cannot hang it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from gpudiag_agent.host import files
from gpudiag_agent.host.facts import PCIDevice
from gpudiag_api import pci

DEFAULT_ROOT = Path("/sys/bus/pci/devices")
_NVIDIA = "0x10de"
_GPU_CLASSES = ("0x0300", "0x0302")
"""VGA and 3D controllers (PCI class codes)."""
_NVSWITCH_CLASS = "0x0680"
"""Other bridges: what an NVSwitch says it is."""
_MAX_ENTRIES = 16384
_MAX_DEVICES = 64
_CORRECTABLE = ("RxErr", "BadTLP", "BadDLLP")
"""Errors of the wire. Advisory non-fatal ones, timeouts and overflows of headers are how a link is probed and slept."""


def scan(root: Path = DEFAULT_ROOT) -> tuple[tuple[PCIDevice, ...] | None, int | None]:
    """NVIDIA display and 3D controllers, by address, and the number of NVSwitches.

    Returns:
        None for the controllers where there is none: a container without sysfs looks like that. Both None where there
        is no such folder.
    """
    found = files.names(root, _MAX_ENTRIES)
    if found is None:
        return None, None
    devices: list[PCIDevice] = []
    switches = 0
    for name in found:
        folder = root / name
        if files.line(folder / "vendor").lower() != _NVIDIA:
            continue
        kind = files.line(folder / "class").lower()
        switches += kind.startswith(_NVSWITCH_CLASS)
        if kind.startswith(_GPU_CLASSES) and len(devices) < _MAX_DEVICES and (device := _device(folder)) is not None:
            devices.append(device)
    return tuple(devices) or None, switches


def _device(folder: Path) -> PCIDevice | None:
    try:
        address = pci.normalise(folder.name)
    except ValueError:
        return None
    numa = files.number(folder / "numa_node")
    return PCIDevice(address, _driver(folder), numa if numa is not None and numa >= 0 else None, _errors(folder))


def _driver(folder: Path) -> str | None:
    try:
        return os.path.basename(os.readlink(folder / "driver"))[:63] or None  # noqa: PTH115, PTH119 - many per look
    except OSError:
        return None


def _errors(folder: Path) -> Mapping[str, int]:
    found = {}
    correctable = _counts(folder / "aer_dev_correctable")
    if correctable:
        found["correctable"] = sum(correctable.get(name, 0) for name in _CORRECTABLE)
    non_fatal = _counts(folder / "aer_dev_nonfatal")
    if non_fatal:
        found["non_fatal"] = non_fatal.get("TOTAL_ERR_NONFATAL", 0)
        found["unsupported_request"] = non_fatal.get("UnsupReq", 0)
    return found


def _counts(path: Path) -> Mapping[str, int]:
    """``RxErr 0`` and so on, a line each (Linux, ``Documentation/ABI/testing/sysfs-bus-pci-devices-aer``)."""
    pairs = [line.rsplit(" ", 1) for line in (files.read(path) or "").splitlines()[:64]]
    return {
        pair[0]: int(pair[1])
        for pair in pairs
        if len(pair) == 2 and pair[1].isascii() and pair[1].isdigit() and len(pair[1]) < 20
    }
