"""Samples made from a scenario file, which may change while the agent runs."""

import contextlib
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import UNSET

from gpudiag_agent.clock import Clock
from gpudiag_agent.sample import (
    NVML_ERROR_GPU_IS_LOST,
    NVML_ERROR_RESET_REQUIRED,
    CallError,
    GPUSample,
    MIGDevice,
    Sample,
    SourceFault,
)
from gpudiag_agent.simulated.scenario import Scenario, ScenarioError, load
from gpudiag_agent.simulated.values import GPUChange, MIGSlice, given
from gpudiag_api.vocabulary import Capability

_log = logging.getLogger(__name__)

DEADLINE = 5.0
"""Seconds after which a simulated driver counts as hung."""
WATCH_PERIOD = 0.2
"""Seconds between two looks at the scenario file."""


class SimulatedSource:
    """A :class:`gpudiag_agent.sample.Source` over a scenario file.

    Args:
        path: the scenario.
        node_name: makes UUIDs and serial numbers unique per node, and the same after a restart.
        clock: for times and waits.

    Raises:
        ScenarioError: the scenario cannot be used.
    """

    def __init__(self, path: Path, *, node_name: str, clock: Clock) -> None:
        self._path = path
        self._node_name = node_name
        self._clock = clock
        self._scenario = load(path)
        self._stamp = _stamp(path)
        self._emitted: list[str] = []

    async def sample(self) -> Sample:
        """Look at the scenario. A hang longer than the deadline is a hung driver."""
        self.reload()
        scenario = self._scenario
        if scenario.hang_seconds:
            await self._clock.sleep(min(scenario.hang_seconds, DEADLINE))
        fault = _fault(scenario)
        if fault is not None:
            return Sample(taken_at=self._clock.now(), fault=fault)
        changes = {change.index: change for change in scenario.gpus}
        return Sample(
            taken_at=self._clock.now(),
            driver_version=scenario.driver_version,
            cuda_version=scenario.cuda_version,
            nvml_version=scenario.nvml_version,
            excluded_gpus=scenario.excluded_gpus,
            unread=scenario.unread,
            confidential_compute=scenario.confidential_compute,
            confidential_compute_ready=scenario.confidential_compute_ready,
            gpus=tuple(
                self._gpu(scenario, change)
                for index in range(scenario.count)
                if not (change := changes.get(index, GPUChange(index=index))).absent
            ),
        )

    async def close(self) -> None:
        """Nothing to release."""

    async def watch(self, on_line: Callable[[str], None]) -> None:
        """Emit the scenario's kernel lines, and those that are added to it, until cancelled."""
        while True:
            self.reload()
            for line in self._new_lines():
                on_line(line)
            await self._clock.sleep(WATCH_PERIOD)

    def reload(self) -> None:
        """Read the file again if it changed; a broken one is told once and changes nothing."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._scenario = load(self._path)
        except ScenarioError as error:
            _log.error("the changed scenario is not used", extra={"reason": str(error)})

    def _new_lines(self) -> list[str]:
        """Lines of the scenario that were not emitted yet, counting equal ones."""
        left = list(self._emitted)
        new = []
        for line in self._scenario.kernel_log:
            with contextlib.suppress(ValueError):
                left.remove(line)
                continue
            new.append(line)
        self._emitted = list(self._scenario.kernel_log)
        return new

    def _gpu(self, scenario: Scenario, change: GPUChange) -> GPUSample:
        identity = GPUSample(
            index=change.index,
            uuid=change.uuid or self._uuid("GPU", change.index),
            pci=change.pci or f"0000:{4 + 3 * change.index:02x}:00.0",
            model=change.model or scenario.model,
            serial=change.serial or str(1_650_000_000_000 + int(self._digest(str(change.index))[:8], 16)),
        )
        if change.lost or change.reset_required:
            code, name = (
                (NVML_ERROR_GPU_IS_LOST, "NVML_ERROR_GPU_IS_LOST")
                if change.lost
                else (NVML_ERROR_RESET_REQUIRED, "NVML_ERROR_RESET_REQUIRED")
            )
            error = CallError("nvmlDeviceGetTemperature", code, name)
            return msgspec.structs.replace(identity, errors=(error,))
        slices = change.mig if change.mig is not UNSET else scenario.defaults.mig
        return msgspec.structs.replace(
            identity,
            mig=self._mig(change.index, slices or ()),
            **given(change, scenario.defaults),
        )

    def _mig(self, index: int, slices: tuple[MIGSlice, ...]) -> tuple[MIGDevice, ...]:
        profiles = [one for one in slices for _ in range(one.count)]
        return tuple(
            MIGDevice(
                uuid=self._uuid(f"MIG-{number}", index).replace(f"MIG-{number}", "MIG", 1),
                gpu_instance=number,
                compute_instance=0,
                profile=one.profile,
                memory_bytes=one.memory_bytes,
                memory_used_bytes=one.memory_used_bytes,
            )
            for number, one in enumerate(profiles, 1)
        )

    def _uuid(self, kind: str, index: int) -> str:
        digest = self._digest(f"{kind}/{index}")
        groups = (digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32])
        return f"{kind}-" + "-".join(groups)

    def _digest(self, what: str) -> str:
        return hashlib.blake2b(f"{self._node_name}/{what}".encode(), digest_size=16).hexdigest()


def _fault(scenario: Scenario) -> SourceFault | None:
    if scenario.fault is not None:
        return SourceFault(scenario.fault.reason, scenario.fault.message)
    if scenario.hang_seconds > DEADLINE:
        message = f"The driver gave no answer within {DEADLINE:.0f} s: it hangs. Only a reboot helps."
        return SourceFault(Capability.DRIVER_HUNG, message)
    return None


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_size, status.st_ino)
