"""A driver or library that fails as a whole, met by the real child: the right word, and recovery without help."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpudiag_agent.nvml.source import NVMLSource
from gpudiag_agent.sample import Sample, SourceFault
from gpudiag_api.vocabulary import Capability
from gpudiag_cli.nvmlfake.library import SONAME, compile_library

from .conftest import Boot, Open

HANG = 0.2


class Clock:
    """Turned by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def fault_of(sample: Sample) -> SourceFault:
    assert sample.fault is not None
    assert sample.gpus == ()
    return sample.fault


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (4, Capability.PERMISSION_DENIED, "NO_PERMISSION"),
        (9, Capability.NO_DRIVER, "not loaded"),
        (10, Capability.DRIVER_HUNG, "reboot"),
        (17, Capability.NO_DRIVER, "NVML_ERROR_OPERATING_SYSTEM (17)"),
        (18, Capability.DRIVER_MISMATCH, "different versions"),
        (999, Capability.PERMISSION_DENIED, "lost its access to /dev/nvidia*"),
        (77, Capability.NO_DRIVER, "NVML_ERROR_77 (77)"),
    ],
)
async def test_initialisation_that_fails_has_a_word(
    code: int, reason: Capability, words: str, boot: Boot, open_source: Open
) -> None:
    machine, source = boot("h100-8"), open_source(deadline=10)
    machine.set({"init.result": code})
    fault = fault_of(await source.sample())
    assert fault.reason is reason
    assert words in fault.message
    # The child is gone with the library it had loaded; a driver that was mended needs no restart of the agent.
    assert source.child_pid is None
    machine.remove("init.result")
    assert len((await source.sample()).gpus) == 8


async def test_gpus_that_cannot_be_counted_are_a_fault(boot: Boot, open_source: Open) -> None:
    boot("h100-8").set({"fail.nvmlDeviceGetCount_v2": 999})
    fault = fault_of(await open_source(deadline=10).sample())
    assert fault.reason is Capability.PERMISSION_DENIED
    assert fault.message.startswith("nvmlDeviceGetCount answered NVML_ERROR_UNKNOWN (999).")


async def test_no_gpu_is_said_with_the_versions_and_by_the_same_child(boot: Boot, open_source: Open) -> None:
    machine, source = boot("h100-8"), open_source(deadline=10)
    machine.set({"count": 0})
    sample = await source.sample()
    assert fault_of(sample).reason is Capability.NO_GPUS
    assert sample.driver_version == "570.133.20"
    pid = source.child_pid
    machine.set({"count": 1})
    assert len((await source.sample()).gpus) == 1
    assert source.child_pid == pid


@pytest.mark.parametrize("code", [4, 999])
async def test_handles_that_all_are_refused_accuse_the_container(code: int, boot: Boot, open_source: Open) -> None:
    machine, source = boot("h100-8"), open_source(deadline=10)
    machine.set({"fail.nvmlDeviceGetHandleByIndex_v2": code})
    sample = await source.sample()
    assert fault_of(sample).reason is Capability.PERMISSION_DENIED
    assert sample.driver_version == "570.133.20"
    machine.set({"gpu.3.fail.nvmlDeviceGetHandleByIndex_v2": 0})
    gpus = (await source.sample()).gpus
    assert [bool(gpu.errors) for gpu in gpus] == [True] * 3 + [False] + [True] * 4


async def test_gpus_that_all_are_lost_accuse_the_gpus(boot: Boot, open_source: Open) -> None:
    boot("h100-8").set({"gpu.*.lost": True})
    sample = await open_source(deadline=10).sample()
    assert sample.fault is None
    assert [gpu.lost for gpu in sample.gpus] == [True] * 8


async def test_a_library_without_any_function_is_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_source: Open
) -> None:
    (tmp_path / "nothing.c").write_text("typedef int nothing;\n")
    compile_library([tmp_path / "nothing.c"], tmp_path)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    fault = fault_of(await open_source(deadline=10).sample())
    assert fault.reason is Capability.NO_LIBRARY
    assert "lacks" in fault.message


async def test_a_library_that_cannot_be_loaded_is_told_in_the_loaders_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_source: Open
) -> None:
    (tmp_path / SONAME).write_bytes(b"this is no ELF file at all" * 40)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    fault = fault_of(await open_source(deadline=10).sample())
    assert fault.reason is Capability.NO_LIBRARY
    assert "invalid ELF header" in fault.message


async def test_a_library_that_comes_later_is_found(
    boot: Boot, nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_source: Open
) -> None:
    # In a process of its own: this one may have loaded the stand-in, and would find it by its name.
    load = [sys.executable, "-c", f"import ctypes; ctypes.CDLL({SONAME!r})"]
    if subprocess.run(load, check=False, capture_output=True, env={}).returncode == 0:
        pytest.skip("this machine has the real library")
    boot("h100-8")
    # The loader remembers, for as long as a process lives, that a folder was not there.
    later = tmp_path / "driver" / "lib"
    monkeypatch.setenv("LD_LIBRARY_PATH", str(later))
    source = open_source(deadline=10)
    fault = fault_of(await source.sample())
    assert fault.reason is Capability.NO_LIBRARY
    assert "No such file" in fault.message
    later.mkdir(parents=True)
    (later / SONAME).symlink_to(nvml_library / SONAME)
    assert len((await source.sample()).gpus) == 8


