"""Everything the demo runs: control plane, nodes, agents, simulator, operator; started in order, always stopped.

All of it lives in one folder. The folder goes when the demo ends well; when something failed, the logs stay.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

from gpudiag_cli import kubeconfig as kubeconfigs
from gpudiag_cli.controlplane import ControlPlane, Progress, find_binaries
from gpudiag_cli.controlplane.errors import last_lines, with_lines
from gpudiag_cli.controlplane.ports import free_port
from gpudiag_cli.demo import checkout, programs
from gpudiag_cli.demo.look import Look
from gpudiag_cli.demo.programs import Program
from gpudiag_cli.errors import CommandError
from gpudiag_cli.kubeapi import KubeAPI
from gpudiag_cli.nvmlfake import Machine, build
from gpudiag_cli.simulator.addresses import listen_all
from gpudiag_cli.simulator.cluster import Cluster, Member
from gpudiag_cli.simulator.machines import MACHINES

NAMESPACE = "gpudiag-system"
PORT = 9810
REAL = {"gpu-01": "h100-8", "gpu-02": "t4-1"}
"""Nodes with a real agent: name and machine."""
SIMULATED = ("gpu-03", "gpu-04", "gpu-05", "gpu-06")
NODES = (*REAL, *SIMULATED)
_SCENARIO = """\
# The simulated nodes. Add faults while it runs; save, and they are there:
#   - {node: gpu-03, fault: hot, gpu: 5}
# What can be written here: kubectl-gpudiag simulate --list
nodes:
  - {name: gpu, first: 3, count: 3, machine: h100-8, labels: {pool: training}}
  - {name: gpu, count: 1, machine: a100-8-mig, labels: {pool: shared}}
