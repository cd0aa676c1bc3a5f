"""Links, fabric, repair, firmware, processes: what the child reads beside the vital signs, and what it leaves alone."""

from pathlib import Path

import msgspec
import pytest

from gpudiag_agent.nvml import frames
from gpudiag_agent.nvml import links as reader
from gpudiag_agent.nvml.call import Caller
from gpudiag_agent.nvml.links import _MAX_NVLINKS
from gpudiag_agent.nvml.processes import MAX_PROCESSES
from gpudiag_agent.sample import (
    C2CLinkSample,
    FabricSample,
    GPUProcess,
    GPUSample,
    NVLinkSample,
    PCIeSample,
    RowHistogram,
    Sample,
    ThrottleTimes,
)

from .conftest import Boot, Open

CLEAN = {"replay": 0, "recovery": 0, "crc_flit": 0, "crc_data": 0}
PCIE_NAMES = (
    *("l0_to_recovery", "correctable", "naks_received", "receiver", "bad_tlp", "naks_sent", "bad_dllp", "non_fatal"),
    *("fatal", "unsupported_request", "lcrc", "lane"),
)


async def read(open_source: Open) -> Sample:
    sample = await open_source(deadline=10).sample()
    assert sample.fault is None, sample.fault
    assert [gpu.errors for gpu in sample.gpus if gpu.errors] == []
    return sample


async def read_first(open_source: Open) -> GPUSample:
    return (await read(open_source)).gpus[0]


async def test_the_pcie_link_and_its_counters(boot: Boot, open_source: Open) -> None:
    numbers = {name: 100 + place for place, name in enumerate(PCIE_NAMES)}
    answers = {f"gpu.0.field.{field}": f"uint:{100 + place}" for place, field in enumerate((169, *range(173, 184)))}
    boot("h100-8").set({"gpu.0.pcie.generation": 1, "gpu.0.pcie.width": 8, "gpu.0.field.94": "uint:7", **answers})
    assert (await read_first(open_source)).pcie == PCIeSample(
        generation=1, generation_max=5, width=8, width_max=16, replays=7, errors=numbers
    )


async def test_counters_that_a_gpu_lacks_are_left_out(boot: Boot, open_source: Open) -> None:
    boot("h100-8").set({"gpu.0.field.173": "error:3", "gpu.0.field.174": "error:999", "gpu.0.field.175": "uint:5"})
    pcie = (await read_first(open_source)).pcie
    assert pcie is not None
    assert not {"correctable", "naks_received"} & set(pcie.errors)
    assert pcie.errors["receiver"] == 5


async def test_nvlinks_of_a_hopper(boot: Boot, open_source: Open) -> None:
    boot("h100-8").set({"gpu.0.nvlink.3.state": 0, "gpu.0.nvlink.4.error.1": 12})
    links = (await read_first(open_source)).nvlinks
    assert links is not None
    assert [link.link for link in links] == list(range(18))
    assert [link.active for link in links] == [True] * 3 + [False] + [True] * 14
    assert links[17] == NVLinkSample(
        link=17, active=True, remote_pci="0000:0a:00.0", remote_kind="switch", version=4, errors=CLEAN
    )
    assert links[4].errors == {**CLEAN, "recovery": 12}


async def test_nvlinks_from_gpu_to_gpu(boot: Boot, open_source: Open) -> None:
    boot("v100-8")
    gpus = (await read(open_source)).gpus
    neighbours = {gpu.pci: sorted(link.remote_pci for link in gpu.nvlinks or ()) for gpu in gpus}
    assert {len(found) for found in neighbours.values()} == {6}
    assert {link.remote_kind for gpu in gpus for link in gpu.nvlinks or ()} == {"gpu"}
    for pci, found in neighbours.items():
        assert all(neighbours[other].count(pci) == found.count(other) for other in found)


