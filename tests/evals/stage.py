"""A whole system for questions: control plane, agents, operator, and the facade as a command over stdio."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

from mcp import Client, StdioServerParameters
from tests.evals.agents import Agents, Prepared

from gpudiag_cli.controlplane import ControlPlane, Kubectl
from gpudiag_cli.controlplane.ports import free_port
from gpudiag_cli.kubeapi import KubeAPI
from gpudiag_cli.kubeconfig import load
from gpudiag_cli.simulator.cluster import Cluster, Member

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "gpudiag-system"
SETTLE_SECONDS = 60.0
CREATING = (
    "--allow-create",
    "--allow-unattended-create",
    f"--create-namespaces={SYSTEM},team-llm",
    "--create-per-minute=60",  # one assistant asks less; twenty questions in a row do not
)

Mode = Literal["auto", "legacy"]


class StageError(Exception):
    """The system did not come up; the message holds the end of the operator's log."""


class Stage:
    """What runs."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.folder = folder
        self.kubectl: Kubectl = plane.client()
        self.kubeconfig = plane.kubeconfig

    @asynccontextmanager
    async def facade(self, *flags: str, mode: Mode = "auto") -> AsyncIterator[Client]:
        """A started ``gpudiag-mcp`` and the real client of it."""
        arguments = ["-m", "gpudiag_mcp", f"--kubeconfig={self.kubeconfig}", "--log-level=warning", *flags]
        command = StdioServerParameters(command=sys.executable, args=arguments)
        async with Client(command, mode=mode) as client:
            yield client

    def health(self) -> dict[str, str]:
        """Health by node, as the GPUNodes have it."""
        items = self.kubectl.json("get", "gpunodes")["items"]
        return {one["metadata"]["name"]: one.get("status", {}).get("health", "") for one in items}

    def until(self, holds: Callable[[], bool], what: str, seconds: float = SETTLE_SECONDS) -> None:
        """Wait for it.

        Raises:
            StageError: it does not come.
        """
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                log = (self.folder / "operator.log").read_text()[-3000:]
                raise StageError(f"{what}: not within {seconds:.0f} s. {self.health()}\n{log}")
            time.sleep(0.3)

    def install(self, namespaces: Iterable[str]) -> None:
        """The kinds, and the namespaces."""
        names = self.kubectl("apply", "--server-side", "-o", "name", "-f", ROOT / "crds").stdout.split()
        self.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
        for name in (SYSTEM, *namespaces):
            self.kubectl("create", "namespace", name)

    def announce(self, members: Sequence[Member], not_ready: Iterable[str] = ()) -> None:
        """Nodes and agent Pods, as kubelets would make them."""

        async def make() -> None:
            async with KubeAPI(load(self.kubeconfig)) as api:
                cluster = Cluster(api, SYSTEM)
                await cluster.add(members)
                for member in members:
                    if member.name in set(not_ready):
                        await cluster.set_node_ready(member, ready=False)

        asyncio.run(make())


@contextmanager
def staged(
    nodes: Sequence[Prepared],
    *,
    namespaces: Sequence[str] = (),
    not_ready: Iterable[str] = (),
    objects: Sequence[dict[str, Any]] = (),
) -> Iterator[Stage]:
    """The system with these nodes and objects; the operator runs, and has not yet read anything.

    Raises:
        ControlPlaneError: there is no control plane to be had.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpudiag-evals-")))
        stage = Stage(stack.enter_context(ControlPlane.start()), folder)
        stage.install(namespaces)
        agents = stack.enter_context(Agents(nodes))
        stage.announce([Member.of(node) for node in agents.nodes.values()], not_ready)
        if objects:
            stage.kubectl.apply(*objects)
        stack.enter_context(_operator(stage))
        yield stage


@contextmanager
def _operator(stage: Stage) -> Iterator[None]:
    command = [sys.executable, "-m", "gpudiag_operator", "--kubeconfig", str(stage.kubeconfig)]
    command += ["--metrics-addr", f"127.0.0.1:{free_port()}", "--namespace", SYSTEM]
    command += ["--node-timeout", "2s", "--unreachable-after", "2s"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("GPUDIAG_")}
    with (
        (stage.folder / "operator.log").open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=own) as process,
    ):
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
