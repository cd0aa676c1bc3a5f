"""A value per GPU that survives a read that failed, so that one bad call neither clears nor raises a finding."""

from collections.abc import Callable

from gpudiag_agent.sample import GPUSample, Sample


class LastKnown:
    """The last value of one reading, per GPU.

    A read that *failed* keeps the value before it. A read that is *unsupported* (None and no errors: ECC was turned
    off, MIG was turned on) forgets it, as does a GPU that is no longer there. A driver that answers nothing at all
    keeps everything; its GPUs are Unknown anyway.

    Args:
        read: takes the value from a sample.
    """

    def __init__(self, read: Callable[[GPUSample], int | bool | None]) -> None:
        self._read = read
        self._values: dict[str, int | bool] = {}

    def observe(self, sample: Sample) -> None:
        """Take a finished sample into memory."""
        if sample.fault is not None:
            return
        kept: dict[str, int | bool] = {}
        for gpu in sample.gpus:
            value = self._read(gpu)
            if value is None and gpu.errors:
                value = self._values.get(gpu.uuid)
            if value is not None:
                kept[gpu.uuid] = value
        self._values = kept

    def get(self, gpu: GPUSample) -> int | bool | None:
        """The value, None where there is none."""
        return self._values.get(gpu.uuid)
