"""The state file of the stand-in: which machine it is, and what is wrong with it at the moment."""

import hashlib
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path

from gpudiag_cli.errors import CommandError

_MACHINES = Path(__file__).parent / "machines"
_GENERATIONS = Path(__file__).parent / "generations"
"""What the GPUs of a generation can say, for machines and other generations to include."""
_MIG_NAME = re.compile(r"gpu\.\*\.mig\.(\d+)\.name")

Value = str | int | bool


class MachineError(CommandError):
    """There is no such machine, or its state is not one."""


def machines() -> list[str]:
    """The names of the machines there are."""
    return sorted(path.stem for path in _MACHINES.glob("*.state"))


class Machine:
    """One machine: a state file that the stand-in reads again whenever it changes.

    Keys are those of the C sources, for example ``gpu.3.temperature``, ``gpu.*.power``, ``gpu.3.lost``,
    ``init.result``, ``hang.nvmlInitWithFlags``, ``gpu.1.fail.nvmlDeviceGetTemperature``. A number is an NVML return
    code (``fail``, ``init.result``), a signal (``crash``), else 1 for yes.

    Args:
        path: the state file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, name: str, path: Path, *, node: str = "node", load: bool = True) -> "Machine":
        """Write the state of a healthy machine.

        Args:
            name: one of :func:`machines`.
            path: where to.
            node: makes UUIDs and serial numbers unique per node, and the same after a restart.
            load: whether its GPUs are at work, or idle.

        Raises:
            MachineError: there is no machine of that name.
        """
        source = _MACHINES / f"{name}.state"
        if name not in machines():
            raise MachineError(f"There is no machine {name!r}: choose one of {', '.join(machines())}.")
        state = _load(source, "load" if load else "idle")
        machine = cls(path)
        machine._write({**state, **_identities(state, node)})
        return machine

    def get(self, key: str) -> str | None:
        """The value of exactly that key; None where it is not set."""
        return self._read().get(key)

    def set(self, values: Mapping[str, Value] | None = None, /, **more: Value) -> None:
        """Set keys; the stand-in follows with its next call. Booleans become 1 and 0."""
        changes = {**(values or {}), **more}
        written = {key: str(int(value) if isinstance(value, bool) else value) for key, value in changes.items()}
        for key, value in written.items():
            if not key or "=" in key or "\n" in key + value or key.startswith("#"):
                raise MachineError(f"{key!r} = {value!r} does not fit on a line of key=value.")
        self._write({**self._read(), **written})

    def remove(self, *keys: str) -> None:
        """Remove keys, whether or not they are set: heal what was broken."""
        self._write({key: value for key, value in self._read().items() if key not in keys})

    def environment(self, library: Path) -> dict[str, str]:
        """What an agent process needs in its environment.

        Args:
            library: the folder that :func:`gpudiag_cli.nvmlfake.build` gave.
        """
        paths = [str(library), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        return {"LD_LIBRARY_PATH": os.pathsep.join(paths), "GPUDIAG_NVMLFAKE_STATE": str(self.path)}

    def _read(self) -> dict[str, str]:
        return _parse(self.path.read_text(encoding="utf-8"))

    def _write(self, state: Mapping[str, str]) -> None:
        # Renamed, so that the stand-in never reads half a state.
        part = self.path.with_name(f".{self.path.name}.part")
        part.write_text("".join(f"{key}={value}\n" for key, value in state.items()), encoding="utf-8")
        part.replace(self.path)


def _load(source: Path, section: str) -> dict[str, str]:
    """The state in a file and in what it includes; of its sections only one, which counts after the rest.

    ``include=hopper`` takes in ``generations/hopper.state``. ``[idle]`` and ``[load]`` begin a section. A file's lines
    outweigh those of what it includes.
    """
    texts = {None: "", section: ""}
    current: str | None = None
    for line in source.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            current = line.strip("[]")
        elif current in texts:
            texts[current] += f"{line}\n"
    state = _parse(texts[None] + texts[section])
    included = state.pop("include", None)
    return state if included is None else {**_load(_GENERATIONS / f"{included}.state", section), **state}


def _parse(text: str) -> dict[str, str]:
    lines = (line for line in text.split("\n") if "=" in line and not line.startswith("#"))
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def _identities(state: Mapping[str, str], node: str) -> dict[str, str]:
    """UUIDs and serial numbers of GPUs, and UUIDs of the MIG devices of those that are split."""
    found = {}
    slots = [match[1] for match in map(_MIG_NAME.fullmatch, state) if match]
    for index in range(int(state["count"])):
        found[f"gpu.{index}.uuid"] = f"GPU-{_uuid(f'{node}/gpu/{index}')}"
        found[f"gpu.{index}.serial"] = str(1_650_000_000_000 + int(_digest(f"{node}/serial/{index}")[:8], 16))
        if state.get(f"gpu.{index}.mig.current", state.get("gpu.*.mig.current")) == "1":
            found |= {f"gpu.{index}.mig.{slot}.uuid": f"MIG-{_uuid(f'{node}/mig/{index}/{slot}')}" for slot in slots}
    return found


def _digest(seed: str) -> str:
    return hashlib.sha256(seed.encode()).hexdigest()


def _uuid(seed: str) -> str:
    return str(uuid.UUID(_digest(seed)[:32], version=4))
