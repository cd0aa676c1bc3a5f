"""The real operator on a real API server: how soon a change is in the status, and what a steady fleet writes.

Reports change in a simulated fleet of 50 nodes; kernel lines go to a real agent process. Writes are counted by the API
server itself (``apiserver_request_total``), so nothing of ours can hide one.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.result import Result, spread
from tests.cluster.badinput.world import World
from tests.cluster.operator.conftest import Rig, free_port

from gpudiag_cli.controlplane import ControlPlane
from gpudiag_cli.simulator import MACHINES, Member, specs

NODES = 50
CHANGES = 40
LINES = 15
STEADY_SECONDS = 60
_WRITES = re.compile(r"apiserver_request_total\{(?P<labels>[^}]*)\} (?P<count>\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_LOST = "NVRM: Xid (PCI:{pci}): 79, GPU has fallen off the bus."
_BACK = "NVRM: Xid (PCI:{pci}): 154, GPU recovery action changed from 0x2 (Node Reboot Required) to 0x0 (None)"


def run() -> list[Result]:
    """Measure."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ControlPlane.start(Path(folder) / "plane", controller_manager=False) as plane,
    ):
        rig = Rig(plane, plane.client(), Path(folder))
        rig.install()
        world = World(rig, specs(NODES, "h100-8"))
        try:
            rig.diagnostic("fleet")
            with _agent(world, Path(folder)) as kmsg:
                rig.start()
                world.until(world.said, lambda said: len(said) == NODES + 1, seconds=60, what="all nodes written")
                return [*_kernel_lines(world, kmsg), *_changes(world), *_steady(world)]
        finally:
            world.close()


@contextmanager
def _agent(world: World, folder: Path) -> Iterator[Path]:
    """A real agent process over simulated GPUs, and the file that is its kernel log."""
    kmsg, port = folder / "kmsg", free_port()
    kmsg.touch()
    command = [sys.executable, "-m", "gpudiag_agent", "--node-name", "real", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--source", "simulated", "--kmsg", str(kmsg)]
    with (folder / "agent.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            model = MACHINES["h100-8"].model
            world.join([Member(name="real", address="127.0.0.1", port=port, gpus=8, model=model)])
            yield kmsg
        finally:
            process.terminate()


def _seconds_until(world: World, node: str, wanted: Callable[[dict[str, Any]], bool]) -> float:
    began = time.monotonic()
    path = f"/apis/gpudiag.dev/v1alpha1/gpunodes/{node}"
    while not wanted(world.get(path).get("status", {})):
        if time.monotonic() - began > 20:
            raise AssertionError(f"{node} did not change within 20 s: {world.get(path).get('status')}")
        time.sleep(0.005)
    return time.monotonic() - began


def _kernel_lines(world: World, kmsg: Path) -> list[Result]:
    pci = world.gpunodes()["real"]["status"]["gpus"][2]["pci"].rpartition(".")[0]
    taken = []
    for number in range(LINES):
        _progress("kernel line", number, LINES)
        time.sleep(10.5)  # a change sooner than 10 s after the last one waits on purpose, unless it worsens
        with kmsg.open("a") as log:
            log.write((_BACK if number % 2 else _LOST).format(pci=pci) + "\n")
        wanted = "Healthy" if number % 2 else "Unhealthy"
        taken.append(_seconds_until(world, "real", lambda status, wanted=wanted: status.get("health") == wanted))  # type: ignore[misc]
    return [_latency("kernel line to GPUNode.status, median", taken, 1.5)]


def _changes(world: World) -> list[Result]:
    taken = []
    names = sorted(name for name in world.members if name != "real")
    for number in range(CHANGES):
        _progress("change", number, CHANGES)
        node = names[number % len(names)]
        world.fault(node, "row-remap-pending")
        taken.append(_seconds_until(world, node, lambda status: status.get("health") == "Degraded"))
    return [_latency("report change to GPUNode.status, median", taken, 1.0)]


def _latency(name: str, taken: list[float], target: float) -> Result:
    return Result(name=name, measured=statistics.median(taken), unit="s", target=target, details=spread(taken))


def _steady(world: World) -> list[Result]:
    time.sleep(35)  # the interval of the fleet's diagnostic, so that what the changes set off is written
    before = _writes(world)
    for second in range(STEADY_SECONDS):
        _progress("second at rest", second, STEADY_SECONDS)
        time.sleep(1)
    count = _writes(world) - before
    name = f"writes in {STEADY_SECONDS} s at rest, {NODES + 1} nodes: "
    return [
        Result(name=name + "gpunodes", measured=count["gpunodes"], unit="writes", target=0, gates=True),
        Result(name=name + "events", measured=count["events"], unit="writes", target=0, gates=True),
        Result(name=name + "gpudiagnostics", measured=count["gpudiagnostics"], unit="writes", target=1, gates=True),
    ]


def _writes(world: World) -> Counter[str]:
    """Requests that change something, by resource."""
    found: Counter[str] = Counter()
    for match in _WRITES.finditer(world.rig.kubectl("get", "--raw", "/metrics").stdout):
        labels = dict(_LABEL.findall(match["labels"]))
        if labels.get("verb") in {"POST", "PUT", "PATCH", "APPLY", "DELETE"}:
            found[labels.get("resource", "")] += int(float(match["count"]))
    return found


def _progress(what: str, number: int, total: int) -> None:
    if number % 10 == 0:
        print(f"  {what} {number} of {total}", file=sys.stderr, flush=True)
