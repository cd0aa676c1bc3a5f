"""The programs that the demo runs beside itself, as a person would start them, each with a log of its own."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpudiag_cli.controlplane.process import Child

BREAKER_OPEN_SECONDS = 10
"""How long a breaker is open before each probe; the defaults, 30 s to 5 min, are for fleets, not for spectators."""
_GRACE_SECONDS = 6.0


@dataclass
class Program:
    """A program and how to start it, again and again."""

    name: str
    module: str
    """Started as ``python -m <module>``."""
    arguments: Sequence[str | Path]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    child: Child | None = None

    def start(self) -> None:
        """Start it; its output is added to the log."""
        # -u: what it said last must be in the log, however it ends.
        command = [sys.executable, "-u", "-m", self.module, *self.arguments]
        self.child = Child.start(command, self.log, env={**os.environ, **self.environment})

    def stop(self) -> None:
        """Ask it to end; make it end after a few seconds. One that does not run is no error."""
        if self.child is not None:
            self.child.stop(_GRACE_SECONDS)
            self.child = None

    def kill(self) -> None:
        """End it without a word, as the kernel does when memory is short."""
        if self.child is not None:
            self.child.process.kill()
            self.child.process.wait()
            self.child = None

    @property
    def ended(self) -> int | None:
        """Exit status of a program that was started, not stopped, and ended all the same; else None."""
        return None if self.child is None else self.child.process.poll()


def operator(kubeconfig: Path, metrics_port: int, log: Path) -> Program:
    """The operator, with the rights of the kubeconfig's user."""
    arguments: list[str | Path] = [
        *("--kubeconfig", kubeconfig, "--metrics-addr", f"127.0.0.1:{metrics_port}"),
        *("--breaker-open", f"{BREAKER_OPEN_SECONDS}s", "--breaker-open-max", f"{BREAKER_OPEN_SECONDS}s"),
    ]
    return Program("operator", "gpudiag_operator", arguments, log)


def simulator(kubeconfig: Path, scenario: Path, log: Path) -> Program:
    """The simulator with its Nodes and Pods."""
    arguments: list[str | Path] = ["simulate", "--kubeconfig", kubeconfig, "--scenario", scenario]
    return Program("simulator", "gpudiag_cli", arguments, log)


def agent(
    name: str, address: str, port: int, *, kmsg: Path, sysfs: Path, environment: Mapping[str, str], log: Path
) -> Program:
    """A real agent; ``environment`` makes it find the stand-in for libnvidia-ml.so.1."""
    arguments: list[str | Path] = [
        *("--node-name", name, "--host", address, "--port", str(port)),
        *("--source", "nvml", "--kmsg", kmsg, "--interval", "2s"),
        # An empty folder: the machine's own GPUs, if it has any, are not those of the stand-in.
        *("--sysfs-pci", sysfs),
    ]
    return Program(name, "gpudiag_agent", arguments, log, environment)
