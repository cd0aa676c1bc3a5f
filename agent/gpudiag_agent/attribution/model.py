"""What is known of who uses the GPUs: values only."""

from collections.abc import Mapping

import msgspec


class PodRef(msgspec.Struct, frozen=True, order=True):
    """A pod by name."""

    namespace: str
    name: str


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """A process as the node's kernel describes it."""

    pid: int
    """As the node counts, not as a container does."""
    name: str = ""
    """The kernel's short name of it, at most 15 characters."""
    state: str = ""
    """One letter of ``/proc/<pid>/stat``: R, S, D (uninterruptible), Z (zombie) …"""
    state_since: float = 0.0
    """Unix time at which the process was first seen in this state."""
    pod_uid: str | None = None
    """The pod it runs in; None: none, it is a process of the node itself."""
    pod: PodRef | None = None
    """That pod's name; None: no pod, or its name could not be found."""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU, or a part of one, as a device id names it. Exactly one of the first three is set."""

    gpu_uuid: str = ""
    mig_uuid: str = ""
    index: int | None = None
    gpu_instance: int | None = None
    """MIG GPU instance, where the id itself says it."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A device in the hands of a container."""

    device: Device
    namespace: str
    pod: str
    container: str


class PodDevices(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of the kubelet."""

    held: tuple[Held, ...] = ()
    allocatable_gpus: int | None = None
    """Whole GPUs that the kubelet may hand out; None: it does not say, or hands out parts of them. Zero says
    little: there may be another way of allocating."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """All of it at one moment. The defaults are what an agent knows that asks nobody."""

    pods: PodDevices | None = None
    """None: nobody was asked, or nobody answered."""
    pods_at: float | None = None
    """Unix time of that answer."""
    pods_problem: str | None = None
    """Why the kubelet's answer is missing, in one sentence; None: it is not, or it was not asked for."""
    owners: Mapping[int, Owner] | None = None
    """Host pid → process, for the processes on the GPUs; None: the node's processes cannot be seen."""
    owners_problem: str | None = None
    """Why they cannot be seen; None: they can, or it was not asked for."""
