"""What the PCI bus shows, from sysfs: the second witness beside the driver's own list of GPUs."""

from pathlib import Path

from gpudiag_agent.checks.base import PCIDevice
from gpudiag_api import pci

DEFAULT_ROOT = Path("/sys/bus/pci/devices")
_NVIDIA = "0x10de"
_GPU_CLASSES = ("0x0300", "0x0302")
"""VGA and 3D controllers (PCI class codes). NVSwitches are bridges and do not count."""
_MAX_DEVICES = 64


def scan(root: Path = DEFAULT_ROOT) -> tuple[PCIDevice, ...] | None:
    """NVIDIA display and 3D controllers, by address.

    Reads what the kernel keeps in memory, never a device's own configuration space, so a dead GPU cannot hang it.

    Returns:
        None where it cannot be told: no such folder, or no such device (a container without sysfs looks like that).
    """
    try:
        folders = sorted(root.iterdir())
    except OSError:
        return None
    devices = [device for folder in folders if (device := _device(folder)) is not None]
    return tuple(devices[:_MAX_DEVICES]) or None


def _device(folder: Path) -> PCIDevice | None:
    try:
        if (folder / "vendor").read_text(encoding="ascii").strip().lower() != _NVIDIA:
            return None
        if not (folder / "class").read_text(encoding="ascii").strip().lower().startswith(_GPU_CLASSES):
            return None
        address = pci.normalise(folder.name)
    except (OSError, ValueError):  # It was removed meanwhile, or is not a PCI device.
        return None
    driver = folder / "driver"
    return PCIDevice(address, driver.resolve().name if driver.exists() else None)
