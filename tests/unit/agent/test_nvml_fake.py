"""The stand-in covers what the agent calls, and its builder and machines do what they say."""

import ctypes
import importlib.util
import inspect
import re
import shutil
from pathlib import Path

import pynvml
import pytest

import gpudiag_agent.nvml
from gpudiag_cli import nvmlfake
from gpudiag_cli.nvmlfake import library

READER = Path(inspect.getfile(gpudiag_agent.nvml)).parent
CALL = re.compile(r'"(nvml[A-Z]\w+)"')
SYMBOL = re.compile(r'_nvmlGetFunctionPointer\("(nvml\w+)"\)')
NESTED = re.compile(r"(?<!def )\b(nvml[A-Z]\w+)\(")


def called_symbols() -> set[str]:
    """The C functions behind everything that the reader calls."""
    text = "".join(path.read_text() for path in READER.glob("*.py"))
    found, functions, seen = set(SYMBOL.findall(text)), set(CALL.findall(text)), set[str]()
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
    assert len(called) > 30
    assert [name for name in sorted(called) if not hasattr(loaded, name)] == []


def test_a_name_that_pynvml_does_not_know_is_a_typing_error() -> None:
    names = {name for path in READER.glob("*.py") for name in CALL.findall(path.read_text())}
    assert [name for name in sorted(names) if not hasattr(pynvml, name) and name != "nvmlInit_v2"] == []


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
    assert nvmlfake.machines() == ["a100-8-mig", "h100-8", "t4-1"]
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
    with pytest.raises(nvmlfake.MachineError, match="a100-8-mig, h100-8, t4-1"):
        nvmlfake.Machine.create("../h100-8", tmp_path / "state")


def test_the_environment_keeps_the_library_path_that_was_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    environment = nvmlfake.Machine(tmp_path / "state").environment(Path("/fake"))
    assert environment == {"LD_LIBRARY_PATH": "/fake:/opt/lib", "GPUDIAG_NVMLFAKE_STATE": str(tmp_path / "state")}
