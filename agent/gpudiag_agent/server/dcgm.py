"""The same readings under the names and labels of dcgm-exporter, so that existing dashboards keep working. Opt-in.

Names, units and labels are those of dcgm-exporter's default and commonly enabled counters (its README and
``default-counters.csv``, as of d5e5f51), among them all that its Grafana dashboard (12239) asks for but one. Left out:

- ``PROF_*``, that dashboard's tensor-core panel among them: needs a profiling session, which NVML does not give;
- ``NVLINK_BANDWIDTH_TOTAL``: each link would have to be asked for its throughput (fields 138 and 139), and no check
  reads that;
- ``VGPU_LICENSE_STATUS``: about guests of a hypervisor.

``Hostname`` became ``hostname`` in dcgm-exporter #655; both spellings are in use, so the flag says which one.

A GPU that several Pods share has one series per Pod, as dcgm-exporter does; one without Pods has one series without
these labels filled. A GPU that is split by MIG has series for each GPU instance and none of its own: the memory is the
instance's, the rest that of the GPU, and the load of a split GPU NVML does not tell (dcgm-exporter #50, #561).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric

from gpudiag_agent.sample import GPUSample, MIGDevice, Sample
from gpudiag_api.wire import Allocation

_MIB = 1 << 20
_LABELS = (
    "gpu", "UUID", "pci_bus_id", "device", "modelName", "hostname", "DCGM_FI_DRIVER_VERSION",
    "GPU_I_PROFILE", "GPU_I_ID", "namespace", "pod", "container",
)  # fmt: skip
MAX_SERIES_PER_GPU = 64
"""Pods of a GPU, or of a MIG instance, that get series of their own: MPS allows 48 clients, time-slicing any number."""
_COMPUTE_SLICES = re.compile(r"^\d+c\.")
"""Of a compute instance's profile (``1c.3g.20gb``); the rest is that of its GPU instance."""

_Read = Callable[[GPUSample], float | None]


class _Field(msgspec.Struct, frozen=True):
    name: str
    text: str
    read: _Read
    counter: bool = False


