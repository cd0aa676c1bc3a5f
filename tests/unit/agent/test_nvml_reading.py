"""What the real pynvml, in the real child, makes of a library: every value, and nothing that was not said."""

from pathlib import Path

import msgspec
import pytest

from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_cli.nvmlfake.library import compile_library

from .conftest import Boot, Open

MARGINS = {"thermal_margin_celsius", "thermal_margin_slowdown_celsius"}
LIMITS = {"temperature_slowdown_celsius", "temperature_shutdown_celsius", "temperature_max_celsius"}
REMAP = {"remapped_rows_corrected", "remapped_rows_uncorrected", "remap_pending", "remap_failure"}
HBM = {"memory_temperature_celsius", "memory_temperature_max_celsius"}
MIG = {"mig_current", "mig_pending"}
HISTOGRAM = {"remap_histogram"}
PAGES = {"retired_pages_single_bit", "retired_pages_double_bit", "retired_pages_pending"}
LOAD = {f"{of}utilization_percent" for of in ("", "memory_", "encoder_", "decoder_")}
NEWEST = {"unrepairable_memory", "bank_remap_pending"}
REPAIR = {"channel_repair_pending", "tpc_repair_pending"}
HOPPER = {*LIMITS, *PAGES, *NEWEST, "c2c"}
"""What a Hopper with driver 570 does not say."""
AMPERE = {*MARGINS, *PAGES, *NEWEST, *REPAIR, "recovery_action", "throttle_times", "fabric", "c2c"}
TURING = {
    *(MARGINS | REMAP | HBM | MIG | HISTOGRAM | NEWEST | REPAIR),
    "recovery_action",
    "throttle_times",
    "fabric",
    "c2c",
    "nvlinks",
    "sram_threshold_exceeded",
}


def unread(gpu: GPUSample) -> set[str]:
    """The names of the values that are None."""
    return {name for name, value in msgspec.structs.asdict(gpu).items() if value is None}


def values(gpu: GPUSample, **expected: object) -> dict[str, object]:
    return {name: getattr(gpu, name) for name in expected}


async def read(open_source: Open) -> Sample:
    sample = await open_source(deadline=10).sample()
    assert sample.fault is None, sample.fault
    return sample


async def test_a_healthy_h100_gives_every_value_it_has(boot: Boot, open_source: Open) -> None:
    boot("h100-8")
    sample = await read(open_source)
    assert (sample.driver_version, sample.cuda_version, sample.nvml_version) == ("570.133.20", "12.8", "12.570.133.20")
    assert [gpu.index for gpu in sample.gpus] == list(range(8))
    assert len({gpu.uuid for gpu in sample.gpus}) == len({gpu.serial for gpu in sample.gpus}) == 8
    for gpu in sample.gpus:
        assert gpu.errors == ()
        # From Hopper on there are margins, and no absolute limits.
        assert unread(gpu) == HOPPER
    gpu = sample.gpus[7]
    assert gpu.pci == "0000:df:00.0"
    expected: dict[str, object] = {
        "model": "NVIDIA H100 80GB HBM3",
        "memory_total_bytes": 85_520_809_984,
        "memory_used_bytes": 12_884_901_888,
        "mig_current": False,
        "temperature_celsius": 41,
        "memory_temperature_celsius": 48,
        "memory_temperature_max_celsius": 95,
        "thermal_margin_celsius": 46,
        "thermal_margin_slowdown_celsius": -2,
        "power_milliwatts": 212_000,
        "power_limit_milliwatts": 700_000,
        "energy_millijoules": 1_234_567_890,
        "utilization_percent": 63,
        "memory_utilization_percent": 12,
        "encoder_utilization_percent": 0,
        "decoder_utilization_percent": 0,
        "sm_clock_mhz": 1980,
        "performance_state": 0,
        "clock_event_reasons": 0,
        "ecc_current": True,
        "ecc_pending": True,
        "remap_pending": False,
        "recovery_action": 0,
    }
    assert values(gpu, **expected) == expected


