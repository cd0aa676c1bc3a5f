"""What the NVML stand-in says of every machine, healthy and with every fault: real library, real child, real reader.

All states of one machine are read through one child, each look a full one; what was read is kept for the process.
"""

import asyncio
import functools
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from gpudiag_agent.nvml.source import NVMLSource
from gpudiag_agent.sample import GPUSample, Sample
from gpudiag_cli import nvmlfake

from .model import Fault, Values

ROOT = Path(__file__).resolve().parents[4]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine's healthy readings, and a way to get others."""

    name: str
    idle: Sample
    busy: Sample
    target: int
    """Index of the GPU that fails: not the first, where there are several."""
    faulty: dict[str, Sample]
    """Reading of a fault by the fault's name; one that the machine cannot have is absent."""
    before: dict[str, Sample]

    def healthy(self, fault: Fault) -> Sample:
        """Before the fault."""
        return self.before.get(fault.name) or (self.busy if fault.load else self.idle)

    def healed(self, fault: Fault) -> Sample:
        """After it. What was wrong from the start is right then; what only had to be said is said again."""
        if fault.before and fault.before != fault.reading:
            return self.before[fault.name]
        return self.busy if fault.load else self.idle

    @property
    def gpu(self) -> GPUSample:
        """The GPU that fails, while it is healthy."""
        return self.busy.gpus[self.target]

    def lacks(self, fault: Fault) -> str | None:
        """Why the machine cannot have this fault; None: it can."""
        return next((need.text for need in fault.needs if not need.met(self.busy, self.gpu)), None)


def read(name: str, faults: tuple[Fault, ...]) -> Machine:
    """Read a machine in all states that the faults need."""
    return asyncio.run(_read(name, faults))


async def _read(name: str, faults: tuple[Fault, ...]) -> Machine:
    with tempfile.TemporaryDirectory() as folder, _booted(Path(folder) / "state") as path:
        seconds = itertools.count(0, 10_000)
        source = NVMLSource(deadline=20, monotonic=lambda: float(next(seconds)))

        states = {}
        for load in (False, True):
            nvmlfake.Machine.create(name, path, load=load)
            states[load] = path.read_text()

        async def look(values: Values, *, load: bool = True) -> Sample:
            # Of two lines with one key the last counts; renamed, so that half a state is never seen.
            part = path.with_suffix(".part")
            part.write_text(states[load] + "".join(f"{key}={value}\n" for key, value in values.items()))
            part.replace(path)
            return await source.sample()

        try:
            idle, busy = await look({}, load=False), await look({})
            assert idle.fault is None, idle.fault
            machine = Machine(name=name, idle=idle, busy=busy, target=min(1, len(busy.gpus) - 1), faulty={}, before={})
            for fault in faults:
                if machine.lacks(fault) is not None:
                    continue
                if fault.before:
                    machine.before[fault.name] = await look(_aimed(fault.before, machine.target), load=fault.load)
                if fault.reading:
                    keys = {**fault.before, **fault.reading}
                    machine.faulty[fault.name] = await look(_aimed(keys, machine.target), load=fault.load)
            return machine
        finally:
            await source.close()


def _aimed(values: Values, target: int) -> Values:
    return {key.replace("gpu.T.", f"gpu.{target}."): value for key, value in values.items()}


@contextmanager
def _booted(path: Path) -> Iterator[Path]:
    """Make children of this process load the stand-in."""
    nvmlfake.Machine.create("t4-1", path)
    wanted = nvmlfake.Machine(path).environment(library())
    kept = {variable: os.environ.get(variable) for variable in wanted}
    os.environ.update(wanted)
    try:
        yield path
    finally:
        for variable, value in kept.items():
            if value is None:
                del os.environ[variable]
            else:
                os.environ[variable] = value


@functools.cache
def library() -> Path:
    """The folder with the compiled stand-in."""
    return nvmlfake.build(ROOT / ".cache" / "nvmlfake")


def cached(faults: tuple[Fault, ...]) -> Callable[[str], Machine]:
    """A reader that reads each machine once."""
    return functools.cache(lambda name: read(name, faults))
