"""Machines that a simulated node can be: what NVML and the PCI bus of the real ones say about themselves.

Identities come from the node's name alone, so that a fleet that is started again is the same fleet: the operator
sees the same GPUs, and a test can say which UUID it expects.
"""

import hashlib
import uuid
from dataclasses import dataclass

from gpudiag_api.wire import GPU, Driver, MIGInstance

GIB = 1 << 30
_DRIVER = Driver(version="570.133.20", cuda_version="12.8", nvml_version="12.570.133.20")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One model of node: its GPUs and the driver they are sold with."""

    name: str
    """As scenarios and ``--machine`` say it, for example ``h100-8``."""
    model: str
    """As the driver names the GPU."""
    pci: tuple[str, ...]
    """One address per GPU, in index order."""
    memory_bytes: int
    driver: Driver = _DRIVER
    mig_profiles: tuple[str, ...] | None = ()
    """Profiles of the MIG devices of each GPU; empty: MIG is off; None: the GPU has no MIG."""
    idle_watts: float = 70.0

    @property
    def gpu_count(self) -> int:
        """Number of GPUs."""
        return len(self.pci)

    def gpus(self, node: str) -> tuple[GPU, ...]:
        """The GPUs of a node of that name: without health and measurements, always the same."""
        return tuple(
            GPU(
                index=index,
                uuid=f"GPU-{_uuid(f'{node}/gpu/{index}')}",
                pci=pci,
                model=self.model,
                serial=str(10**12 + _number(f"{node}/serial/{index}") % 10**12),
                memory_bytes=self.memory_bytes,
                mig_enabled=None if self.mig_profiles is None else bool(self.mig_profiles),
                mig=self._mig(node, index),
            )
            for index, pci in enumerate(self.pci)
        )

    def _mig(self, node: str, index: int) -> tuple[MIGInstance, ...]:
        return tuple(
            MIGInstance(
                uuid=f"MIG-{_uuid(f'{node}/mig/{index}/{number}')}",
                gpu_instance=number + 1,
                compute_instance=0,
                profile=profile,
                memory_bytes=int(profile.partition(".")[2].removesuffix("gb")) * GIB,
            )
            for number, profile in enumerate(self.mig_profiles or ())
        )


def boot_id(node: str) -> str:
    """The kernel boot id of a simulated node."""
    return _uuid(f"{node}/boot")


def _uuid(seed: str) -> str:
    return str(uuid.UUID(bytes=hashlib.sha256(seed.encode()).digest()[:16], version=4))


def _number(seed: str) -> int:
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8])


def _buses(*buses: int) -> tuple[str, ...]:
    return tuple(f"0000:{bus:02x}:00.0" for bus in buses)


_HGX = _buses(0x1B, 0x43, 0x52, 0x61, 0x9D, 0xC3, 0xD1, 0xDF)
_DGX_A100 = _buses(0x07, 0x0F, 0x47, 0x4E, 0x87, 0x90, 0xB7, 0xBD)

MACHINES = {
    machine.name: machine
    for machine in (
        Machine(name="h100-8", model="NVIDIA H100 80GB HBM3", pci=_HGX, memory_bytes=85_520_809_984),
        Machine(name="h200-8", model="NVIDIA H200", pci=_HGX, memory_bytes=150_754_820_096, idle_watts=76.0),
        Machine(name="b200-8", model="NVIDIA B200", pci=_HGX, memory_bytes=191_502_483_456, idle_watts=140.0),
        Machine(name="a100-8", model="NVIDIA A100-SXM4-80GB", pci=_DGX_A100, memory_bytes=85_899_345_920),
        Machine(
            name="a100-8-mig",
            model="NVIDIA A100-SXM4-80GB",
            pci=_DGX_A100,
            memory_bytes=85_899_345_920,
            mig_profiles=("3g.40gb", "2g.20gb", "1g.10gb"),
        ),
        Machine(
            name="gb200-4",
            model="NVIDIA GB200",
            pci=tuple(f"{domain:04x}:01:00.0" for domain in (0x08, 0x09, 0x18, 0x19)),
            memory_bytes=198_642_237_440,
            idle_watts=160.0,
        ),
        Machine(
            name="l40s-4",
            model="NVIDIA L40S",
            pci=_buses(0x16, 0x38, 0x98, 0xB8),
            memory_bytes=48_305_799_168,
            mig_profiles=None,
            idle_watts=35.0,
        ),
        Machine(
            name="t4-1",
            model="Tesla T4",
            pci=_buses(0x1E),
            memory_bytes=16_106_127_360,
            mig_profiles=None,
            idle_watts=10.0,
        ),
    )
}
"""Every machine by name."""
