"""What a fault is to the recall suite: how it is made, what must be said of it, and what makes it go away.

A fault is made by keys of the NVML stand-in (``reading``), by kernel lines (``lines``), by what the host shows
(``host``, ``owners``) or by several of them; always on one GPU, :attr:`Machine.target`.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from gpudiag_agent.attribution.model import Owner
from gpudiag_agent.host.facts import HostFacts
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_api.vocabulary import Action, Blame, Capability, Check, Health, Severity

if TYPE_CHECKING:
    from .node import Node

Values = Mapping[str, str | int]


class Need(msgspec.Struct, frozen=True):
    """What a machine must have for a fault to be possible on it."""

    text: str
    """In a clause that follows "no": why a machine without it is not played."""
    met: Callable[[Sample, GPUSample], bool]
    """Given a healthy sample and the GPU in it that is to fail."""


class Expect(msgspec.Struct, frozen=True, kw_only=True):
    """What must be said."""

    check: Check
    reason: str
    severity: Severity
    blame: Blame
    action: Action
    subject: str = "gpu"
    """``gpu``: the one that failed; ``node``: none; ``link``: none but :attr:`link`; else the subject's PCI address."""
    link: str | None = None
    gpu_instance: int | None = None
    compute_instance: int | None = None
    also: tuple[str, ...] = ()
    """Reasons of further findings about the same fault that are right."""
    others: bool = False
    """Whether the node's other GPUs have it as well."""
    health: Health | None = None
    """Of the GPU; None: what follows from the severity."""
    capability: Capability | None = None
    """The reading failed as a whole: with this reason."""


class Clear(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which a fault goes away.

    Attributes:
        words: for the matrix.
        after: seconds by which it is gone; it still stands at half of that.
        healed: whether readings are healthy again; else they stay as they are (a counter keeps its value).
        lines: kernel lines that are heard first.
        reboot: whether the node starts anew: another boot, only what the agent keeps is left.
        reloaded: whether the driver was gone for a look.
    """

    words: str
    after: float = 0.0
    healed: bool = True
    lines: tuple[str, ...] = ()
    reboot: bool = False
    reloaded: bool = False


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the matrix."""

    name: str
    source: str
    """Section of the facts that names it."""
    expect: Expect
    clears: tuple[Clear, ...]
    needs: tuple[Need, ...] = ()
    reading: Values = msgspec.field(default_factory=dict)
    """Keys of the stand-in; ``gpu.T.`` is the GPU that fails."""
    before: Values = msgspec.field(default_factory=dict)
    """The same, for the healthy looks before it."""
    load: bool = True
    after: float = 0.0
    """Seconds that it must last until it is said; it is not said at half of that."""
    earlier: bool = False
    """Whether a milder form of it is said before that time."""
    lines: tuple[str, ...] = ()
    """Kernel lines; ``{bus}`` is the address of the GPU that fails as XID lines write it, ``{pci}`` with function."""
    owners: Callable[[GPUSample], Mapping[int, Owner]] | None = None
    host_before: Callable[[HostFacts], HostFacts] | None = None
    """What the healthy host shows beside the usual."""
    host: Callable[[HostFacts], HostFacts] | None = None
    """What the host shows instead of the usual."""
    story: Callable[["Node", str], None] | None = None
    """What happens, where it takes more than lines and readings; given the address of the GPU that fails."""
    standing: float = 0.0
    """Seconds of healthy looks through which it must stand: silence does not clear it."""


def gone(*, after: float = 0.0, words: str = "healthy readings") -> Clear:
    """Readings are healthy again."""
    return Clear(words=words + (f" for {_span(after)}" if after else ""), after=after)


def calm(after: float) -> Clear:
    """Counters stand still."""
    return Clear(words=f"no new errors for {_span(after)}", after=after, healed=False)


REBOOT = Clear(words="reboot", reboot=True)
RELOAD = Clear(words="driver loaded anew", lines=("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.133.20",))
RECOVERED = Clear(
    words="XID 154 to none",
    lines=("NVRM: Xid (PCI:{bus}): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)",),
)


def silence(after: float) -> Clear:
    """Time passes and nothing happens."""
    return Clear(words=f"{_span(after)} of silence", after=after)


def _span(seconds: float) -> str:
    for size, word in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or seconds == size:
            return f"{seconds / size:.3g} {word}"
    return f"{seconds:g} s"