async def test_nvlink_5_counts_in_fields(boot: Boot, open_source: Open) -> None:
    changes = {f"gpu.0.field.{field}.2": f"ullong:{field}" for field in (*range(206, 216), 219, 221)}
    boot("b200-8").set({**changes, "gpu.0.field.220.2": "uint:0x50C", "gpu.0.field.222.2": "uint:0x107"})
    links = (await read_first(open_source)).nvlinks
    assert links is not None
    assert len(links) == 18
    names = ("malformed", "buffer_overrun", "receive", "receive_remote", "receive_general", "link_integrity")
    more = ("transmit_discards", "recovery_successful", "recovery_failed", "recovery_events")
    assert links[2].errors == dict(
        zip((*names, *more, "effective", "symbol"), (*range(206, 216), 219, 221), strict=True)
    )
    assert (links[2].effective_bit_error_rate, links[2].symbol_bit_error_rate) == (5e-12, 1e-7)
    assert set(links[1].errors.values()) == {0}


@pytest.mark.parametrize("answer", ["sint:-1", "uint:0xFFFFFFFF", "double:1e-12", "error:3"])
async def test_a_rate_that_is_none_is_none(answer: str, boot: Boot, open_source: Open) -> None:
    boot("b200-8").set({"gpu.0.field.220": answer})
    links = (await read_first(open_source)).nvlinks
    assert links is not None
    assert {link.effective_bit_error_rate for link in links} == {None}


async def test_no_link_is_asked_for_after_the_last(
    boot: Boot, open_source: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = boot("h100-8")
    monkeypatch.setenv("GPUDIAG_NVMLFAKE_LOG", str(tmp_path / "calls"))
    machine.set({"count": 1, "gpu.0.nvlink.count": 5, "fail.nvmlDeviceGetNvLinkErrorCounter": 3})
    await read(open_source)
    calls = (tmp_path / "calls").read_text().split()
    assert calls.count("nvmlDeviceGetNvLinkState") == 6
    assert calls.count("nvmlDeviceGetNvLinkErrorCounter") == 5
    # One batch for the GPU, and one that shows that link 0 has no fields of NVLink 5 either.
    assert calls.count("nvmlDeviceGetFieldValues") == 2


@pytest.mark.parametrize("machine", ["t4-1", "a10-4", "l40s-8", "rtx-6000-workstation-2"])
async def test_a_gpu_without_links_has_none(machine: str, boot: Boot, open_source: Open) -> None:
    boot(machine)
    gpu = await read_first(open_source)
    assert (gpu.nvlinks, gpu.c2c, gpu.fabric) == (None, None, None)


async def test_links_to_the_cpu(boot: Boot, open_source: Open) -> None:
    boot("gb200-4").set({"gpu.0.field.170": "uint:2", "gpu.0.field.171.1": "uint:0", "gpu.0.field.232.1": "uint:9"})
    none = {"interrupt": 0, "replay": 0, "replay_back_to_back": 0}
    assert (await read_first(open_source)).c2c == (
        C2CLinkSample(link=0, active=True, errors=none),
        C2CLinkSample(link=1, active=False, errors={**none, "replay": 9}),
    )


FABRIC = FabricSample(
    state=3,
    status=0,
    health_summary=1,
    health_mask=426,
    clique_id=32766,
    cluster_uuid="4f2c1d7e-9a3b-4c5d-8e6f-708192a3b4c5",
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, FABRIC),
        ({"fabric.version": 2}, msgspec.structs.replace(FABRIC, health_summary=None)),
        (
            {"missing.nvmlDeviceGetGpuFabricInfoV": 1},
            msgspec.structs.replace(FABRIC, health_summary=None, health_mask=None),
        ),
        ({"gpu.0.fabric.status": 23}, msgspec.structs.replace(FABRIC, status=23)),
        ({"gpu.0.fabric.cluster": "00" * 16}, msgspec.structs.replace(FABRIC, cluster_uuid="")),
        ({"gpu.0.fabric.state": 7}, None),
        ({"gpu.0.fabric.state": ""}, None),
        ({"fail.nvmlDeviceGetGpuFabricInfoV": 999, "fail.nvmlDeviceGetGpuFabricInfo": 999}, None),
    ],
)
async def test_the_fabric(
    changes: dict[str, str | int], expected: FabricSample | None, boot: Boot, open_source: Open
) -> None:
    boot("gb200-4").set(changes)
    assert (await read_first(open_source)).fabric == expected