faults:
"""
_POOLS = {"gpu-01": "training", "gpu-02": "inference"}


class Stage:
    """What runs. Made by :meth:`start`; every part is stopped by :meth:`stop`, whatever happened before."""

    plane: ControlPlane
    look: Look
    operator: Program

    def __init__(self) -> None:
        # The control plane's own prefix: what is left after a SIGKILL is swept away by the next start.
        self.directory = Path(tempfile.mkdtemp(prefix="gpudiag-controlplane-demo-"))
        self.kubeconfig = self.directory / "kubeconfig"
        self.scenario = self.directory / "scenario.yaml"
        self.agents: dict[str, Program] = {}
        self.simulator: Program | None = None
        self._addresses: dict[str, str] = {}
        self._programs: list[Program] = []
        self._cleanup = contextlib.ExitStack()

    # Starting, in this order -------------------------------------------------------------------------------------

    def start_control_plane(self, progress: Progress) -> None:
        """A Kubernetes API; builds its programs first where they are not cached.

        Raises:
            ControlPlaneError: it cannot be had; the message says what to do.
        """
        checkout.require()
        binaries = find_binaries(progress=progress)
        self.plane = ControlPlane.start(self.directory, binaries=binaries, progress=progress)
        self._cleanup.callback(self.plane.stop)
        self.plane.write_kubeconfig(self.kubeconfig, namespace=NAMESPACE)
        self.look = Look(self.kubeconfig)

    def install(self) -> None:
        """The kinds, the namespace, the operator's rights, and the first question: GPUDiagnostic/fleet.

        Raises:
            ControlPlaneError: the API server refuses them.
        """
        kubectl = self.plane.client(self.kubeconfig)
        names = kubectl("apply", "--server-side", "--output=name", "--filename", checkout.CRDS).stdout.split()
        kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
        # It looks for new kinds twice a minute only, and GPUNodes are to go with their Nodes.
        self.plane.restart_controller_manager()
        files = [argument for name in checkout.BASE for argument in ("--filename", checkout.MANIFESTS / name)]
        kubectl("apply", "--server-side", *files)
        kubectl("apply", "--server-side", "--filename", checkout.FLEET)

    def start_agents(self) -> None:
        """Two real agents over the stand-in for NVML.

        Raises:
            CommandError: there is no C compiler, or no free address.
        """
        library = build(_cache() / "nvmlfake")
        empty = self.directory / "sysfs"
        empty.mkdir()
        for (name, machine), address in zip(REAL.items(), _free_addresses(len(REAL)), strict=True):
            self.kmsg(name).touch()
            fake = Machine.create(machine, self.directory / f"{name}.nvml", node=name)
            self._addresses[name] = address
            self.agents[name] = self._run(
                programs.agent(
                    name,
                    address,
                    PORT,
                    kmsg=self.kmsg(name),
                    sysfs=empty,
                    environment=fake.environment(library),
                    log=self.log(name),
                )
            )

    def agents_ready(self) -> bool:
        """Whether both real agents have a report."""
        return all(_answers(f"http://{address}:{PORT}/readyz") for address in self._addresses.values())

    def announce_agents(self) -> None:
        """Nodes and Pods for the real agents, as kubelets would make them when their probes succeed.

        Raises:
            CommandError: the API server refuses them.
        """
        asyncio.run(self._add([_member(name, REAL[name], address) for name, address in self._addresses.items()]))

    def start_simulator(self) -> None:
        """Four simulated nodes, following the scenario file."""
        self.scenario.write_text(_SCENARIO, encoding="utf-8")
        self.simulator = self._run(programs.simulator(self.kubeconfig, self.scenario, self.log("simulator")))

    def start_operator(self) -> None:
        """The operator, with its own service account and no more than that one's rights."""
        path = self.plane.service_account_kubeconfig(self.directory / "operator.kubeconfig", "gpudiag-operator")
        self.operator = self._run(programs.operator(path, free_port(), self.log("operator")))

    # While it runs -----------------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str) -> str:
        """What a command says, as a person with the printed KUBECONFIG would read it."""
        return self.plane.client(self.kubeconfig)(*arguments).stdout

    def kmsg(self, node: str) -> Path:
        """The kernel log of a real agent's node: what is added to it, the kernel said."""
        return self.directory / f"{node}.kmsg"

    def log(self, name: str) -> Path:
        """The log of a program."""
        return self.directory / f"{name}.log"

    def check(self) -> None:
        """Make sure that everything runs that should.

        Raises:
            CommandError: a program has ended on its own; with the end of its log.
            ControlPlaneError: one of the control plane's has.
        """
        self.plane.check()
        for program in self._programs:
            if (status := program.ended) is not None:
                raise CommandError(_ended(program, status))

    @property
    def programs(self) -> Sequence[Program]:
        """What runs beside the control plane."""
        return tuple(self._programs)

    # The end -----------------------------------------------------------------------------------------------------

    def stop(self, *, keep_logs: bool = False) -> Path | None:
        """Stop everything and remove the folder; gives where the logs are, if any are to be kept."""
        try:
            with contextlib.ExitStack() as last_first:
                last_first.callback(self._cleanup.close)
                for program in self._programs:
                    last_first.callback(program.stop)
            return _keep_logs(self.directory) if keep_logs else None
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _run(self, program: Program) -> Program:
        self._programs.append(program)
        program.start()
        return program

    async def _add(self, members: Sequence[Member]) -> None:
        async with KubeAPI(kubeconfigs.load(self.kubeconfig)) as api:
            await Cluster(api, NAMESPACE).add(members)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310 (our own agent)
            return bool(response.status == HTTPStatus.OK)
    except OSError:
        return False


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "gpudiag"


def _member(name: str, machine: str, address: str) -> Member:
    model = MACHINES[machine]
    labels = {"pool": _POOLS[name]}
    return Member(name=name, address=address, port=PORT, gpus=model.gpu_count, model=model.model, labels=labels)


def _free_addresses(count: int) -> list[str]:
    """Loopback addresses on which nobody listens."""
    bound = listen_all(count, PORT)
    found = [str(each.getsockname()[0]) for each in bound]
    for each in bound:
        each.close()
    return found


def _ended(program: Program, status: int) -> str:
    how = f"with status {status}" if status >= 0 else f"by signal {-status}"
    return with_lines(f"The {program.name} ended {how}. Its log said last:", last_lines(program.log, 15))


def _keep_logs(directory: Path) -> Path | None:
    logs = [path for pattern in ("*.log", "*.kmsg", "scenario.yaml") for path in directory.glob(pattern)]
    if not logs:
        return None
    kept = Path(tempfile.mkdtemp(prefix="gpudiag-demo-logs-"))
    for log in logs:
        shutil.copy(log, kept)
    return kept
