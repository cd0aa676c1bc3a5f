"""Scenarios: what they say is what is sampled; what is wrong in them is said with what is allowed."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from gpudiag_agent.clock import ManualClock
from gpudiag_agent.sample import CallError, FabricSample, GPUProcess, GPUSample, NVLinkSample, PCIeSample, Sample
from gpudiag_agent.simulated import scenario
from gpudiag_agent.simulated.scenario import Scenario, ScenarioError
from gpudiag_agent.simulated.source import SimulatedSource
from gpudiag_agent.simulated.values import GPUChange
from gpudiag_api.vocabulary import Capability

from .conftest import Boot, Open


def source(path: Path, node_name: str = "n", clock: ManualClock | None = None) -> SimulatedSource:
    return SimulatedSource(path, node_name=node_name, clock=clock or ManualClock())


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "count", "mig"), [("h100-8", 8, 0), ("a100-8-mig", 8, 4), ("t4-1", 1, 0)])
async def test_built_in_scenarios(name: str, count: int, mig: int) -> None:
    sample = await source(scenario.find(name)).sample()
    assert len(sample.gpus) == count
    assert {len(gpu.mig) for gpu in sample.gpus} == {mig}
    assert len({gpu.uuid for gpu in sample.gpus} | {m.uuid for gpu in sample.gpus for m in gpu.mig}) == count * (
        1 + mig
    )
    assert len({gpu.pci for gpu in sample.gpus}) == count
    assert sample == await source(scenario.find(name)).sample(), "the same after a restart"
    assert sample.gpus != (await source(scenario.find(name), node_name="other").sample()).gpus


async def test_single_gpus_differ(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.yaml",
        """
        model: M
        count: 4
        defaults: {temperatureCelsius: 40, clockEventReasons: 0x4}
        gpus:
          - {index: 0, temperatureCelsius: 91}
          - {index: 1, lost: true}
          - {index: 2, absent: true}
          - {index: 3, temperatureCelsius: null, uuid: GPU-x, pci: "0000:3b:00.0"}
        """,
    )
    hot, lost, named = (await source(path).sample()).gpus
    assert (hot.temperature_celsius, hot.clock_event_reasons) == (91, 4)
    assert lost.lost
    assert (named.index, named.uuid, named.pci, named.temperature_celsius) == (3, "GPU-x", "0000:3b:00.0", None)


async def test_parts_of_a_value_differ(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.yaml",
        """
        model: M
        count: 3
        excludedGPUs: 1
        defaults:
          pcie: {generation: 5, width: 16, errors: {correctable: 0}}
          nvlinks: [{link: 0, active: true, version: 4}, {link: 1, active: true, version: 4}]
          sramUncorrected: {l2: 0, sm: 0}
          processes: [{pid: 1, kind: compute}]
        gpus:
          - index: 1
            pcie: {width: 8, errors: {fatal: 2}}
            nvlinks: [{link: 1, active: false}, {link: 2, active: true}]
            sramUncorrected: {sm: 3}
            processes: []
          - {index: 2, pcie: null, nvlinks: null, fabric: {state: 2}, errors: [{call: c, code: 999, name: N}]}
        """,
    )
    sample = await source(path).sample()
    whole, partly, none = sample.gpus
    assert sample.excluded_gpus == 1
    assert whole.processes == (GPUProcess(pid=1, kind="compute"),)
    assert partly.pcie == PCIeSample(generation=5, width=8, errors={"correctable": 0, "fatal": 2})
    assert partly.nvlinks == (
        NVLinkSample(link=0, active=True, version=4),
        NVLinkSample(link=1, active=False, version=4),
        NVLinkSample(link=2, active=True),
    )
    assert (partly.sram_uncorrected, partly.processes) == ({"l2": 0, "sm": 3}, ())
    assert (none.pcie, none.nvlinks, none.fabric) == (None, None, FabricSample(state=2))
    assert none.errors == (CallError("c", 999, "N"),)


def test_a_scenario_can_say_everything_that_a_sample_has() -> None:
    said = {field.name for field in msgspec.structs.fields(GPUChange)}
    assert {field.name for field in msgspec.structs.fields(GPUSample)} - said == set()
    said = {field.name for field in msgspec.structs.fields(Scenario)}
    assert {field.name for field in msgspec.structs.fields(Sample)} - said == {"taken_at", "host"}


@pytest.mark.parametrize("name", ["h100-8", "a100-8-mig", "t4-1"])
async def test_a_built_in_scenario_says_what_its_machine_says(name: str, boot: Boot, open_source: Open) -> None:
    boot(name)
    real, told = await open_source(deadline=10).sample(), await source(scenario.find(name)).sample()
    # Identities differ, and MIG instances are numbered in order.
    own = {"uuid", "pci", "serial", "mig"} | ({"processes"} if "mig" in name else set())
    expected, found = (msgspec.structs.asdict(sample.gpus[0]) for sample in (real, told))
    assert {name: value for name, value in found.items() if value != expected[name]}.keys() <= own
    for field in ("driver_version", "cuda_version", "nvml_version", "excluded_gpus", "confidential_compute"):
        assert getattr(told, field) == getattr(real, field)
    assert [len(gpu.mig) for gpu in told.gpus[:1]] == [len(gpu.mig) for gpu in real.gpus[:1]]


async def test_a_changed_file_is_read_again_and_a_broken_one_is_not_used(tmp_path: Path) -> None:
    path = write(tmp_path / "s.json", json.dumps({"model": "M", "count": 1}))
    simulated = source(path)
    assert len((await simulated.sample()).gpus) == 1
    write(path, json.dumps({"model": "M", "count": 12}))
    assert len((await simulated.sample()).gpus) == 12
    write(path, "{")
    assert len((await simulated.sample()).gpus) == 12


async def test_faults_of_the_whole_driver(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", "{model: M, count: 1, fault: {reason: NoDriver, message: gone}}")
    sample = await source(path).sample()
    assert sample.fault is not None
    assert (sample.fault.reason, sample.fault.message, sample.gpus) == (Capability.NO_DRIVER, "gone", ())


@pytest.mark.parametrize(("seconds", "hung"), [(3, False), (3600, True)])
async def test_a_driver_that_takes_its_time(tmp_path: Path, seconds: int, hung: bool) -> None:
    clock = ManualClock()
    path = write(tmp_path / "s.yaml", f"{{model: M, count: 1, hangSeconds: {seconds}}}")
    look = asyncio.create_task(source(path, clock=clock).sample())
    await asyncio.sleep(0)
    assert not look.done()
    clock.advance(5)
    fault = (await look).fault
    assert (fault is not None and fault.reason is Capability.DRIVER_HUNG) == hung


async def test_kernel_lines_are_emitted_once_and_new_ones_when_they_come(tmp_path: Path) -> None:
    path = write(tmp_path / "s.json", json.dumps({"model": "M", "count": 1, "kernelLog": ["a", "a"]}))
    clock = ManualClock()
    lines: list[str] = []
    task = asyncio.create_task(source(path, clock=clock).watch(lines.append))
    await asyncio.sleep(0)
    assert lines == ["a", "a"]
    write(path, json.dumps({"model": "M", "count": 1, "kernelLog": ["a", "a", "b", "a"]}))
    for _ in range(3):
        clock.advance(0.2)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert lines == ["a", "a", "b", "a"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{model: M, count: 1, colour: red}", ["colour", "allowed fields", "kernelLog"]),
        ("{model: M, count: 1, gpus: [{index: 0, temp: 3}]}", ["temp", "$.gpus[0]", "temperatureCelsius"]),
        ("{model: M, count: 1, defaults: {mig: [{profil: x}]}}", ["profil", "allowed fields", "profile"]),
        ("{model: M, count: 1, fault: {reason: Tired}}", ["Tired", "$.fault.reason", "DriverHung"]),
        ("{model: M, count: 1, fault: {reason: NoKernelLog}}", ["$.fault.reason", "DriverHung"]),
        ("{model: M, count: 1, defaults: {pcie: {widht: 8}}}", ["widht", "$.defaults.pcie", "widthMax"]),
        ("{model: M, count: 1, defaults: {nvlinks: [{active: true}]}}", ["link", "$.defaults.nvlinks[0]"]),
        (
            "{model: M, count: 1, defaults: {pcie: {width: 8}}, gpus: [{index: 0, pcie: {width: x}}]}",
            ["int", "$.gpus[0].pcie.width"],
        ),
        ("{model: M, count: 100}", ["$.count", "64"]),
        ("{model: M, count: 1, defaults: {temperatureCelsius: hot}}", ["$.defaults.temperatureCelsius", "int"]),
        ("{model: M, count: 1, gpus: [{index: 1}]}", ["index 1", "0 to 0"]),
        ("{model: M, count: 0, gpus: [{index: 0}]}", ["index 0", "none"]),
        ("{model: M", ["neither YAML nor JSON"]),
        ("[]", ["object"]),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path / "s.yaml", text)
    with pytest.raises(ScenarioError) as caught:
        scenario.load(path)
    assert [word for word in [str(path), *words] if word not in str(caught.value)] == []


def test_an_unknown_scenario_lists_those_there_are() -> None:
    with pytest.raises(ScenarioError, match="a100-8-mig, h100-8, t4-1"):
        scenario.find("h200")
    with pytest.raises(ScenarioError, match="No such file"):
        scenario.load(Path("/nonexistent.yaml"))
