"""One GPU that fails every NVML call in turn, with every kind of code: nothing raises, its neighbours are judged as
ever, and what the checks need and do not get makes it Unknown, never Healthy by silence.
"""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpudiag_agent.nvml.call import UNSUPPORTED
from gpudiag_agent.nvml.source import NVMLSource
from gpudiag_agent.sample import Sample
from gpudiag_api.vocabulary import Health
from gpudiag_api.wire import Report
from gpudiag_cli import nvmlfake

from ..conftest import Boot  # noqa: TID252 - the fixtures of the folder above
from .node import Node

ILL = 1
LOST, RESET = 15, 16
HANDLE = "nvmlDeviceGetHandleByIndex_v2"
ESSENTIAL = frozenset({
    HANDLE, "nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetEccMode", "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRemappedRows", "nvmlDeviceGetFieldValues",
})  # fmt: skip
"""Without them the GPU's health cannot be told. Of others an older function answers as well, or they are details that
drivers refuse for many reasons."""
TOLERATED = {("nvmlDeviceGetFieldValues", 2)}
"""A driver older than one of the fields calls it an invalid argument."""
EVERY_CODE = (*range(1, 30), 999)


class Broken:
    """A machine whose state changes from look to look."""

    def __init__(self, machine: nvmlfake.Machine, source: NVMLSource) -> None:
        self._path, self._source = machine.path, source
        self._usual = machine.path.read_text()

    async def read(self, **failing: int) -> Sample:
        keys = "".join(f"gpu.{ILL}.fail.{function}={code}\n" for function, code in failing.items())
        part = self._path.with_suffix(".part")
        part.write_text(self._usual + keys)
        part.replace(self._path)
        return await self._source.sample()


@pytest.fixture
async def source() -> AsyncIterator[NVMLSource]:
    looks = itertools.count(0, 10_000)
    made = NVMLSource(deadline=20, monotonic=lambda: float(next(looks)))
    yield made
    await made.close()


async def called(machine: nvmlfake.Machine, source: NVMLSource, log: Path) -> tuple[Sample, list[str]]:
    """A healthy sample, and the functions that the agent called for it, of a GPU."""
    sample = await source.sample()
    names = sorted({name for name in log.read_text().split() if name.startswith("nvmlDevice")})
    there = [name for name in names if machine.get(f"missing.{name}") is None]
    return sample, [name for name in there if name != "nvmlDeviceGetCount_v2"]


async def _fails_in_turn(
    name: str, codes: tuple[int, ...], boot: Boot, source: NVMLSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = boot(name)
    log = machine.path.with_suffix(".log")
    monkeypatch.setenv("GPUDIAG_NVMLFAKE_LOG", str(log))
    healthy, functions = await called(machine, source, log)
    assert len(functions) > 25
    broken, wrong = Broken(machine, source), {}
    for function, code in itertools.product(functions, codes):
        node = Node(healthy)
        node.look()
        node.sample = await broken.read(**{function: code})
        node.look()
        problem = _problem(function, code, node.look())
        if problem:
            wrong[function, code] = problem
    assert wrong == {}


def _problem(function: str, code: int, report: Report) -> str:
    gpus = {gpu.index: gpu for gpu in report.gpus}
    ill = gpus.pop(ILL)
    about = {finding.subject.gpu_index for finding in report.findings}
    reasons = {finding.reason for finding in report.findings}
    if about - {ILL} or any(gpu.health is not Health.HEALTHY for gpu in gpus.values()):
        return f"neighbours: {report.findings}"
    if report.capabilities:
        return f"capabilities: {report.capabilities}"
    if code in {LOST, RESET}:
        return "" if reasons == {"GPULost" if code == LOST else "ResetRequired"} else f"said {reasons}"
    needed = function in ESSENTIAL and (code not in UNSUPPORTED or function == HANDLE)
    if needed and (function, code) not in TOLERATED:
        return "" if ill.health in {Health.UNKNOWN, Health.UNHEALTHY} else f"{ill.health} by silence"
    if code in UNSUPPORTED:
        return f"said {reasons}" if reasons else ""
    return f"{ill.health}: {reasons}" if ill.health is Health.UNHEALTHY and code != 8 else ""


@pytest.mark.parametrize("name", ["gb200-4", "a100-8-mig"])
async def test_every_call_fails_in_turn(
    name: str, boot: Boot, source: NVMLSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _fails_in_turn(name, (3, 10, 15, 999), boot, source, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("codes", [EVERY_CODE[place::6] for place in range(6)], ids=lambda codes: f"from-{codes[0]}")
@pytest.mark.parametrize("name", [name for name in nvmlfake.machines() if name != "t4-1"])
async def test_with_every_code_on_every_machine(
    name: str, codes: tuple[int, ...], boot: Boot, source: NVMLSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In parts: all codes at once take minutes on a busy machine, which ends the run as hung.
    await _fails_in_turn(name, codes, boot, source, monkeypatch)


async def test_all_calls_of_one_gpu_fail_at_once(boot: Boot, source: NVMLSource) -> None:
    machine = boot("h100-8")
    healthy = await source.sample()
    for code in (1, 4, 10, 17, 999):
        machine.set({f"gpu.{ILL}.fail.{HANDLE}": code})
        node = Node(healthy)
        node.look()
        node.sample = await source.sample()
        report = node.look()
        assert [gpu.health for gpu in report.gpus] == [Health.HEALTHY, Health.UNKNOWN, *[Health.HEALTHY] * 6]
        assert report.gpus[ILL].uuid == healthy.gpus[ILL].uuid, "named all the same"
        machine.remove(f"gpu.{ILL}.fail.{HANDLE}")
        node.sample = await source.sample()
        assert node.look().findings == ()
