"""Which GPUs this node has: remembered, so that a GPU that no longer says who it is still has a name.

At three in the morning "GPU 3 (0000:3b:00.0) is lost" is worth more than "7 GPUs".
"""

from collections.abc import Mapping

import msgspec

from gpudiag_agent.checks.base import Identity
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api import pci
from gpudiag_api.vocabulary import Capability

MAX_GPUS = 64
"""As many as the wire carries."""


class Inventory:
    """Every GPU seen since the agent started."""

    def __init__(self) -> None:
        self._known: dict[str, Identity] = {}

    @property
    def known(self) -> tuple[Identity, ...]:
        """All GPUs ever seen, by index."""
        return tuple(sorted(self._known.values(), key=lambda gpu: (gpu.index or 0, gpu.pci)))

    def by_pci(self, *, uuids: Mapping[str, str], serials: Mapping[str, str]) -> Mapping[str, Identity]:
        """The same by PCI address, and with less to say those that only the kernel log has named.

        Args:
            uuids: PCI address → UUID, from the kernel log.
            serials: PCI address → serial number, from the kernel log.
        """
        heard = {at: Identity(uuid=uuid, pci=at, serial=serials.get(at, "")) for at, uuid in uuids.items()}
        return heard | {gpu.pci: gpu for gpu in self._known.values() if gpu.pci}

    def take(self, sample: Sample, *, uuids: Mapping[str, str], serials: Mapping[str, str]) -> Sample:
        """Name every GPU of a sample, and remember those that named themselves.

        Args:
            sample: as the source gave it.
            uuids: PCI address → UUID, from the kernel log.
            serials: PCI address → serial number, from the kernel log.

        Returns:
            The sample with normalised addresses, and a unique UUID for each GPU. One that nobody can name is
            called ``unknown:<address or index>``; a second GPU with the UUID of an earlier one is left out.
        """
        present = {gpu.uuid for gpu in sample.gpus if gpu.uuid}
        named: dict[str, GPUSample] = {}
        for gpu in sample.gpus[:MAX_GPUS]:
            complete = self._complete(gpu, present, uuids, serials)
            named.setdefault(complete.uuid, complete)
        for gpu in named.values():
            if not gpu.uuid.startswith("unknown:"):
                self._remember(gpu)
        return msgspec.structs.replace(sample, gpus=tuple(named.values()))

    def vanished(self, sample: Sample) -> tuple[Identity, ...]:
        """GPUs known from earlier samples that this one, which did answer, does not list."""
        if sample.fault is not None and sample.fault.reason is not Capability.NO_GPUS:
            return ()
        uuids = {gpu.uuid for gpu in sample.gpus}
        addresses = {gpu.pci for gpu in sample.gpus if gpu.pci}
        return tuple(gpu for gpu in self.known if gpu.uuid not in uuids and gpu.pci not in addresses)

    def _complete(
        self, gpu: GPUSample, present: set[str], uuids: Mapping[str, str], serials: Mapping[str, str]
    ) -> GPUSample:
        address = _normalise(gpu.pci)
        known = self._known.get(gpu.uuid) if gpu.uuid else self._match(gpu.index, address, present)
        address = address or (known.pci if known else "")
        uuid = gpu.uuid or (known.uuid if known else uuids.get(address, ""))
        return msgspec.structs.replace(
            gpu,
            uuid=uuid[:63] or f"unknown:{address or gpu.index}",
            pci=address,
            model=gpu.model or (known.model if known else ""),
            serial=gpu.serial or (known.serial if known else "") or serials.get(address, ""),
            memory_total_bytes=gpu.memory_total_bytes or (known.memory_bytes if known else None),
        )

    def _match(self, index: int, address: str, present: set[str]) -> Identity | None:
        """The known GPU behind one that does not give its UUID: by address, else by an index nobody else has."""
        for gpu in self.known:
            if (address and gpu.pci == address) or (not address and gpu.index == index):
                return None if gpu.uuid in present else gpu
        return None

    def _remember(self, gpu: GPUSample) -> None:
        # Another board in the same slot: the old one is gone for good, not lost.
        for uuid in [u for u, old in self._known.items() if gpu.pci and old.pci == gpu.pci and u != gpu.uuid]:
            del self._known[uuid]
        if gpu.uuid in self._known or len(self._known) < MAX_GPUS:
            self._known[gpu.uuid] = Identity(
                index=gpu.index,
                uuid=gpu.uuid,
                pci=gpu.pci,
                model=gpu.model,
                serial=gpu.serial,
                memory_bytes=gpu.memory_total_bytes,
            )


def _normalise(address: str) -> str:
    try:
        return pci.normalise(address) if address else ""
    except ValueError:
        return ""
