"""What NVML tells of an XID: between the process that waits and the agent."""

from typing import Annotated

import msgspec


class NVMLEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An XID as ``nvmlEventSetWait`` gives it."""

    code: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    pci: str
    uuid: str = ""
    gpu_instance: int
    """0xFFFFFFFF: the whole GPU."""
    compute_instance: int
