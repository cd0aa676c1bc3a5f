"""Device ids in every form that NVIDIA's and the clouds' device plugins and DRA drivers give them.

| id | from | names |
|---|---|---|
| ``GPU-<uuid>`` | NVIDIA device plugin | a GPU |
| ``MIG-<uuid>`` | the same | a MIG device |
| ``MIG-GPU-<uuid>/<gi>/<ci>`` | drivers before R470 | a MIG device |
| any of them ``::N`` | the same, time-slicing or MPS | a share of it |
| ``nvidiaX``, ``nvidiaX/giY``, ``…/vgpuN`` | GKE | GPU X, its GPU instance Y, a share of it |
| ``X`` | NVIDIA device plugin, ids by index | GPU X |
| ``gpu-X``, ``gpu-X-mig-…`` | DRA driver gpu.nvidia.com | GPU X, a MIG device of it |
| ``vendor/class=<one of these>`` | CDI | the same |

A UUID is unmistakable, so it counts under whatever name a cluster has given the resource. A bare index does not (a
KubeVirt plugin's ids are IOMMU groups), so it counts under the names of :func:`is_gpu_resource` only. X is the minor
number of ``/dev/nvidiaX`` where it is not the index; both are the same unless GPUs were hidden or hot-plugged.
"""

import re

from gpudiag_agent.attribution.model import Device

DRA_DRIVER = "gpu.nvidia.com"
WHOLE_GPU = "nvidia.com/gpu"
_MIG_PREFIX = "nvidia.com/mig-"
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_GPU = re.compile(rf"(?:GPU|gpu)-({_UUID})", re.ASCII | re.IGNORECASE)
_MIG = re.compile(rf"MIG-({_UUID})", re.ASCII | re.IGNORECASE)
_OLD_MIG = re.compile(rf"MIG-GPU-({_UUID})/(\d{{1,3}})/\d{{1,3}}", re.ASCII | re.IGNORECASE)
_GKE = re.compile(r"nvidia(\d{1,3})(?:/gi(\d{1,3}))?(?:/vgpu\d{1,5})?", re.ASCII)
_INDEX = re.compile(r"(\d{1,3})(?::\d{1,3})?", re.ASCII)
_DRA = re.compile(r"gpu-(\d{1,3})(?:-mig-[0-9a-z.-]{1,64})?", re.ASCII)
_CDI = re.compile(r"[a-z0-9.-]{1,253}/[A-Za-z0-9_.-]{1,64}=(.{1,253})", re.ASCII)


def is_gpu_resource(resource: str) -> bool:
    """Whether a bare index under this resource name is a GPU's."""
    return resource in (WHOLE_GPU, f"{WHOLE_GPU}.shared") or resource.startswith(_MIG_PREFIX)


def parse(device_id: str, *, resource: str = "") -> Device | None:
    """What a device plugin's id names; None: nothing that is known to be an NVIDIA GPU.

    Args:
        device_id: as the kubelet lists it.
        resource: the extended resource it is a device of, for example ``nvidia.com/gpu``.
    """
    return _by_uuid(device_id) or (_by_index(device_id) if is_gpu_resource(resource) else None)


def parse_dra(device_name: str, cdi_names: list[str]) -> Device | None:
    """What a device of the driver :data:`DRA_DRIVER` names.

    Args:
        device_name: its name in the driver's pool; empty with kubelets before 1.31.
        cdi_names: fully qualified CDI names, ``vendor/class=device``; used where the name says nothing.
    """
    for name in (device_name, *(match[1] for cdi in cdi_names if (match := _CDI.fullmatch(cdi)))):
        found = _by_uuid(name) or _by_index(name)
        if found is None and (match := _DRA.fullmatch(name)):
            found = Device(index=int(match[1]))
        if found is not None:
            return found
    return None


def is_part(device_id: str) -> bool:
    """Whether an id of :data:`WHOLE_GPU` is of a MIG device instead of a GPU."""
    return device_id.upper().startswith("MIG-") or "/gi" in device_id


def _by_uuid(device_id: str) -> Device | None:
    base = _without_share(device_id)
    if match := _OLD_MIG.fullmatch(base):
        return Device(gpu_uuid=_gpu(match[1]), gpu_instance=int(match[2]))
    if match := _GPU.fullmatch(base):
        return Device(gpu_uuid=_gpu(match[1]))
    if match := _MIG.fullmatch(base):
        return Device(mig_uuid=f"MIG-{match[1].lower()}")
    return None


def _by_index(device_id: str) -> Device | None:
    base = _without_share(device_id)
    if match := _GKE.fullmatch(base):
        return Device(index=int(match[1]), gpu_instance=int(match[2]) if match[2] else None)
    if match := _INDEX.fullmatch(base):
        return Device(index=int(match[1]))
    return None


def _gpu(uuid: str) -> str:
    return f"GPU-{uuid.lower()}"


def _without_share(device_id: str) -> str:
    base, _, share = device_id.partition("::")
    return base if not share or share.isdecimal() else device_id
