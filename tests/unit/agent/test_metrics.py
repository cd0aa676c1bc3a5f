"""The metrics page: what a GPU measures, its events, and the alias for dcgm-exporter's dashboards."""

from collections.abc import Iterator

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from gpudiag_agent.sample import GPUSample, NVLinkSample, PCIeSample, Sample, ThrottleTimes
from gpudiag_agent.server import dcgm, measured
from gpudiag_api.wire import Allocation

GPU = GPUSample(
    index=3,
    uuid="GPU-3",
    pci="0000:3b:00.0",
    model="NVIDIA H100",
    temperature_celsius=41,
    power_milliwatts=212_500,
    memory_total_bytes=80 << 30,
    memory_used_bytes=12 << 30,
    ecc_uncorrected_volatile=2,
    pcie=PCIeSample(generation=5, width=16, replays=9, errors={"fatal": 1}),
    nvlinks=(
        NVLinkSample(link=0, active=True, errors={"replay": 2, "crc_flit": 5}),
        NVLinkSample(link=1, active=False, errors={"replay": 1}),
    ),
    throttle_times=ThrottleTimes(hardware_thermal=2_500_000_000),
)
BARE = GPUSample(index=4, uuid="GPU-4", pci="0000:5d:00.0")


def page(families: Iterator[Metric]) -> dict[str, float]:
    """Series as ``name{labels}`` → value, through the real text format."""

    class Once(Collector):
        def describe(self) -> list[Metric]:
            return []

        def collect(self) -> Iterator[Metric]:
            return families

    registry = CollectorRegistry()
    registry.register(Once())
    return {
        sample.name
        + "{"
        + ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
        + "}": sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


class TestMeasured:
    @pytest.mark.parametrize(
        ("series", "value"),
        [
            ("gpudiag_gpu_power_watts{gpu=3,uuid=GPU-3}", 212.5),
            ("gpudiag_gpu_pcie_width{gpu=3,uuid=GPU-3}", 16),
            ("gpudiag_gpu_pcie_replays_total{gpu=3,uuid=GPU-3}", 9),
            ("gpudiag_gpu_pcie_errors_total{gpu=3,kind=fatal,uuid=GPU-3}", 1),
            ("gpudiag_gpu_nvlink_errors_total{gpu=3,kind=replay,uuid=GPU-3}", 3),
            ("gpudiag_gpu_nvlinks_active{gpu=3,uuid=GPU-3}", 1),
            ("gpudiag_gpu_ecc_errors_total{gpu=3,scope=volatile,type=uncorrected,uuid=GPU-3}", 2),
            ("gpudiag_gpu_throttled_seconds_total{gpu=3,reason=hardware_thermal,uuid=GPU-3}", 2.5),
        ],
    )
    def test_a_reading_has_its_unit(self, series: str, value: float) -> None:
        assert page(measured.families([GPU]))[series] == value

    def test_what_a_gpu_does_not_support_is_absent(self) -> None:
        assert page(measured.families([BARE])) == {}


class TestDCGMAlias:
    def series(
        self, *gpus: GPUSample, allocations: tuple[Allocation, ...] = (), label: str = "hostname"
    ) -> dict[str, float]:
        return page(
            dcgm.series(
                Sample(taken_at=0, driver_version="570.1", gpus=gpus),
                node_name="gpu-01",
                allocations=allocations,
                last_xids={"GPU-3": 79},
                host_label=label,
            )
        )

    LABELS = (
        "{{DCGM_FI_DRIVER_VERSION=570.1,UUID=GPU-3,container={container},device=nvidia3,gpu=3,hostname=gpu-01,"
        "modelName=NVIDIA H100,namespace={namespace},pci_bus_id=00000000:3B:00.0,pod={pod}}}"
    )

    def test_names_units_and_labels_are_those_of_the_exporter(self) -> None:
        found = self.series(GPU)
        labels = self.LABELS.format(container="", namespace="", pod="")
        for name, value in (
            ("GPU_TEMP", 41),
            ("POWER_USAGE", 212.5),
            ("FB_USED", 12 * 1024),
            ("FB_FREE", 68 * 1024),
            ("PCIE_REPLAY_COUNTER", 9),
            ("ECC_DBE_VOL_TOTAL", 2),
            ("NVLINK_REPLAY_ERROR_COUNT_TOTAL", 3),
            ("XID_ERRORS", 79),
        ):
            assert found[f"DCGM_FI_DEV_{name}{labels}"] == value

    def test_a_shared_gpu_has_one_series_per_container(self) -> None:
        held = tuple(
            Allocation(gpu_uuid="GPU-3", namespace="ml", pod=f"job-{number}", container="c") for number in range(2)
        )
        found = self.series(GPU, allocations=held)
        for pod in ("job-0", "job-1"):
            assert found["DCGM_FI_DEV_GPU_TEMP" + self.LABELS.format(container="c", namespace="ml", pod=pod)] == 41
        assert sum(name.startswith("DCGM_FI_DEV_GPU_TEMP") for name in found) == 2

    def test_the_number_of_series_is_bounded(self) -> None:
        held = tuple(
            Allocation(gpu_uuid="GPU-3", namespace="ml", pod=f"p{number}", container="c") for number in range(500)
        )
        found = self.series(GPU, allocations=held)
        assert sum(name.startswith("DCGM_FI_DEV_GPU_TEMP") for name in found) == dcgm.MAX_SERIES_PER_GPU

    def test_the_older_spelling_of_the_host_label(self) -> None:
        assert all("Hostname=gpu-01" in name for name in self.series(GPU, label="Hostname"))

    def test_what_a_gpu_does_not_support_is_absent(self) -> None:
        assert {name.partition("{")[0] for name in self.series(BARE)} == {"DCGM_FI_DEV_XID_ERRORS"}

    def test_a_gpu_whose_memory_in_use_is_unknown_has_no_free_memory(self) -> None:
        gpu = msgspec.structs.replace(GPU, memory_used_bytes=None)
        assert not any("FB_" in name for name in self.series(gpu))
