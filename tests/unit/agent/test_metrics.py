"""The metrics page: what a GPU measures, its events, and the alias for dcgm-exporter's dashboards."""

from collections.abc import Iterator

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from gpudiag_agent.clock import ManualClock
from gpudiag_agent.sample import GPUSample, MIGDevice, NVLinkSample, PCIeSample, Sample, ThrottleTimes
from gpudiag_agent.server import dcgm, measured
from gpudiag_agent.simulated.scenario import find
from gpudiag_agent.simulated.source import SimulatedSource
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
    memory_reserved_bytes=1 << 30,
    energy_millijoules=9_876_543,
    memory_utilization_percent=31,
    encoder_utilization_percent=7,
    decoder_utilization_percent=0,
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
            ("gpudiag_gpu_energy_joules_total{gpu=3,uuid=GPU-3}", 9876.543),
            ("gpudiag_gpu_memory_utilization_ratio{gpu=3,uuid=GPU-3}", 0.31),
            ("gpudiag_gpu_encoder_utilization_ratio{gpu=3,uuid=GPU-3}", 0.07),
            ("gpudiag_gpu_decoder_utilization_ratio{gpu=3,uuid=GPU-3}", 0),
            ("gpudiag_gpu_memory_reserved_bytes{gpu=3,uuid=GPU-3}", 1 << 30),
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
        "{{DCGM_FI_DRIVER_VERSION=570.1,GPU_I_ID={instance},GPU_I_PROFILE={profile},UUID=GPU-3,container={container},device=nvidia3,gpu=3,hostname=gpu-01,"
        "modelName=NVIDIA H100,namespace={namespace},pci_bus_id=00000000:3B:00.0,pod={pod}}}"
    )

    def labels(
        self, pod: str = "", *, namespace: str = "", container: str = "", instance: str = "", profile: str = ""
    ) -> str:
        return self.LABELS.format(pod=pod, namespace=namespace, container=container, instance=instance, profile=profile)

    def test_names_units_and_labels_are_those_of_the_exporter(self) -> None:
        found = self.series(GPU)
        labels = self.labels()
        for name, value in (
            ("GPU_TEMP", 41),
            ("POWER_USAGE", 212.5),
            ("FB_USED", 12 * 1024),
            ("FB_FREE", 67 * 1024),
            ("FB_RESERVED", 1024),
            ("TOTAL_ENERGY_CONSUMPTION", 9_876_543),
            ("MEM_COPY_UTIL", 31),
            ("ENC_UTIL", 7),
            ("DEC_UTIL", 0),
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
            assert found["DCGM_FI_DEV_GPU_TEMP" + self.labels(pod, namespace="ml", container="c")] == 41
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
        assert not any("FB_USED" in name or "FB_FREE" in name for name in self.series(gpu))

    def test_free_memory_where_the_driver_counts_the_reserved_as_used(self) -> None:
        found = self.series(msgspec.structs.replace(GPU, memory_reserved_bytes=None))
        assert found["DCGM_FI_DEV_FB_FREE" + self.labels()] == 68 * 1024
        assert not any("FB_RESERVED" in name for name in found)

    SPLIT = msgspec.structs.replace(
        GPU,
        mig=(
            MIGDevice(
                uuid="MIG-a",
                gpu_instance=2,
                compute_instance=0,
                profile="1c.3g.40gb",
                memory_bytes=40 << 30,
                memory_used_bytes=3 << 30,
            ),
            MIGDevice(uuid="MIG-b", gpu_instance=2, compute_instance=1, profile="2c.3g.40gb", memory_bytes=40 << 30),
            MIGDevice(uuid="MIG-c", gpu_instance=9, compute_instance=0, profile="1g.10gb"),
        ),
    )

    def test_a_split_gpu_has_the_series_of_its_instances_and_none_of_its_own(self) -> None:
        held = (
            Allocation(gpu_uuid="GPU-3", namespace="ml", pod="a", container="c", mig_uuid="MIG-a", mig_gpu_instance=2),
            Allocation(gpu_uuid="GPU-3", namespace="ml", pod="b", container="c", mig_uuid="MIG-b", mig_gpu_instance=2),
        )
        found = self.series(self.SPLIT, allocations=held)
        a, b = (self.labels(pod, namespace="ml", container="c", instance="2", profile="3g.40gb") for pod in ("a", "b"))
        free = self.labels(instance="9", profile="1g.10gb")
        assert {name.removeprefix("DCGM_FI_DEV_GPU_TEMP") for name in found if "GPU_TEMP" in name} == {a, b, free}
        assert (found[f"DCGM_FI_DEV_FB_USED{a}"], found[f"DCGM_FI_DEV_FB_FREE{b}"]) == (3 * 1024, 37 * 1024)
        assert f"DCGM_FI_DEV_FB_USED{free}" not in found, "not the whole GPU's where the instance does not say"
        assert {found[f"DCGM_FI_DEV_POWER_USAGE{labels}"] for labels in (a, b, free)} == {212.5}, "the whole GPU's"
        assert found[f"DCGM_FI_DEV_XID_ERRORS{free}"] == 79

    def test_who_holds_a_whole_split_gpu_holds_each_instance(self) -> None:
        found = self.series(
            self.SPLIT, allocations=(Allocation(gpu_uuid="GPU-3", namespace="ml", pod="all", container="c"),)
        )
        assert sum("GPU_TEMP" in name and "pod=all" in name for name in found) == 2

    # default-counters.csv of d5e5f51, without what the module says is left out.
    DEFAULTS = (
        "SM_CLOCK", "MEM_CLOCK", "MEMORY_TEMP", "GPU_TEMP", "POWER_USAGE", "TOTAL_ENERGY_CONSUMPTION",
        "PCIE_REPLAY_COUNTER", "GPU_UTIL", "MEM_COPY_UTIL", "ENC_UTIL", "DEC_UTIL", "XID_ERRORS", "FB_FREE", "FB_USED",
        "FB_RESERVED", "UNCORRECTABLE_REMAPPED_ROWS", "CORRECTABLE_REMAPPED_ROWS", "ROW_REMAP_FAILURE",
    )  # fmt: skip

    async def test_every_default_counter_that_nvml_gives_is_there(self) -> None:
        source = SimulatedSource(find("h100-8"), node_name="n", clock=ManualClock())
        found = {name.partition("{")[0] for name in self.series(*(await source.sample()).gpus)}
        assert {f"DCGM_FI_DEV_{name}" for name in self.DEFAULTS} <= found
