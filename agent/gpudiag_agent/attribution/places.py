"""From the devices that containers hold to GPUs, and from GPUs to the pod behind an event. Pure."""

from collections.abc import Sequence

import msgspec

from gpudiag_agent.attribution.model import Device, Held, Owner, PodRef
from gpudiag_agent.sample import MIGDevice, Sample
from gpudiag_api.wire import Allocation

MAX_ALLOCATIONS = 512
"""As many as the wire carries."""
_MAX_PLACES = 1024


class _Place(msgspec.Struct, frozen=True):
    """Where a device is."""

    gpu_uuid: str
    mig_uuid: str | None = None
    gpu_instance: int | None = None


class Places:
    """Which GPU an index or a MIG UUID means. Remembers, so that a lost GPU's holders can still be named."""

    def __init__(self) -> None:
        self._by_index: dict[int, str] = {}
        self._by_mig: dict[str, _Place] = {}
        self._by_instance: dict[tuple[str, int], str] = {}

    def observe(self, sample: Sample) -> None:
        """Take a finished sample into memory."""
        for gpu in sample.gpus:
            if gpu.uuid and not gpu.uuid.startswith("unknown:"):
                self._by_index[gpu.index] = gpu.uuid
                if gpu.mig or not gpu.errors:
                    self._instances(gpu.uuid, gpu.mig)

    def _instances(self, gpu_uuid: str, found: Sequence[MIGDevice]) -> None:
        self._by_mig = {mig: place for mig, place in self._by_mig.items() if place.gpu_uuid != gpu_uuid}
        self._by_instance = {key: mig for key, mig in self._by_instance.items() if key[0] != gpu_uuid}
        for device in found[: _MAX_PLACES - len(self._by_mig)]:
            mig = _lower(device.uuid)
            self._by_mig[mig] = _Place(gpu_uuid, mig, device.gpu_instance)
            self._by_instance[gpu_uuid, device.gpu_instance] = mig

    def allocations(self, held: Sequence[Held]) -> tuple[Allocation, ...]:
        """What containers hold, as the wire tells it: each once, in a stable order; unknown devices are left out."""
        found = set()
        for one in held:
            place = self._place(one.device)
            if place is not None:
                found.add((place.gpu_uuid, one.namespace, one.pod, one.container, place.mig_uuid, place.gpu_instance))
        ordered = sorted(found, key=lambda one: (*one[:4], one[4] or "", -1 if one[5] is None else one[5]))
        return tuple(
            Allocation(
                gpu_uuid=gpu[:63],
                namespace=namespace,
                pod=pod,
                container=container,
                mig_uuid=mig,
                mig_gpu_instance=instance,
            )
            for gpu, namespace, pod, container, mig, instance in ordered[:MAX_ALLOCATIONS]
        )

    def _place(self, device: Device) -> _Place | None:
        if device.mig_uuid:
            return self._by_mig.get(_lower(device.mig_uuid))
        gpu_uuid = self._own_spelling(device.gpu_uuid) if device.gpu_uuid else self._by_index.get(device.index or 0)
        if gpu_uuid is None:
            return None
        if device.gpu_instance is None:
            return _Place(gpu_uuid)
        return _Place(gpu_uuid, self._by_instance.get((gpu_uuid, device.gpu_instance)), device.gpu_instance)

    def _own_spelling(self, gpu_uuid: str) -> str:
        return next((known for known in self._by_index.values() if known.lower() == gpu_uuid.lower()), gpu_uuid)


def pod_behind(
    owner: Owner | None,
    allocations: Sequence[Allocation],
    *,
    gpu_uuid: str | None,
    gpu_instance: int | None = None,
) -> PodRef | None:
    """The pod that an event on a GPU belongs to.

    Args:
        owner: the process that the event names; None: it names none, or nobody knows it any more.
        allocations: who holds which GPU.
        gpu_uuid: the GPU; None: unknown.
        gpu_instance: MIG GPU instance; None: the whole GPU.

    Returns:
        The process's pod. Where the process leads nowhere, the pod that holds the GPU if exactly one does. None for a
        process of the node itself: it is not the fault of the pod beside it.
    """
    if owner is not None and owner.pod is not None:
        return owner.pod
    if owner is not None and owner.pod_uid is None:
        return None
    holders = {
        PodRef(one.namespace, one.pod)
        for one in allocations
        if one.gpu_uuid == gpu_uuid and (gpu_instance is None or one.mig_gpu_instance in (None, gpu_instance))
    }
    return holders.pop() if len(holders) == 1 else None


def _lower(mig_uuid: str) -> str:
    return mig_uuid[:4] + mig_uuid[4:].lower()