def _scaled(value: int | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _free(gpu: GPUSample) -> float | None:
    if gpu.memory_total_bytes is None or gpu.memory_used_bytes is None:
        return None
    return (gpu.memory_total_bytes - gpu.memory_used_bytes - (gpu.memory_reserved_bytes or 0)) // _MIB


def _links(*names: str) -> _Read:
    def total(gpu: GPUSample) -> float | None:
        counts = [link.errors[name] for link in gpu.nvlinks or () for name in names if name in link.errors]
        return sum(counts) if counts else None

    return total


_FIELDS: tuple[_Field, ...] = (
    _Field("SM_CLOCK", "SM clock frequency (in MHz).", lambda gpu: gpu.sm_clock_mhz),
    _Field("MEM_CLOCK", "Memory clock frequency (in MHz).", lambda gpu: gpu.memory_clock_mhz),
    _Field("GPU_TEMP", "GPU temperature (in C).", lambda gpu: gpu.temperature_celsius),
    _Field("MEMORY_TEMP", "Memory temperature (in C).", lambda gpu: gpu.memory_temperature_celsius),
    _Field("POWER_USAGE", "Power draw (in W).", lambda gpu: _scaled(gpu.power_milliwatts, 1e-3)),
    _Field(
        "TOTAL_ENERGY_CONSUMPTION",
        "Energy since the driver was loaded (in mJ).",
        lambda gpu: gpu.energy_millijoules,
        counter=True,
    ),
    _Field("GPU_UTIL", "GPU utilization (in %).", lambda gpu: gpu.utilization_percent),
    _Field("MEM_COPY_UTIL", "Memory utilization (in %).", lambda gpu: gpu.memory_utilization_percent),
    _Field("ENC_UTIL", "Encoder utilization (in %).", lambda gpu: gpu.encoder_utilization_percent),
    _Field("DEC_UTIL", "Decoder utilization (in %).", lambda gpu: gpu.decoder_utilization_percent),
    _Field("FB_FREE", "Frame buffer memory free (in MiB).", _free),
    _Field("FB_USED", "Frame buffer memory used (in MiB).", lambda gpu: _whole_mib(gpu.memory_used_bytes)),
    _Field("FB_RESERVED", "Frame buffer memory reserved (in MiB).", lambda gpu: _whole_mib(gpu.memory_reserved_bytes)),
    _Field("PCIE_REPLAY_COUNTER", "PCIe retries.", lambda gpu: gpu.pcie.replays if gpu.pcie else None, counter=True),
    _Field(
        "CORRECTABLE_REMAPPED_ROWS",
        "Rows remapped for correctable errors.",
        lambda gpu: gpu.remapped_rows_corrected,
        counter=True,
    ),
    _Field(
        "UNCORRECTABLE_REMAPPED_ROWS",
        "Rows remapped for uncorrectable errors.",
        lambda gpu: gpu.remapped_rows_uncorrected,
        counter=True,
    ),
    _Field("ROW_REMAP_FAILURE", "1: a row could not be remapped.", lambda gpu: gpu.remap_failure),
    _Field("ECC_SBE_VOL_TOTAL", "Corrected, volatile.", lambda gpu: gpu.ecc_corrected_volatile, counter=True),
    _Field("ECC_DBE_VOL_TOTAL", "Uncorrected, volatile.", lambda gpu: gpu.ecc_uncorrected_volatile, counter=True),
    _Field("ECC_SBE_AGG_TOTAL", "Corrected, aggregate.", lambda gpu: gpu.ecc_corrected_aggregate, counter=True),
    _Field("ECC_DBE_AGG_TOTAL", "Uncorrected, aggregate.", lambda gpu: gpu.ecc_uncorrected_aggregate, counter=True),
    _Field("RETIRED_SBE", "Pages retired, single-bit.", lambda gpu: gpu.retired_pages_single_bit, counter=True),
    _Field("RETIRED_DBE", "Pages retired, double-bit.", lambda gpu: gpu.retired_pages_double_bit, counter=True),
    _Field("RETIRED_PENDING", "1: pages wait for retirement.", lambda gpu: gpu.retired_pages_pending),
    _Field("NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", "NVLink CRC errors in flits.", _links("crc_flit"), counter=True),
    _Field("NVLINK_CRC_DATA_ERROR_COUNT_TOTAL", "NVLink CRC errors in data.", _links("crc_data"), counter=True),
    _Field("NVLINK_REPLAY_ERROR_COUNT_TOTAL", "NVLink replays.", _links("replay"), counter=True),
    _Field("NVLINK_RECOVERY_ERROR_COUNT_TOTAL", "NVLink recoveries.", _links("recovery"), counter=True),
)


def _whole_mib(value: int | None) -> float | None:
    return None if value is None else value // _MIB


def series(
    sample: Sample,
    *,
    node_name: str,
    allocations: Sequence[Allocation],
    last_xids: Mapping[str, int],
    host_label: str,
) -> Iterator[Metric]:
    """All families of this moment.

    Args:
        sample: the latest.
        node_name: value of the host label.
        allocations: who holds the GPUs.
        last_xids: the last XID of each GPU by UUID; dcgm-exporter's gauge, which a repeat does not move.
        host_label: ``hostname`` or ``Hostname``.
    """
    labels = tuple(host_label if label == "hostname" else label for label in _LABELS)
    held = [
        (part, values)
        for gpu in sample.gpus
        for part, values in _labelled(gpu, sample.driver_version or "", node_name, allocations)
    ]
    for field in _FIELDS:
        family = _family(field, labels)
        for gpu, values in held:
            value = field.read(gpu)
            if value is not None:  # Unsupported is absent, never zero.
                family.add_metric(values, value)
        yield family
    xids = GaugeMetricFamily("DCGM_FI_DEV_XID_ERRORS", "The last XID error.", labels=labels)
    for gpu, values in held:
        xids.add_metric(values, last_xids.get(gpu.uuid, 0))
    yield xids


class _PlainCounter(Metric):
    """A counter whose name does not end in ``_total``, which the text format allows and the library would append."""

    def __init__(self, name: str, text: str, *, labels: Iterable[str]) -> None:
        super().__init__(name, text, "unknown")
        self._labels = tuple(labels)

    def add_metric(self, values: Iterable[str], value: float) -> None:
        """Add a sample."""
        self.add_sample(self.name, dict(zip(self._labels, values, strict=True)), value)


def _family(field: _Field, labels: Sequence[str]) -> "GaugeMetricFamily | _PlainCounter":
    kind = _PlainCounter if field.counter else GaugeMetricFamily
    return kind(f"DCGM_FI_DEV_{field.name}", field.text, labels=labels)


def _labelled(
    gpu: GPUSample, driver: str, node_name: str, allocations: Sequence[Allocation]
) -> list[tuple[GPUSample, tuple[str, ...]]]:
    """A GPU, or each instance of one that is split as if it were a GPU, with the labels of each of its Pods."""
    who = (str(gpu.index), gpu.uuid, _bus_id(gpu.pci), f"nvidia{gpu.index}", gpu.model, node_name, driver)
    mine = [one for one in allocations if one.gpu_uuid == gpu.uuid]
    # The compute instances of a GPU instance share its memory.
    instances = {device.gpu_instance: device for device in reversed(gpu.mig)}
    if not instances:
        return [(gpu, (*who, "", "", *pod)) for pod in _pods(mine)]
    return [
        (_instance(gpu, device), (*who, _COMPUTE_SLICES.sub("", device.profile), str(number), *pod))
        for number, device in sorted(instances.items())
        for pod in _pods([one for one in mine if one.mig_gpu_instance in (None, number)])
    ]


def _instance(gpu: GPUSample, device: MIGDevice) -> GPUSample:
    return msgspec.structs.replace(
        gpu,
        memory_total_bytes=device.memory_bytes,
        memory_used_bytes=device.memory_used_bytes,
        memory_reserved_bytes=None,
    )


def _pods(allocations: Sequence[Allocation]) -> list[tuple[str, str, str]]:
    pods = sorted({(one.namespace, one.pod, one.container) for one in allocations})
    return pods[:MAX_SERIES_PER_GPU] or [("", "", "")]


def _bus_id(pci: str) -> str:
    """As NVML writes it: eight digits of domain, upper case."""
    domain, _, rest = pci.partition(":")
    return f"{domain:0>8}:{rest}".upper() if rest else ""
