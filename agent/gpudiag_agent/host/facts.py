"""What was seen of the host at one moment: the seam between its readers and the checks. None is "could not tell"."""

import msgspec


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The host beside its GPUs. Grows with the readers in this folder."""

    taken_at: float | None = None
    """Unix time in seconds; None: nothing was looked at yet."""
    nvswitches: int | None = None
    """NVSwitches on the PCI bus (NVIDIA bridges, class 0x0680); None: could not tell."""
