"""The stand-in covers what the agent calls, and its builder and machines do what they say."""

import ast
import ctypes
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

import gpudiag_agent.nvml
from gpudiag_cli import nvmlfake
from gpudiag_cli.nvmlfake import library
from gpudiag_cli.nvmlfake import machine as machine_module

from .conftest import Boot, Open

READER = Path(inspect.getfile(gpudiag_agent.nvml)).parent
SOURCES = Path(inspect.getfile(nvmlfake)).parent
CALL = re.compile(r"nvml[A-Z]\w+")
SYMBOL = re.compile(r'_nvmlGetFunctionPointer\("(nvml\w+)"\)')
NESTED = re.compile(r"(?<!def )\b(nvml[A-Z]\w+)\(")


def named_functions() -> set[str]:
    """Every NVML function that the reader's sources name: as a string for ``attempt``, or as an attribute."""
    found = set()
    for path in READER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "value", None)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pynvml":
                name = node.attr
            if isinstance(name, str) and CALL.fullmatch(name):
                found.add(name)
    return found


def called_symbols() -> set[str]:
    """The C functions behind everything that the reader calls."""
    text = "".join(path.read_text() for path in READER.glob("*.py"))
    found, functions, seen = set(SYMBOL.findall(text)), named_functions(), set[str]()
    while functions:
        name = functions.pop()
        seen.add(name)
        if callable(getattr(pynvml, name, None)):
            source = inspect.getsource(getattr(pynvml, name))
            found |= set(SYMBOL.findall(source))
            functions |= set(NESTED.findall(source)) - seen
    return found


