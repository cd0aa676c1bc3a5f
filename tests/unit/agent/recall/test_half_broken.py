"""One GPU that fails every NVML call in turn, with every kind of code: nothing raises, its neighbours are judged as
ever, and what the checks need and do not get is said, never Healthy by silence. What a driver does not support is
nothing to speak of.
"""

import itertools
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpudiag_agent import nvml
from gpudiag_agent.checks.driver import feeds
from gpudiag_agent.nvml.call import NOT_SUPPORTED, UNSUPPORTED
from gpudiag_agent.nvml.fields import _DEVICE, _RENUMBERED
from gpudiag_agent.nvml.links import _C2C_COUNTERS, _C2C_STATUS, _NVLINK5
from gpudiag_agent.nvml.source import NVMLSource
from gpudiag_agent.sample import Sample
from gpudiag_api.vocabulary import Check, Health, Severity
from gpudiag_api.wire import Report, Subject
from gpudiag_cli import nvmlfake

from ..conftest import Boot  # noqa: TID252 - the fixtures of the folder above
from .node import Node

pytestmark = pytest.mark.untraced
ILL = 1
INVALID_ARGUMENT, INSUFFICIENT_POWER, CORRUPTED_INFOROM, LOST, RESET = 2, 8, 14, 15, 16
UNKNOWN = Health.UNKNOWN.badness
HANDLE = "nvmlDeviceGetHandleByIndex_v2"
VITAL = frozenset({
    HANDLE, "nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetEccMode", "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRemappedRows", "nvmlDeviceGetFieldValues", "nvmlDeviceGetTemperatureThreshold",
    "nvmlDeviceGetMarginTemperature", "nvmlDeviceGetSramEccErrorStatus", "nvmlDeviceGetUnrepairableMemoryFlag_v1",
    "nvmlDeviceGetNvLinkState", "nvmlDeviceGetGpuFabricInfoV", "nvmlDeviceGetTemperature",
    "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetGpuFabricInfo",
})  # fmt: skip
"""A Critical fault could go unseen without them, or the GPU: its health cannot be told."""
INVENTORY = {
    "nvmlDeviceGetName": "the model, for people",
    "nvmlDeviceGetMemoryInfo": "that of MIG devices; beside the GPU's own, which is asked by the newer form",
    "nvmlDeviceGetSerial": "for the vendor's form",
    "nvmlDeviceGetVbiosVersion": "for people",
    "nvmlDeviceGetArchitecture": "for people",
    "nvmlDeviceGetGspFirmwareMode": "for people: kernel lines say what is wrong with a GSP",
    "nvmlDeviceGetGspFirmwareVersion": "for people",
    "nvmlDeviceGetMaxClockInfo": "the most that the board can do: no check compares with it",
    "nvmlDeviceGetTotalEnergyConsumption": "a metric",
    "nvmlDeviceGetEncoderUtilization": "a metric: the load of the GPU is another call's",
    "nvmlDeviceGetDecoderUtilization": "a metric, as the encoder's",
    "nvmlDeviceGetMemoryAffinity": "topology; the PCI bus says the same",
    "nvmlDeviceGetNvLinkRemotePciInfo_v2": "topology",
    "nvmlDeviceGetNvLinkVersion": "topology",
}
"""What no check needs. Where it fails, the value is unknown, and the GPU as healthy as the rest of it says."""
OLDER = {
    "nvmlDeviceGetTemperatureV": "nvmlDeviceGetTemperature",
    "nvmlDeviceGetMemoryInfo_v2": "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetCurrentClocksEventReasons": "nvmlDeviceGetCurrentClocksThrottleReasons",
}
"""Functions whose older form answers as well: only both together leave something untold."""
EMPTY_SLOT = ("nvmlDeviceGetMigDeviceHandleByIndex", 6)
"""NOT_FOUND: there is no MIG device in that slot."""
STRICT = frozenset({
    HANDLE, "nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetEccMode", "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRemappedRows",
})  # fmt: skip
"""No driver has a reason to call these an invalid argument; it may not know others, or a field, or a kind of limit."""
NOT_OF_A_GPU = {
    "nvmlDeviceGetCount", "nvmlDeviceRegisterEvents", "nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion",
    "nvmlSystemGetCudaDriverVersion", "nvmlSystemGetCudaDriverVersion_v2",
}  # fmt: skip
"""Whose failure is one of the whole source, or leaves out a version that people read."""
EVERY_CODE = (*range(1, 30), 999)


