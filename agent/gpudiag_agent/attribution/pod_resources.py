"""The kubelet's answers as values.

Messages and field numbers of ``k8s.io/kubelet/pkg/apis/podresources/v1/api.proto``, stable since Kubernetes 1.28; the
dynamic resources' device names since 1.31.
"""

from collections.abc import Iterator

from gpudiag_agent.attribution import devices
from gpudiag_agent.attribution.model import Device, Held
from gpudiag_agent.attribution.protobuf import fields, messages, text

LIST = "/v1.PodResourcesLister/List"
GET_ALLOCATABLE = "/v1.PodResourcesLister/GetAllocatableResources"

MAX_HELD = 4096
"""Devices taken from one answer: 64 GPUs of 64 shares."""

_POD_RESOURCES = 1
_NAME, _NAMESPACE, _CONTAINERS = 1, 2, 3
_DEVICES, _DYNAMIC = 2, 5
_RESOURCE_NAME, _DEVICE_IDS = 1, 2
_CLAIM_RESOURCES = 4
_CDI, _DRIVER, _DEVICE_NAME = 1, 2, 4


def parse_list(answer: bytes) -> tuple[Held, ...]:
    """Which container holds which GPU: a ``ListPodResourcesResponse``.

    Returns:
        In the order sent, at most :data:`MAX_HELD`; devices that are no GPUs are left out.

    Raises:
        protobuf.MalformedError: it is no such message.
    """
    held: list[Held] = []
    for pod in messages(memoryview(answer), _POD_RESOURCES):
        name, namespace, containers = "", "", []
        for number, value in fields(pod):
            if number == _NAME:
                name = text(value)
            elif number == _NAMESPACE:
                namespace = text(value)
            elif number == _CONTAINERS and isinstance(value, memoryview):
                containers.append(value)
        for container in containers:
            called, found = _container(container)
            held += (Held(device=one, namespace=namespace, pod=name, container=called) for one in found)
            if len(held) >= MAX_HELD:
                return tuple(held[:MAX_HELD])
    return tuple(held)


def parse_allocatable(answer: bytes) -> int | None:
    """How many whole GPUs the kubelet may hand out: an ``AllocatableResourcesResponse``.

    Shares of one GPU count once.

    Returns:
        None where it hands out parts of GPUs (MIG); zero: another way of allocating, or no device plugin that works.

    Raises:
        protobuf.MalformedError: it is no such message.
    """
    gpus: set[Device] = set()
    for entry in messages(memoryview(answer), 1):
        resource, ids = _container_devices(entry)
        if resource.startswith(f"{devices.WHOLE_GPU.rpartition('/')[0]}/mig-") and ids:
            return None
        if resource not in (devices.WHOLE_GPU, f"{devices.WHOLE_GPU}.shared"):
            continue
        if any(devices.is_part(device_id) for device_id in ids):
            return None
        gpus |= {found for device_id in ids if (found := devices.parse(device_id, resource=resource)) is not None}
    return len(gpus)


def _container(message: memoryview) -> tuple[str, list[Device]]:
    name, found = "", []
    for number, value in fields(message):
        if number == _NAME:
            name = text(value)
        elif number == _DEVICES and isinstance(value, memoryview):
            resource, ids = _container_devices(value)
            found += [device for one in ids if (device := devices.parse(one, resource=resource)) is not None]
        elif number == _DYNAMIC and isinstance(value, memoryview):
            found += _claimed(value)
        if len(found) >= MAX_HELD:
            break
    return name, found


def _container_devices(message: memoryview) -> tuple[str, list[str]]:
    resource, ids = "", list[str]()
    for number, value in fields(message):
        if number == _RESOURCE_NAME:
            resource = text(value)
        elif number == _DEVICE_IDS and len(ids) < MAX_HELD:
            ids.append(text(value))
    return resource, ids


def _claimed(message: memoryview) -> Iterator[Device]:
    for resource in messages(message, _CLAIM_RESOURCES):
        driver, name, cdi = "", "", list[str]()
        for number, value in fields(resource):
            if number == _CDI and isinstance(value, memoryview) and len(cdi) < MAX_HELD:
                cdi += [text(inner) for inner in messages(value, 1)]
            elif number == _DRIVER:
                driver = text(value)
            elif number == _DEVICE_NAME:
                name = text(value)
        # Kubelets before 1.31 give CDI names and no driver.
        if driver == devices.DRA_DRIVER or (not driver and any("nvidia.com/" in one for one in cdi)):
            device = devices.parse_dra(name, cdi)
            if device is not None:
                yield device