@pytest.mark.parametrize("state", [0, 1, 2])
async def test_a_fabric_that_is_not_complete_has_no_status_yet(state: int, boot: Boot, open_source: Open) -> None:
    boot("gb200-4").set({"gpu.0.fabric.state": state, "gpu.0.fabric.status": 3})
    fabric = (await read_first(open_source)).fabric
    assert fabric is not None
    assert (fabric.state, fabric.status, fabric.clique_id) == (state, None, None)


NEW, OLD = ("269", "270", "271"), ("251", "252", "253")


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ({NEW: "ullong", OLD: "uint"}, ThrottleTimes(software_thermal=1, hardware_thermal=2, hardware_power_brake=3)),
        ({NEW: "uint", OLD: "ullong"}, ThrottleTimes(software_thermal=1, hardware_thermal=2, hardware_power_brake=3)),
        ({OLD: "ullong"}, ThrottleTimes(software_thermal=1, hardware_thermal=2, hardware_power_brake=3)),
        ({NEW: "uint", OLD: "uint"}, None),
        ({}, None),
    ],
)
async def test_throttle_times_under_either_number(
    kinds: dict[tuple[str, ...], str], expected: ThrottleTimes | None, boot: Boot, open_source: Open
) -> None:
    machine = boot("h100-8")
    machine.remove(*(f"gpu.*.field.{field}" for field in OLD))
    machine.set(
        {
            f"gpu.0.field.{field}": f"{kind}:{place}"
            for numbering, kind in kinds.items()
            for place, field in enumerate(numbering, 1)
        }
    )
    assert (await read_first(open_source)).throttle_times == expected


async def test_repair_of_memory(boot: Boot, open_source: Open) -> None:
    boot("gb300-4").set(
        {
            "gpu.0.rows.max": 10,
            "gpu.0.rows.high": 4,
            "gpu.0.rows.partial": 3,
            "gpu.0.rows.low": 2,
            "gpu.0.rows.none": 1,
            "gpu.0.sram.exceeded": 1,
            "gpu.0.sram.l2": 5,
            "gpu.0.sram.mcu": 6,
            "gpu.0.repair.channel": 1,
            "gpu.0.unrepairable": 1,
            "gpu.0.field.307": "uint:1",
            "gpu.0.ecc.corrected.aggregate": 8,
        }
    )
    gpu = await read_first(open_source)
    assert gpu.remap_histogram == RowHistogram(maximum=10, high=4, partial=3, low=2, none=1)
    assert (gpu.sram_threshold_exceeded, gpu.sram_uncorrected) == (
        True,
        {"l2": 5, "sm": 0, "microcontroller": 6, "pcie": 0, "other": 0},
    )
    assert (gpu.channel_repair_pending, gpu.tpc_repair_pending) == (True, False)
    assert (gpu.unrepairable_memory, gpu.bank_remap_pending, gpu.ecc_corrected_aggregate) == (True, True, 8)


async def test_retired_pages_before_ampere(boot: Boot, open_source: Open) -> None:
    boot("v100-8").set({"gpu.0.field.29": "uint:2", "gpu.0.field.30": "ullong:1", "gpu.0.field.31": "uint:1"})
    gpu = await read_first(open_source)
    found = (gpu.retired_pages_single_bit, gpu.retired_pages_double_bit, gpu.retired_pages_pending)
    assert found == (2, 1, True)


async def test_firmware_clocks_and_place(boot: Boot, open_source: Open) -> None:
    boot("h100-8").set({"gpu.0.gsp.default": 0, "gpu.0.persistence": 0, "gpu.0.clock.1.application": 1410})
    gpus = (await read(open_source)).gpus
    gpu = gpus[0]
    assert (gpu.gsp_enabled, gpu.gsp_default, gpu.gsp_version) == (True, False, "570.133.20")
    assert (gpu.vbios_version, gpu.architecture, gpu.persistence_mode) == ("96.00.99.00.01", 9, False)
    assert (gpu.application_clock_mhz, gpu.application_clock_default_mhz, gpu.sm_clock_max_mhz) == (1410, 1980, 1980)
    assert (gpu.memory_clock_mhz, gpu.power_default_limit_milliwatts) == (2619, 700_000)
    assert [one.numa_node for one in gpus] == [0] * 4 + [1] * 4