class Broken:
    """A machine whose state changes from look to look."""

    def __init__(self, machine: nvmlfake.Machine, source: NVMLSource) -> None:
        self._path, self._source = machine.path, source
        self._usual = machine.path.read_text()

    async def read(self, *functions: str, code: int) -> Sample:
        keys = "".join(f"gpu.{ILL}.fail.{function}={code}\n" for function in functions)
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
    # A neighbour on either side is enough, and four times as fast as eight GPUs.
    machine.set({"count": min(3, int(machine.get("count") or 1))})
    log = machine.path.with_suffix(".log")
    monkeypatch.setenv("GPUDIAG_NVMLFAKE_LOG", str(log))
    healthy, functions = await called(machine, source, log)
    assert len(functions) > 25
    if not _linked(healthy):
        # A link that is down has no other end that must be known.
        functions = [function for function in functions if function != "nvmlDeviceGetNvLinkRemoteDeviceType"]
    broken, wrong = Broken(machine, source), {}
    for function, code in itertools.product(functions, codes):
        node = Node(healthy)
        node.look()
        node.sample = await broken.read(function, *([OLDER[function]] if function in OLDER else []), code=code)
        once = node.look()
        problem = _hasty(once) or _problem(function, code, node.look())
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
    reasons -= {"InfoROMCorrupted"} if code == CORRUPTED_INFOROM else set()
    reasons -= {"InsufficientPower"} if code == INSUFFICIENT_POWER else set()
    if function == HANDLE:
        return "" if reasons == {"GPUNotReadable"} and ill.health.badness >= UNKNOWN else f"{ill.health}: {reasons}"
    if code == INVALID_ARGUMENT and function not in STRICT:
        return ""
    if code in UNSUPPORTED or function in INVENTORY or (function, code) == EMPTY_SLOT:
        return f"said {reasons}" if reasons else ""
    if function in VITAL or OLDER.get(function) in VITAL:
        return "" if reasons == {"ReadFailed"} and ill.health.badness >= UNKNOWN else f"{ill.health}: {reasons}"
    if code in {CORRUPTED_INFOROM, INSUFFICIENT_POWER}:
        return "" if ill.health is not Health.HEALTHY else "Healthy by silence"
    return "" if reasons == {"GPUPartlyReadable"} and ill.health is Health.HEALTHY else f"{ill.health}: {reasons}"


def _hasty(once: Report) -> str:
    """What is said of a failure that happened once, and may never again."""
    said = {finding.reason for finding in once.findings if finding.check == Check.DRIVER}
    return f"after one look: {said}" if said & {"ReadFailed", "GPUPartlyReadable"} else ""


def _linked(sample: Sample) -> bool:
    return any(link.active for link in sample.gpus[ILL].nvlinks or ())


@pytest.mark.parametrize("name", ["gb200-4", "a100-8-mig"])
async def test_every_call_fails_in_turn(
    name: str, boot: Boot, source: NVMLSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _fails_in_turn(name, (3, 15, 999), boot, source, monkeypatch)


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


@pytest.mark.parametrize("name", ["nvmlSystemGetConfComputeState", "nvmlGetExcludedDeviceCount"])
async def test_what_the_driver_does_not_tell_of_the_node_is_said_of_the_node(
    name: str, boot: Boot, source: NVMLSource
) -> None:
    machine = boot("h100-8")
    machine.set({f"fail.{name}": 999})
    node = Node(await source.sample())
    assert node.look().findings == ()
    (finding,) = node.look().findings
    assert (finding.reason, finding.subject, finding.severity) == ("NodePartlyReadable", Subject(), Severity.INFO)
    assert finding.message.startswith("the node: ")
    machine.set({f"fail.{name}": NOT_SUPPORTED})
    node.sample = await source.sample()
    assert node.look().findings == ()


def test_every_call_of_the_reader_is_inventory_or_feeds_a_check() -> None:
    sources = [path.read_text() for path in Path(nvml.__file__).parent.glob("*.py")]
    calls = {call for text in sources for call in re.findall(r'"(nvml(?:Device|System|Get)\w+)"', text)}
    fields = {f"nvmlDeviceGetFieldValues({number})" for number in (*_DEVICE, *_NVLINK5, _C2C_STATUS, *_C2C_COUNTERS)}
    fields -= {f"nvmlDeviceGetFieldValues({number})" for number in _RENUMBERED}
    exempt = {re.sub(r"_v\d$", "", name) for name in INVENTORY} - {"nvmlDeviceGetMemoryInfo"}
    assert (calls | fields) - set(feeds.VITAL) - set(feeds.OTHERS) == exempt | NOT_OF_A_GPU
    assert set(feeds.VITAL) | set(feeds.OTHERS) <= calls | fields
    assert not set(feeds.VITAL) & set(feeds.OTHERS)


@pytest.mark.parametrize("code", sorted(UNSUPPORTED))
async def test_a_driver_or_a_card_that_has_next_to_nothing_is_healthy(
    code: int, boot: Boot, source: NVMLSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = boot("rtx-6000-workstation-2")
    log = machine.path.with_suffix(".log")
    monkeypatch.setenv("GPUDIAG_NVMLFAKE_LOG", str(log))
    _, functions = await called(machine, source, log)
    who = {HANDLE, "nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetName"}
    machine.set({f"fail.{function}": code for function in set(functions) - who})
    node = Node(await source.sample())
    for _ in range(3):
        report = node.look()
    assert (report.findings, report.health) == ((), Health.HEALTHY)