@pytest.mark.parametrize(
    "key",
    ["hang.nvmlInitWithFlags", "gpu.1.hang.nvmlDeviceGetTotalEccErrors", "hang.nvmlShutdown"],
)
async def test_a_call_that_hangs_is_killed_and_the_next_child_answers(key: str, boot: Boot, open_source: Open) -> None:
    clock = Clock()
    machine, source = boot("h100-8"), open_source(deadline=10, monotonic=clock)
    before = await source.sample()
    pid = source.child_pid
    assert pid is not None
    machine.set({key: True})
    source._deadline = HANG
    fault = fault_of(await source.sample())
    assert fault.reason is Capability.DRIVER_HUNG
    assert f"within {HANG} s" in fault.message
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    machine.remove(key)
    clock.now += 5
    source._deadline = 10
    assert (await source.sample()).gpus == before.gpus
    assert source.child_pid not in {None, pid}


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
async def test_a_library_that_crashes_takes_only_the_child(
    number: signal.Signals, boot: Boot, open_source: Open
) -> None:
    clock = Clock()
    machine, source = boot("h100-8"), open_source(deadline=10, monotonic=clock)
    machine.set({"gpu.2.crash.nvmlDeviceGetName": int(number)})
    fault = fault_of(await source.sample())
    assert fault.reason is Capability.DRIVER_HUNG
    assert f"crashed the process that reads it ({number.name})" in fault.message
    machine.remove("gpu.2.crash.nvmlDeviceGetName")
    clock.now += 5
    assert len((await source.sample()).gpus) == 8


async def test_a_child_killed_between_looks_is_replaced_without_a_word(boot: Boot, open_source: Open) -> None:
    boot("h100-8")
    source = open_source(deadline=10)
    before = await source.sample()
    pid, child = source.child_pid, source._child
    assert pid is not None
    assert child is not None
    os.kill(pid, signal.SIGKILL)
    await child.wait()
    assert (await source.sample()).gpus == before.gpus
    assert source.child_pid not in {None, pid}


async def test_what_the_library_prints_does_not_get_between_the_frames(
    boot: Boot, open_source: Open, capfd: pytest.CaptureFixture[str]
) -> None:
    boot("h100-8").set({"print": "NVIDIA: could not open the device file"})
    assert len((await open_source(deadline=10).sample()).gpus) == 8
    out, err = capfd.readouterr()
    assert out == ""
    assert "could not open the device file" in err


async def test_a_file_in_the_working_directory_does_not_pose_as_pynvml(
    boot: Boot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_source: Open
) -> None:
    (tmp_path / "pynvml.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    boot("h100-8")
    assert len((await open_source(deadline=10).sample()).gpus) == 8


async def test_between_looks_nothing_holds_the_device(
    boot: Boot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_source: Open
) -> None:
    device, log = tmp_path / "nvidiactl", tmp_path / "calls"
    device.touch()
    monkeypatch.setenv("GPUDIAG_NVMLFAKE_LOG", str(log))
    machine, source = boot("h100-8"), open_source(deadline=10)
    machine.set({"device": str(device)})
    for _ in range(3):
        await source.sample()
        held = [link.resolve() for link in Path(f"/proc/{source.child_pid}/fd").iterdir()]
        assert held
        assert device not in held
    calls = log.read_text().split()
    assert calls.count("nvmlInitWithFlags") == calls.count("nvmlShutdown") == 3


def zombies_of(parent: int) -> list[str]:
    """Children of a process that ended and were not waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(ppid) == parent:
            found.append(stat.parent.name)
    return found


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_many_restarts_leave_no_zombie_and_no_open_pipe(boot: Boot, open_source: Open) -> None:
    clock = Clock()
    machine, source = boot("h100-8"), open_source(deadline=10, monotonic=clock)
    machine.set({"crash.nvmlInitWithFlags": int(signal.SIGKILL)})
    await source.sample()
    pipes = open_files()
    for _ in range(8):
        clock.now += 100
        fault = fault_of(await source.sample())
        # A kill that is not ours is what the kernel does to a container that uses too much memory.
        assert fault.reason is Capability.PERMISSION_DENIED
        assert "memory limit" in fault.message
    assert source._failures == 9
    assert zombies_of(os.getpid()) == []
    assert open_files() <= pipes


async def test_close_ends_the_child(boot: Boot) -> None:
    boot("h100-8")
    source = NVMLSource(deadline=10)
    await source.sample()
    pid = source.child_pid
    assert pid is not None
    await source.close()
    await source.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert "ending" in fault_of(await source.sample()).message


def test_a_child_stuck_in_a_call_dies_with_its_agent(boot: Boot) -> None:
    machine = boot("h100-8")
    machine.set({"hang.nvmlInitWithFlags": True})
    agent = """
import subprocess, sys
command = [sys.executable, "-m", "gpudiag_agent.nvml.child"]
child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert child.stdout.read(4) == bytes(4)
child.stdin.write(b"?"); child.stdin.flush()
print(child.pid, flush=True)
child.wait()
"""
    with subprocess.Popen([sys.executable, "-c", agent], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        watched = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    try:
        assert select.select([watched], [], [], 10)[0]
    finally:
        os.close(watched)


def test_the_child_is_small() -> None:
    # Half of what an agent costs every node: 13 MB with these imports, three times that with aiohttp.
    code = "import sys, gpudiag_agent.nvml.child; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pynvml" in done.stdout.split()
    assert not {"asyncio", "aiohttp", "pydantic", "yaml", "ssl", "logging"} & set(done.stdout.split())
