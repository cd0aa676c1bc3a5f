"""Folders that look like /sys and /proc of a node, laid out as the kernel lays them out."""

from collections.abc import Mapping
from pathlib import Path

H100_PORT = {"state": "4: ACTIVE", "phys_state": "5: LinkUp", "rate": "400 Gb/sec (4X NDR)", "link_layer": "InfiniBand"}
AER_CORRECTABLE = ("RxErr", "BadTLP", "BadDLLP", "Rollover", "Timeout", "NonFatalErr", "CorrIntErr", "HeaderOF")
AER_FATAL = (
    "Undefined",
    "DLP",
    "SDES",
    "TLP",
    "FCP",
    "CmpltTO",
    "CmpltAbrt",
    "UnxCmplt",
    "RxOF",
    "MalfTLP",
    "UnsupReq",
)


class HostTree:
    """A node's files below one folder."""

    def __init__(self, root: Path) -> None:
        self.sysfs_pci = root / "sys/bus/pci/devices"
        self.infiniband = root / "sys/class/infiniband"
        self.proc = root / "proc"
        self._root = root
        self.sysfs_pci.mkdir(parents=True)
        self.infiniband.parent.mkdir(parents=True)
        self.proc.mkdir()
        self.process(2, "kthreadd")

    def write(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def device(
        self,
        address: str,
        *,
        vendor: str = "0x10de",
        kind: str = "0x030200",
        driver: str | None = "nvidia",
        numa: int = 0,
    ) -> Path:
        """A PCI device; sysfs shows it as a link into the tree of buses."""
        real = self._root / "sys/devices/pci0000:00" / address
        for name, text in (("vendor", vendor), ("class", kind), ("numa_node", str(numa))):
            self.write(real / name, f"{text}\n")
        (self.sysfs_pci / address).symlink_to(real)
        if driver is not None:
            drivers = self._root / "sys/bus/pci/drivers" / driver
            drivers.mkdir(parents=True, exist_ok=True)
            (real / "driver").symlink_to(drivers)
        return real

    def aer(self, device: Path, **counts: int) -> None:
        """Error counters of a device, as ``Documentation/ABI/testing/sysfs-bus-pci-devices-aer`` shows them."""
        total = {"correctable": "TOTAL_ERR_COR", "nonfatal": "TOTAL_ERR_NONFATAL", "fatal": "TOTAL_ERR_FATAL"}
        for kind, names in (("correctable", AER_CORRECTABLE), ("nonfatal", AER_FATAL), ("fatal", AER_FATAL)):
            found = {name: counts.get(f"{kind}_{name}", 0) for name in names}
            lines = [f"{name} {count}" for name, count in found.items()] + [f"{total[kind]} {sum(found.values())}"]
            self.write(device / f"aer_dev_{kind}", "\n".join(lines) + "\n")

    def adapter(self, name: str, address: str, *, port: int = 1, **values: str) -> Path:
        """An adapter with one port; ``values`` are files of the port, with ``__`` for ``/``."""
        device = self.device(address, vendor="0x15b3", kind="0x020700", driver="mlx5_core")
        folder = device / "infiniband" / name
        self.write(folder / "board_id", "MT_0000000838\n")
        for key, text in {**H100_PORT, **values}.items():
            self.write(folder / "ports" / str(port) / key.replace("__", "/"), f"{text}\n")
        (folder / "device").symlink_to(device)
        self.infiniband.mkdir(parents=True, exist_ok=True)
        (self.infiniband / name).symlink_to(folder)
        return device

    def process(self, pid: int, name: str, *, state: str = "S", started: int = 100, cgroup: str = "0::/\n") -> None:
        """A process; the kernel keeps 15 characters of its name."""
        comm = name[:15]
        rest = " ".join(["1"] * 18)
        self.write(self.proc / str(pid) / "comm", f"{comm}\n")
        self.write(self.proc / str(pid) / "stat", f"{pid} ({comm}) {state} {rest} {started} 0 0\n")
        self.write(self.proc / str(pid) / "cgroup", cgroup)

    def ended(self, pid: int) -> None:
        """The process is gone."""
        folder = self.proc / str(pid)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()

    def modules(self, users: Mapping[str, str]) -> None:
        """Loaded modules, each with those that use it."""
        lines = (f"{name} 434176 9 {by or '-'} Live 0x0000000000000000" for name, by in users.items())
        self.write(self.proc / "modules", "\n".join(lines) + "\n")