async def test_a_split_a100_names_its_instances(boot: Boot, open_source: Open) -> None:
    boot("a100-8-mig")
    gpus = (await read(open_source)).gpus
    assert [gpu.errors for gpu in gpus] == [()] * 8
    assert [len(gpu.mig) for gpu in gpus] == [4, 4, 4, 4, 0, 0, 0, 0]
    split, whole = gpus[0], gpus[4]
    assert (split.mig_current, whole.mig_current) == (True, False)
    found = [(mig.profile, mig.gpu_instance, mig.compute_instance, mig.memory_bytes) for mig in split.mig]
    assert found == [("3g.40gb", 2, 0, 42_144_366_592), *[("1g.10gb", gi, 0, 10_468_982_784) for gi in (9, 10, 11)]]
    assert len({mig.uuid for gpu in gpus for mig in gpu.mig}) == 16
    assert unread(whole) == AMPERE
    assert unread(split) == AMPERE | REMAP | HISTOGRAM | LOAD
    assert [mig.memory_used_bytes for mig in split.mig] == [3 << 30, 1 << 30, 0, 0]


async def test_a_t4_has_neither_margin_nor_remap_nor_mig(boot: Boot, open_source: Open) -> None:
    boot("t4-1")
    (gpu,) = (await read(open_source)).gpus
    assert gpu.errors == ()
    assert unread(gpu) == TURING
    assert (gpu.pci, gpu.temperature_slowdown_celsius, gpu.clock_event_reasons) == ("0000:00:1e.0", 93, 4)


async def test_a_value_that_changes_is_in_the_next_sample(boot: Boot, open_source: Open) -> None:
    machine, source = boot("h100-8"), open_source(deadline=10)
    before = (await source.sample()).gpus
    machine.set({"gpu.3.temperature": 88, "gpu.3.rows.pending": True, "gpu.3.ecc.uncorrected.volatile": 2})
    after = (await source.sample()).gpus
    gpu = after[3]
    assert (gpu.temperature_celsius, gpu.remap_pending, gpu.ecc_uncorrected_volatile) == (88, True, 2)
    assert after[:3] + after[4:] == before[:3] + before[4:]


NOT_AVAILABLE: list[tuple[str, int | str, str]] = [
    ("temperature", -1, "temperature_celsius"),
    ("temperature", 0xFFFFFFFF, "temperature_celsius"),
    ("threshold.2", 0, "memory_temperature_max_celsius"),
    ("threshold.2", 0xFFFFFFFF, "memory_temperature_max_celsius"),
    ("margin", -(2**31), "thermal_margin_celsius"),
    ("field.82", "uint:0xFFFFFFFF", "memory_temperature_celsius"),
    ("field.82", "uint:0", "memory_temperature_celsius"),
    ("field.194", "double:3.5", "thermal_margin_slowdown_celsius"),
    ("field.194", "sint:-2147483648", "thermal_margin_slowdown_celsius"),
    ("field.230", "uint:0xFFFFFFFF", "recovery_action"),
    ("power", 0xFFFFFFFF, "power_milliwatts"),
    ("power.limit", 0, "power_limit_milliwatts"),
    ("energy", 0xFFFFFFFFFFFFFFFF, "energy_millijoules"),
    ("utilization", 0xFFFFFFFF, "utilization_percent"),
    ("utilization.memory", 0xFFFFFFFF, "memory_utilization_percent"),
    ("utilization.encoder", 101, "encoder_utilization_percent"),
    ("utilization.decoder", 0xFFFFFFFF, "decoder_utilization_percent"),
    ("memory.reserved", 0xFFFFFFFFFFFFFFFF, "memory_reserved_bytes"),
    ("clock.1", 0xFFFFFFFF, "sm_clock_mhz"),
    ("pstate", 32, "performance_state"),
    ("reasons", 0xFFFFFFFFFFFFFFFF, "clock_event_reasons"),
    ("ecc.current", 2, "ecc_current"),
    ("ecc.uncorrected.volatile", 0xFFFFFFFFFFFFFFFF, "ecc_uncorrected_volatile"),
    ("rows.corrected", 0xFFFFFFFF, "remapped_rows_corrected"),
    ("rows.pending", 0xFFFFFFFF, "remap_pending"),
    ("mig.current", 0xFFFFFFFF, "mig_current"),
    ("memory.used", 0xFFFFFFFFFFFFFFFF, "memory_used_bytes"),
    ("memory.total", 0, "memory_total_bytes"),
]


