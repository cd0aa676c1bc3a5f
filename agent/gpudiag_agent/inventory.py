"""Which GPUs this node has: remembered, so that a GPU that no longer says who it is still has a name.

At three in the morning "GPU 3 (0000:3b:00.0) is lost" is worth more than "7 GPUs". Within a boot the names survive a
restart of the agent, as the driver may be dead by then.
"""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from gpudiag_agent.checks.base import Identity
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_agent.state.bounds import Natural, Word
from gpudiag_api import pci
from gpudiag_api.vocabulary import Capability

MAX_GPUS = 64
"""As many as the wire carries."""


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU as the state folder holds it."""

    uuid: Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
    index: Annotated[int, msgspec.Meta(ge=0, le=255)]
    pci: Word
    model: Annotated[str, msgspec.Meta(max_length=253)]
    serial: Word
    memory_bytes: Natural | None


class _Stored(msgspec.Struct, frozen=True):
    boot: str
    gpus: Annotated[tuple[_Kept, ...], msgspec.Meta(max_length=MAX_GPUS)]


class Inventory:
    """Every GPU seen since the agent started, and until the driver answers those of its earlier lives.

    Args:
        boot_id: of the kernel; in another boot there may be other boards in the slots.
    """

    def __init__(self, boot_id: str = "") -> None:
        self._boot = boot_id
        self._known: dict[str, Identity] = {}
        self._seen: set[str] = set()
        """UUIDs of those that were seen in this life."""

    def dump(self) -> object:
        """All of it as builtins, for the state folder."""
        return {"boot": self._boot, "gpus": [msgspec.structs.asdict(gpu) for gpu in self.known]}

    def load(self, stored: object) -> None:
        """Take what :meth:`dump` gave, before the first sample.

        Raises:
            msgspec.ValidationError: it is something else; nothing was taken.
        """
        found = msgspec.convert(stored, _Stored)
        if found.boot and found.boot == self._boot:
            self._known = {gpu.uuid: Identity(**msgspec.structs.asdict(gpu)) for gpu in found.gpus}

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
        if sample.fault is None:
            # Whoever is not listed was maybe taken out while the agent was away: not lost under its eyes.
            self._known = {uuid: gpu for uuid, gpu in self._known.items() if uuid in self._seen}
        return msgspec.structs.replace(sample, gpus=tuple(named.values()))

    def vanished(self, sample: Sample) -> tuple[Identity, ...]:
        """GPUs known from earlier samples of this life that this one, which did answer, does not list."""
        if sample.fault is not None and sample.fault.reason is not Capability.NO_GPUS:
            return ()
        uuids = {gpu.uuid for gpu in sample.gpus}
        addresses = {gpu.pci for gpu in sample.gpus if gpu.pci}
        absent = (gpu for gpu in self.known if gpu.uuid not in uuids and gpu.pci not in addresses)
        return tuple(gpu for gpu in absent if gpu.uuid in self._seen)

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
            self._seen.discard(uuid)
        if gpu.uuid in self._known or len(self._known) < MAX_GPUS:
            self._seen.add(gpu.uuid)
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