@pytest.mark.parametrize(("code", "valid"), [(0, True), (14, False), (3, None), (999, None), ("", None)])
async def test_the_inforom(code: int | str, valid: bool | None, boot: Boot, open_source: Open) -> None:
    boot("h100-8").set({"gpu.0.inforom": code})
    assert (await read_first(open_source)).inforom_valid is valid


async def test_energy_and_the_load_of_memory_and_video(boot: Boot, open_source: Open) -> None:
    boot("l40s-8").set({
        "gpu.0.energy": 2**40 + 1,
        "gpu.0.utilization.memory": 41,
        "gpu.0.utilization.encoder": 7,
        "gpu.0.utilization.decoder": 9,
        "gpu.0.memory.reserved": 600 << 20,
    })  # fmt: skip
    gpu = await read_first(open_source)
    assert (gpu.energy_millijoules, gpu.memory_reserved_bytes) == (2**40 + 1, 600 << 20)
    load = (gpu.memory_utilization_percent, gpu.encoder_utilization_percent, gpu.decoder_utilization_percent)
    assert load == (41, 7, 9)


async def test_a_metric_that_fails_is_unknown_and_nothing_else(boot: Boot, open_source: Open) -> None:
    names = ("TotalEnergyConsumption", "EncoderUtilization", "DecoderUtilization")
    boot("h100-8").set({"count": 1, **{f"fail.nvmlDeviceGet{name}": 999 for name in names}})
    gpu = await read_first(open_source)
    found = (gpu.energy_millijoules, gpu.encoder_utilization_percent, gpu.decoder_utilization_percent)
    assert (found, gpu.errors, gpu.unread) == ((None, None, None), (), ())


async def test_processes_of_a_gpu_and_of_mig_instances(boot: Boot, open_source: Open) -> None:
    boot("a100-8-mig").set(
        {
            "gpu.0.processes.compute": "100:4096:2:0,101:-:9:0",
            "gpu.4.processes.compute": "102:8192",
            "gpu.4.processes.graphics": "103:-",
            "gpu.5.processes.compute": "",
        }
    )
    gpus = (await read(open_source)).gpus
    assert gpus[0].processes == (
        GPUProcess(pid=100, kind="compute", memory_bytes=4096, mig_gpu_instance=2, mig_compute_instance=0),
        GPUProcess(pid=101, kind="compute", memory_bytes=None, mig_gpu_instance=9, mig_compute_instance=0),
    )
    # 0xFFFFFFFF is the whole GPU.
    assert gpus[4].processes == (
        GPUProcess(pid=102, kind="compute", memory_bytes=8192),
        GPUProcess(pid=103, kind="graphics"),
    )
    assert gpus[5].processes == ()


async def test_processes_that_the_driver_does_not_list(boot: Boot, open_source: Open) -> None:
    boot("t4-1").set({f"fail.nvmlDeviceGet{kind}RunningProcesses_v3": 4 for kind in ("Compute", "Graphics")})
    assert (await read_first(open_source)).processes is None


async def test_the_node_excludes_gpus_and_computes_confidentially(boot: Boot, open_source: Open) -> None:
    machine = boot("h100-8")
    machine.set({"excluded": 2, "confidential": 1, "confidential.ready": 0})
    sample = await read(open_source)
    assert (sample.excluded_gpus, sample.confidential_compute, sample.confidential_compute_ready) == (2, True, False)


async def test_readiness_is_asked_only_where_it_means_something(boot: Boot, open_source: Open) -> None:
    boot("h100-8").set({"confidential.ready": 0})
    sample = await read(open_source)
    assert (sample.confidential_compute, sample.confidential_compute_ready) == (False, None)