async def test_what_nvml_calls_not_available_is_none(boot: Boot, open_source: Open) -> None:
    # One GPU for each case, so that one look shows them all.
    changes = {f"gpu.{index}.{key}": value for index, (key, value, _) in enumerate(NOT_AVAILABLE)}
    boot("h100-8").set({"count": len(NOT_AVAILABLE), **changes})
    gpus = (await read(open_source)).gpus
    read_anyway = [case for case, gpu in zip(NOT_AVAILABLE, gpus, strict=True) if case[2] not in unread(gpu)]
    assert read_anyway == []
    assert {gpu.errors for gpu in gpus} == {()}


FIELDS: list[tuple[str, int | None]] = [
    ("sint:-5", -5),
    ("sllong:-5", -5),
    ("uint:4", 4),
    ("ulong:4", 4),
    ("ullong:4", 4),
    ("ushort:4", 4),
    ("uint:4294967291", None),
    ("error:2", None),
    ("error:3", None),
    ("error:13", None),
]


async def test_a_field_is_decoded_by_its_type(boot: Boot, open_source: Open) -> None:
    changes = {f"gpu.{index}.field.194": answer for index, (answer, _) in enumerate(FIELDS)}
    boot("h100-8").set({"count": len(FIELDS), **changes})
    gpus = (await read(open_source)).gpus
    assert [gpu.thermal_margin_slowdown_celsius for gpu in gpus] == [margin for _, margin in FIELDS]
    assert {(gpu.memory_temperature_celsius, gpu.recovery_action, gpu.errors) for gpu in gpus} == {(48, 0, ())}


async def test_one_field_that_fails_is_an_error_and_the_others_are_read(boot: Boot, open_source: Open) -> None:
    boot("h100-8").set({"count": 1, "gpu.0.field.82": "error:16"})
    (gpu,) = (await read(open_source)).gpus
    assert [(error.call, error.code) for error in gpu.errors] == [("nvmlDeviceGetFieldValues", 16)]
    assert gpu.thermal_margin_slowdown_celsius == -2


@pytest.mark.parametrize(("code", "unread"), [(999, ["nvmlDeviceGetFieldValues(29)"]), (2, []), (3, [])])
async def test_a_field_that_is_not_told_is_named_unless_the_driver_lacks_it(
    code: int, unread: list[str], boot: Boot, open_source: Open
) -> None:
    # 252 is the time under a power brake for one header and power smoothing for the next: it says nothing.
    boot("h100-8").set({"count": 1, "gpu.0.field.29": f"error:{code}", "gpu.0.field.252": f"error:{code}"})
    (gpu,) = (await read(open_source)).gpus
    assert ([error.call for error in gpu.unread], gpu.errors) == (unread, ())


async def test_odd_strings_never_break_a_sample(boot: Boot, open_source: Open) -> None:
    machine = boot("h100-8")
    machine.set(
        {
            "count": 4,
            "gpu.0.name": "",
            "gpu.0.serial": "N/A",
            "gpu.1.name": r"NVIDIA \xff\xfe H100\x07",
            "gpu.1.uuid": r"\xff\xff\xff",
            "gpu.2.uuid": "GPU-" + "a" * 80,
            "gpu.2.pci": "no address",
            "gpu.3.serial": r"\x1b[31m" + "9" * 20,
            "driver": r"570\x0a",
        }
    )
    sample = await read(open_source)
    gpus = sample.gpus
    assert (gpus[0].model, gpus[0].serial) == ("", "")
    assert gpus[1].model == "NVIDIA \ufffd\ufffd H100"
    assert [gpu.uuid for gpu in gpus[1:3]] == ["", ""]
    assert gpus[2].pci == ""
    assert gpus[3].serial == "[31m" + "9" * 20
    assert all(gpu.errors == () for gpu in gpus)


