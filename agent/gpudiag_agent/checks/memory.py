"""A value per GPU that survives a read that failed, so that one bad call neither clears nor raises a finding."""

from collections.abc import Callable
from typing import Generic, TypeVar

from gpudiag_agent.sample import GPUSample, Sample

PATIENCE = 2
"""Looks. A detail that fails with a code that also means that there is no such thing (NOT_SUPPORTED, an invalid
argument) looks unsupported; so what was known is kept for as many looks, and forgotten at the third."""

T = TypeVar("T")


class LastKnown(Generic[T]):
    """The last value of one reading, per GPU.

    A read that *failed* keeps the value before it. A read that is *unsupported* (None and nothing failed: ECC was
    turned off, MIG was turned on) forgets it, as does a GPU that is no longer there. A driver that answers nothing at
    all keeps everything; its GPUs are Unknown anyway.

    Args:
        read: takes the value from a sample.
        patience: how many looks in a row may find it unsupported before it is forgotten.
    """

    def __init__(self, read: Callable[[GPUSample], T | None], *, patience: int = 0) -> None:
        self._read = read
        self._patience = patience
        self._values: dict[str, T] = {}
        self._missed: dict[str, int] = {}

    def observe(self, sample: Sample) -> None:
        """Take a finished sample into memory."""
        if sample.fault is not None:
            return
        kept: dict[str, T] = {}
        missed: dict[str, int] = {}
        for gpu in sample.gpus:
            value = self._read(gpu)
            if value is None and gpu.uuid in self._values:
                missed[gpu.uuid] = self._missed.get(gpu.uuid, 0) + (0 if gpu.incomplete else 1)
                value = self._values[gpu.uuid] if missed[gpu.uuid] <= self._patience else None
            if value is not None:
                kept[gpu.uuid] = value
        self._values, self._missed = kept, missed

    def get(self, gpu: GPUSample) -> T | None:
        """The value, None where there is none."""
        return self._values.get(gpu.uuid)