@pytest.mark.parametrize("code", [2, 3, 4, 6, 13, 25, 27, 29, 999])
async def test_a_detail_that_is_refused_is_no_error_and_not_forgotten(code: int, boot: Boot, open_source: Open) -> None:
    details = (
        *("ApplicationsClock", "PersistenceMode", "RowRemapperHistogram", "SramEccErrorStatus", "RepairStatus"),
        *("NvLinkState", "CurrPcieLinkGeneration", "ComputeRunningProcesses_v3", "DefaultApplicationsClock"),
    )
    inventory = ("GspFirmwareMode", "VbiosVersion", "MemoryAffinity")
    boot("h100-8").set({f"fail.nvmlDeviceGet{name}": code for name in details + inventory})
    gpu = await read_first(open_source)
    assert (gpu.remap_histogram, gpu.nvlinks, gpu.persistence_mode) == (None, None, None)
    assert (gpu.temperature_celsius, gpu.errors) == (41, ())
    lacked = code in {2, 3, 13, 25}
    assert {(error.call, error.code) for error in gpu.unread} == {
        (f"nvmlDeviceGet{name}", code) for name in details if not lacked
    }


def test_links_that_cannot_all_be_read_are_not_half_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU with three links among neighbours with eighteen would be ill."""
    monkeypatch.setattr(reader, "attempt", lambda _name, _handle, link: (1, 0) if link < 3 else (None, 999))
    asked = Caller()
    assert reader.read_nvlinks(asked, None, full=False) is None
    assert [error.call for error in asked.unread] == ["nvmlDeviceGetNvLinkState"]


@pytest.mark.parametrize("code", [15, 16])
@pytest.mark.parametrize("detail", ["PersistenceMode", "NvLinkState", "GpuFabricInfoV"])
async def test_a_detail_may_say_that_the_gpu_is_gone(code: int, detail: str, boot: Boot, open_source: Open) -> None:
    boot("h100-8").set({f"gpu.0.fail.nvmlDeviceGet{detail}": code})
    (gpu, *others) = (await open_source(deadline=10).sample()).gpus
    assert [(error.call, error.code) for error in gpu.errors] == [(f"nvmlDeviceGet{detail}", code)]
    assert {other.errors for other in others} == {()}


async def test_the_most_that_a_machine_can_say_fits_a_frame(boot: Boot, open_source: Open) -> None:
    listed = ",".join(f"{4_000_000 + number}:{1 << 40}:13:6" for number in range(MAX_PROCESSES + 9))
    machine = boot("gb300-4")
    machine.set(
        {
            "count": 70,
            "gpu.*.uuid": "GPU-" + "a" * 36,
            "gpu.*.nvlink.count": _MAX_NVLINKS + 9,
            "gpu.*.nvlink.*.remote.pci": "0000FFFF:FF:1F.0",
            "gpu.*.processes.compute": listed,
            "gpu.*.processes.graphics": listed,
            "gpu.*.mig.current": 1,
            "gpu.*.mig.max": 99,
            **{f"gpu.*.field.{field}": f"ullong:{(1 << 63) - 1}" for field in (*range(206, 216), 219, 221)},
        }
    )
    for slot in range(20):
        machine.set(
            {
                f"gpu.*.mig.{slot}.uuid": "MIG-" + "b" * 36,
                f"gpu.*.mig.{slot}.name": "MIG 1g.10gb",
                f"gpu.*.mig.{slot}.gi": 7,
                f"gpu.*.mig.{slot}.ci": 0,
            }
        )
    sample = await open_source(deadline=30).sample()
    assert sample.fault is None
    assert len(sample.gpus) == 64
    gpu = sample.gpus[63]
    assert (len(gpu.nvlinks or ()), len(gpu.processes or ()), len(gpu.mig)) == (_MAX_NVLINKS, 2 * MAX_PROCESSES, 16)
    assert len(frames.encode(sample)) < frames.MAX_FRAME_BYTES * 3 // 4