@pytest.mark.parametrize("code", [3, 13, 22, 25, 26])
async def test_what_a_driver_lacks_is_none_and_no_error(code: int, boot: Boot, open_source: Open) -> None:
    machine = boot("h100-8")
    needed = ("nvmlInitWithFlags", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlShutdown")
    machine.set({"fail.*": code, **{f"fail.{name}": 0 for name in needed}})
    sample = await read(open_source)
    assert (sample.driver_version, sample.cuda_version, sample.nvml_version) == (None, None, None)
    assert sample.gpus == tuple(GPUSample(index=index) for index in range(8))


@pytest.mark.parametrize("code", [2, 3, 13, 25])
async def test_an_older_function_answers_where_the_newer_one_does_not(code: int, boot: Boot, open_source: Open) -> None:
    newer = ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetCurrentClocksEventReasons")
    boot("h100-8").set({"count": 1, **{f"fail.{name}": code for name in newer}})
    (gpu,) = (await read(open_source)).gpus
    # Only the newer form tells the memory that is reserved; the older one counts it as used.
    assert unread(gpu) == {*HOPPER, "memory_reserved_bytes"}
    assert gpu.errors == ()


async def test_an_error_of_the_gpu_is_not_asked_away(boot: Boot, open_source: Open) -> None:
    boot("h100-8").set({"count": 1, "fail.nvmlDeviceGetTemperatureV": 15})
    (gpu,) = (await read(open_source)).gpus
    assert gpu.lost
    assert gpu.temperature_celsius is None


async def test_a_mig_device_that_does_not_say_which_is_left_out(boot: Boot, open_source: Open) -> None:
    machine = boot("a100-8-mig")
    machine.set({"gpu.0.mig.1.gi": "", "gpu.0.mig.2.name": "NVIDIA A100-SXM4-80GB", "gpu.0.mig.2.memory.total": ""})
    gpu = (await read(open_source)).gpus[0]
    assert [(mig.gpu_instance, mig.profile) for mig in gpu.mig] == [(2, "3g.40gb"), (10, ""), (11, "1g.10gb")]
    assert gpu.mig[1].memory_bytes is None
    assert gpu.errors == ()


async def test_a_call_that_fails_is_an_error_of_that_gpu_alone(boot: Boot, open_source: Open) -> None:
    machine = boot("h100-8")
    failing = ("TotalEccErrors", "Serial", "PersistenceMode")
    machine.set({f"gpu.2.fail.nvmlDeviceGet{what}": 999 for what in failing})
    gpus = (await read(open_source)).gpus
    found = [[(error.call, error.code, error.name) for error in kind] for kind in (gpus[2].errors, gpus[2].unread)]
    assert found == [
        [(f"nvmlDeviceGet{what}", 999, "NVML_ERROR_UNKNOWN")] for what in ("TotalEccErrors", "PersistenceMode")
    ]
    assert gpus[2].serial == "", "a serial number is for people: it is unknown, and no more"
    assert gpus[2].ecc_uncorrected_volatile is None
    assert gpus[2].temperature_celsius == 41
    assert not any(gpu.incomplete for gpu in gpus if gpu.index != 2)


async def test_a_lost_gpu_is_named_and_its_neighbours_are_read(boot: Boot, open_source: Open) -> None:
    machine, source = boot("h100-8"), open_source(deadline=10)
    before = await source.sample()
    machine.set({"gpu.5.lost": True})
    after = await source.sample()
    gpu, known = after.gpus[5], before.gpus[5]
    assert gpu.lost
    assert gpu.temperature_celsius is None
    assert (gpu.uuid, gpu.pci, gpu.model, gpu.serial) == (known.uuid, known.pci, known.model, known.serial)
    assert after.gpus[:5] + after.gpus[6:] == before.gpus[:5] + before.gpus[6:]
    machine.remove("gpu.5.lost")
    assert (await source.sample()).gpus == before.gpus


async def test_a_library_that_has_little_is_read_for_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_source: Open
) -> None:
    # Symbols that are really absent, and an initialisation of the old kind.
    (tmp_path / "little.c").write_text(
        """
        #pragma GCC visibility push(default)
        int nvmlInit_v2(void) { return 0; }
        int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
        int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = (void *)(index + 1L); return 0; }
        int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) {
            *celsius = 30 + (handle == 0) + sensor; return 0;
        }
        """
    )
    compile_library([tmp_path / "little.c"], tmp_path)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    sample = await read(open_source)
    assert sample.gpus == (GPUSample(index=0, temperature_celsius=30),)
