"""The processes on the GPUs, each with its pod: the rows of ``/v1/processes``. Pure."""

from collections.abc import Iterator, Mapping

from gpudiag_agent.attribution.model import Owner
from gpudiag_agent.sample import GPUProcess, GPUSample, Sample
from gpudiag_api.wire import ProcessRow

_MAX_PIDS = 1024
"""As many as the wire carries."""


def pids(sample: Sample | None) -> tuple[int, ...]:
    """The processes of a sample, each once, at most 1,024."""
    if sample is None:
        return ()
    found = dict.fromkeys(process.pid for gpu in sample.gpus for process in gpu.processes or ())
    return tuple(found)[:_MAX_PIDS]


def rows(sample: Sample, owners: Mapping[int, Owner] | None) -> tuple[ProcessRow, ...]:
    """One row per process and GPU, by GPU and pid.

    Args:
        sample: the latest.
        owners: see :class:`~gpudiag_agent.attribution.model.Usage`.
    """
    return tuple(sorted(_all(sample, owners or {}), key=lambda row: (row.gpu_index, row.pid, row.kind)))


def _all(sample: Sample, owners: Mapping[int, Owner]) -> Iterator[ProcessRow]:
    for gpu in sample.gpus:
        for process in gpu.processes or ():
            if process.pid > 0:
                yield _row(gpu, process, owners.get(process.pid))


def _row(gpu: GPUSample, process: GPUProcess, owner: Owner | None) -> ProcessRow:
    pod = owner.pod if owner is not None else None
    return ProcessRow(
        gpu_index=min(max(gpu.index, 0), 255),
        pid=process.pid,
        name=owner.name[:63] if owner is not None else "",
        kind=process.kind[:63],
        memory_bytes=process.memory_bytes,
        mig_gpu_instance=process.mig_gpu_instance,
        namespace=pod.namespace if pod is not None else None,
        pod=pod.name if pod is not None else None,
    )