def test_the_stand_in_has_every_function_that_the_agent_calls(nvml_library: Path) -> None:
    loaded = ctypes.CDLL(str(nvml_library / library.SONAME))
    called = called_symbols()
    assert {"nvmlInitWithFlags", "nvmlInit_v2", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetTemperatureV"} <= called
    assert len(called) > 60
    assert [name for name in sorted(called) if not hasattr(loaded, name)] == []


def test_a_name_that_pynvml_does_not_know_is_a_typing_error() -> None:
    names = named_functions() - {"nvmlInit_v2"}
    assert [name for name in sorted(names) if not hasattr(pynvml, name)] == []


ASKED = """
import pynvml, sys
get, asked = pynvml._nvmlGetFunctionPointer, set()
def recording(name):
    asked.add(name)
    return get(name)
pynvml._nvmlGetFunctionPointer = recording
from gpudiag_agent.nvml.reader import read_sample
for full in (True, False):
    assert read_sample(full=full).fault is None
print(*sorted(asked))
"""


@pytest.mark.parametrize("name", ["b200-8", "a100-8-mig", "h100-8"])
def test_the_stand_in_has_every_symbol_that_a_look_asks_for(name: str, boot: Boot, nvml_library: Path) -> None:
    boot(name).set({"confidential": 1, "missing.nvmlDeviceGetGpuFabricInfoV": 1})
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    asked = set(done.stdout.split())
    assert {"nvmlDeviceGetGpuFabricInfo", "nvmlSystemGetConfComputeGpusReadyState"} <= asked
    assert asked <= called_symbols()
    loaded = ctypes.CDLL(str(nvml_library / library.SONAME))
    assert [symbol for symbol in sorted(asked) if not hasattr(loaded, symbol)] == []


def test_the_sources_compile_without_a_warning(tmp_path: Path) -> None:
    flags = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror")
    sources = sorted(str(path) for path in SOURCES.glob("*.c"))
    command = [*library.find_compiler(), *flags, "-o", str(tmp_path / "library.so"), *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


HEALTHY = (
    *("t4-1", "v100-8", "a10-4", "a100-8", "a100-8-mig", "l40s-8", "h100-8", "h100-pcie-4", "h200-8"),
    *("b200-8", "gb200-4", "gb300-4", "rtx-6000-workstation-2"),
)


def test_there_is_a_machine_of_every_kind(tmp_path: Path) -> None:
    assert nvmlfake.machines() == sorted(HEALTHY)
    for name in HEALTHY:
        machine = nvmlfake.Machine.create(name, tmp_path / name)
        assert machine.get("count") == name.rsplit("-", 1)[1].replace("mig", "8")
        assert machine.get("include") is None


@pytest.mark.parametrize("name", HEALTHY)
async def test_a_machine_at_work_and_idle(
    name: str, tmp_path: Path, nvml_library: Path, monkeypatch: pytest.MonkeyPatch, open_source: Open
) -> None:
    gpus = {}
    for load in (True, False):
        machine = nvmlfake.Machine.create(name, tmp_path / "state", load=load)
        for variable, value in machine.environment(nvml_library).items():
            monkeypatch.setenv(variable, value)
        sample = await open_source(deadline=10).sample()
        assert sample.fault is None
        gpus[load] = sample.gpus
    for idle, busy in zip(gpus[False], gpus[True], strict=True):
        assert (idle.uuid, idle.errors, busy.errors) == (busy.uuid, (), ())
        assert (idle.clock_event_reasons, busy.clock_event_reasons) in [(1, 0), (1, 4)]
        assert (idle.power_milliwatts or 0) < (busy.power_milliwatts or 0)
        assert (idle.sm_clock_mhz or 0) < (busy.sm_clock_mhz or 0)
        assert busy.processes
        # A GPU that sleeps at P8 lets its PCIe link sleep too.
        assert idle.pcie is not None
        assert busy.pcie is not None
        assert busy.pcie.generation == busy.pcie.generation_max
        assert idle.pcie.generation == (1 if idle.performance_state == 8 else idle.pcie.generation_max)


def test_a_machine_outweighs_its_generation_and_a_section_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("machines", "generations"):
        (tmp_path / folder).mkdir()
    (tmp_path / "generations/old.state").write_text("a=old\nb=old\n[idle]\nb=idle\nc=idle\n[load]\nc=load\n")
    (tmp_path / "machines/one.state").write_text("include=old\ncount=0\na=one\n[load]\nd=load\n[idle]\na=idle\n")
    monkeypatch.setattr(machine_module, "_MACHINES", tmp_path / "machines")
    monkeypatch.setattr(machine_module, "_GENERATIONS", tmp_path / "generations")
    idle = nvmlfake.Machine.create("one", tmp_path / "idle", load=False)
    busy = nvmlfake.Machine.create("one", tmp_path / "busy")
    assert idle.path.read_text().split() == ["a=idle", "b=idle", "c=idle", "count=0"]
    assert sorted(busy.path.read_text().split()) == ["a=one", "b=old", "c=load", "count=0", "d=load"]


def test_the_last_of_two_equal_lines_counts_and_a_gpu_outweighs_all(boot: Boot) -> None:
    machine = boot("t4-1")
    with machine.path.open("a") as file:
        file.write("gpu.*.temperature=70\ngpu.*.temperature=71\n")
    code = "from gpudiag_agent.nvml.reader import read_sample; print(read_sample().gpus[0].temperature_celsius)"
    read = [sys.executable, "-c", code]
    assert subprocess.run(read, capture_output=True, text=True, check=True).stdout == "71\n"
    machine.set({"gpu.0.temperature": 72})
    assert subprocess.run(read, capture_output=True, text=True, check=True).stdout == "72\n"


def test_a_file_of_the_stand_in_is_short() -> None:
    assert [path.name for path in SOURCES.glob("*.[ch]") if len(path.read_text().splitlines()) > 250] == []


def test_a_second_build_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = nvmlfake.build(tmp_path)
    monkeypatch.setattr(library, "compile_library", lambda *_: pytest.fail("compiled again"))
    assert nvmlfake.build(tmp_path) == folder
    assert [path.name for path in folder.iterdir()] == [library.SONAME]


def test_a_compiler_that_fails_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.c"
    broken.write_text("int nonsense(")
    with pytest.raises(nvmlfake.BuildError, match=r"broken\.c"):
        library.compile_library([broken], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_zig_compiles_where_there_is_no_cc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert library.find_compiler()[1:] == ["-m", "ziglang", "cc"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(nvmlfake.BuildError, match="pip install ziglang"):
        library.find_compiler()


def test_machines_differ_by_node_and_are_the_same_again(tmp_path: Path) -> None:
    first, again, other = (
        nvmlfake.Machine.create("h100-8", tmp_path / str(number), node=node)
        for number, node in enumerate(("gpu-01", "gpu-01", "gpu-02"))
    )
    assert first.path.read_text() == again.path.read_text() != other.path.read_text()
    uuid = first.get("gpu.0.uuid")
    assert uuid is not None
    assert re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uuid)


def test_a_machine_is_edited_as_a_whole(tmp_path: Path) -> None:
    machine = nvmlfake.Machine.create("t4-1", tmp_path / "state")
    machine.set({"gpu.0.lost": True, "gpu.0.temperature": 91}, count=2)
    assert [machine.get(key) for key in ("gpu.0.lost", "gpu.0.temperature", "count")] == ["1", "91", "2"]
    machine.remove("gpu.0.lost", "never set")
    assert machine.get("gpu.0.lost") is None
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize(("key", "value"), [("a=b", 1), ("", 1), ("#a", 1), ("a", "1\n2")])
def test_what_does_not_fit_on_a_line_is_refused(key: str, value: str | int, tmp_path: Path) -> None:
    machine = nvmlfake.Machine.create("t4-1", tmp_path / "state")
    before = machine.path.read_text()
    with pytest.raises(nvmlfake.MachineError, match="key=value"):
        machine.set({key: value})
    assert machine.path.read_text() == before


def test_an_unknown_machine_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(nvmlfake.MachineError, match="a10-4, a100-8, a100-8-mig, "):
        nvmlfake.Machine.create("../h100-8", tmp_path / "state")


def test_the_environment_keeps_the_library_path_that_was_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    environment = nvmlfake.Machine(tmp_path / "state").environment(Path("/fake"))
    assert environment == {"LD_LIBRARY_PATH": "/fake:/opt/lib", "GPUDIAG_NVMLFAKE_STATE": str(tmp_path / "state")}
