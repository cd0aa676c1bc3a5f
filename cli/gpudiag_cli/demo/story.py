"""What the demo shows, and what makes each thing it shows true or false.

Every sentence with a tick rests on something read from the API server. What is not so ends the demo with a sentence
that says what was expected and what was found.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from gpudiag_cli.controlplane import Progress
from gpudiag_cli.demo.look import condition
from gpudiag_cli.demo.narrator import Narrator
from gpudiag_cli.demo.programs import BREAKER_OPEN_SECONDS
from gpudiag_cli.demo.stage import NAMESPACE, NODES, REAL, Stage
from gpudiag_cli.errors import CommandError

SICK, KILLED = REAL
"""The node whose GPU falls off the bus, and the node whose agent is killed."""
SICK_GPU = 2
_START_SECONDS = 60.0
_FAULT_SECONDS = 30.0
_BREAKER_SECONDS = 60.0
_RECOVERY_SECONDS = 90.0

Status = dict[str, Any]
_T = TypeVar("_T")


_LINES = {
    79: "GPU has fallen off the bus.",
    154: "GPU recovery action changed from 0x2 (OS Reboot) to 0x0 (None)",
}


def xid_line(stage: Stage, code: int) -> str:
    """The kernel's line for an XID on the GPU in question; it names the slot, without the PCI function."""
    pci = str(stage.look.node(SICK)["gpus"][SICK_GPU]["pci"])
    return f"NVRM: Xid (PCI:{pci.rpartition('.')[0]}): {code}, {_LINES[code]}"


class Story:
    """The scenes, in order; each raises CommandError when something it shows is not so."""

    def __init__(self, stage: Stage, narrator: Narrator) -> None:
        self._stage = stage
        self._tell = narrator

    # Scenes ------------------------------------------------------------------------------------------------------

    def control_plane(self) -> None:
        """A real API server, and our kinds in it."""
        self._tell.step("A Kubernetes API server, on this machine alone")
        self._timed(
            "etcd, kube-apiserver and its garbage collector run", lambda: self._stage.start_control_plane(Progress())
        )
        self._timed("kinds, rights and GPUDiagnostic/fleet are applied", self._stage.install)

    def nodes(self) -> None:
        """Six GPU nodes, and the operator that is to find them."""
        self._tell.step("Six GPU nodes and the operator")
        started = self._tell.elapsed
        self._stage.start_agents()
        self._stage.start_simulator()
        self._until(
            "the agents to have looked at their GPUs", lambda: self._stage.agents_ready() or None, _START_SECONDS
        )
        self._stage.announce_agents()
        self._tell.done(f"{SICK} and {KILLED}: gpudiag-agent over a stand-in for NVML", self._tell.elapsed - started)
        self._until("the simulated nodes", self._all_nodes, _START_SECONDS)
        seconds = self._tell.elapsed - started
        self._tell.done(f"{NODES[len(REAL)]} to {NODES[-1]}: simulated agents", seconds)
        self._stage.start_operator()
        _, seconds = self._until("GPUDiagnostic/fleet to be Healthy", self._fleet_is("Healthy"), _START_SECONDS)
        self._tell.done("gpudiag-operator has read them all: the fleet is Healthy", seconds)
        self._show("get gpud,gn")
        summary = self._fleet()["summary"]
        self._expect("every node reports", summary["nodes"]["reporting"], len(NODES))

    def sick_gpu(self) -> None:
        """A kernel line about a GPU that is gone becomes a verdict."""
        self._tell.step(f"A GPU of {SICK} falls off the bus: the kernel says XID 79")
        self._kernel_says(xid_line(self._stage, 79))
        status, seconds = self._until(f"{SICK} to be Unhealthy", self._node_is(SICK, "Unhealthy"), _FAULT_SECONDS)
        self._tell.done(f"in the status of GPUNode {SICK}: {status['reason']}, {status['recommendedAction']}", seconds)
        self._expect("the XID is listed", [event["code"] for event in status["xids"]], [79])
        sick = [each["index"] for each in status["gpus"] if each["health"] == "Unhealthy"]
        self._expect("no other GPU is blamed", sick, [SICK_GPU])
        _, seconds = self._until("the fleet to be Unhealthy", self._fleet_is("Unhealthy"), _FAULT_SECONDS)
        self._tell.done("in the verdict of GPUDiagnostic/fleet", seconds)
        self._show("get gn --field-selector status.health=Unhealthy")

    def dead_agent(self) -> None:
        """No data is not healthy, and one silent node costs nothing but itself."""
        self._tell.step(f"The agent of {KILLED} is killed")
        self._tell.command(f"kill -9 <gpudiag-agent of {KILLED}>")
        self._stage.agents[KILLED].kill()
        self._tell.note("A node that is silent for 15 s is Unknown: long enough for an agent to be rolled out.")
        status, seconds = self._until(f"{KILLED} to be Unknown", self._node_is(KILLED, "Unknown"), _BREAKER_SECONDS)
        self._tell.done(f"{KILLED} is Unknown: {condition(status, 'AgentReachable')[1]}", seconds)
        status, seconds = self._until("its breaker to open", self._breaker_is("Open"), _BREAKER_SECONDS)
        self._tell.done("its circuit breaker is open: no call is wasted on it", seconds)
        self._until("the fleet to say so", self._failed_nodes_are(1), _FAULT_SECONDS)
        self._show("get gpud,gn")
        others = {name: each for name, each in self._stage.look.nodes().items() if name != KILLED}
        unread = [name for name, each in others.items() if condition(each, "AgentReachable")[0] != "True"]
        self._expect("every other node is still read", unread, [])
        healthy = sorted(name for name, each in others.items() if each["health"] == "Healthy")
        self._expect("every other node is judged as before", healthy, sorted(set(NODES) - {SICK, KILLED}))
        self._tell.done("every other node is still reported")

    def recovery(self) -> None:
        """Both faults go, and the fleet is as before."""
        self._tell.step("Recovery")
        self._stage.agents[KILLED].start()
        self._kernel_says(xid_line(self._stage, 154))
        _, seconds = self._until(f"{SICK} to be Healthy", self._node_is(SICK, "Healthy"), _FAULT_SECONDS)
        self._tell.done(f"{SICK} is Healthy: its driver says that the GPU is back", seconds)
        self._tell.note(
            f"The agent of {KILLED} was started again. Its breaker lets a probe through when its time is up"
        )
        self._tell.note(
            f"(here every {BREAKER_OPEN_SECONDS} s; by default after 30 s, then ever later); two answers close it."
        )
        _, seconds = self._until("the breaker to close", self._breaker_is("Closed"), _RECOVERY_SECONDS)
        self._until(f"{KILLED} to be Healthy", self._node_is(KILLED, "Healthy"), _FAULT_SECONDS)
        self._tell.done(f"{KILLED} is read again and Healthy, its breaker closed", seconds)
        self._tell.note("A verdict worsens at once and improves at most every spec.interval, 30 s.")
        _, seconds = self._until("the fleet to be Healthy", self._fleet_is("Healthy"), _FAULT_SECONDS * 2)
        self._tell.done("GPUDiagnostic/fleet is Healthy", seconds)
        self._show("get gpud,gn")

    def _kernel_says(self, line: str) -> None:
        self._tell.command(f"echo '{line}' >> {SICK}.kmsg")
        with self._stage.kmsg(SICK).open("a", encoding="utf-8") as log:
            log.write(line + "\n")

    # Looking -----------------------------------------------------------------------------------------------------

    def _fleet(self) -> Status:
        return self._stage.look.diagnostic("fleet", NAMESPACE)

    def _fleet_is(self, verdict: str) -> Callable[[], Status | None]:
        def look() -> Status | None:
            status = self._fleet()
            everyone = status.get("summary", {}).get("nodes", {}).get("targeted") == len(NODES)
            return status if everyone and status.get("verdict") == verdict else None

        return look

    def _failed_nodes_are(self, count: int) -> Callable[[], Status | None]:
        def look() -> Status | None:
            nodes = self._fleet().get("summary", {}).get("nodes", {})
            return nodes if nodes.get("failed", 0) + nodes.get("skipped", 0) == count else None

        return look

    def _node_is(self, name: str, health: str) -> Callable[[], Status | None]:
        def look() -> Status | None:
            status = self._stage.look.node(name)
            return status if status.get("health") == health else None

        return look

    def _breaker_is(self, state: str) -> Callable[[], Status | None]:
        def look() -> Status | None:
            status = self._stage.look.node(KILLED)
            return status if status.get("breaker", {}).get("state") == state else None

        return look

    def _all_nodes(self) -> bool | None:
        found = self._stage.look.get(f"/api/v1/namespaces/{NAMESPACE}/pods") or {}
        return len(found.get("items", [])) == len(NODES) or None

    # Telling -----------------------------------------------------------------------------------------------------

    def _show(self, command: str) -> None:
        self._tell.command(f"kubectl {command}", self._stage.kubectl(*command.split()))

    def _timed(self, what: str, act: Callable[[], None]) -> None:
        started = self._tell.elapsed
        act()
        self._tell.done(what, self._tell.elapsed - started)

    def _until(self, what: str, look: Callable[[], _T | None], within: float) -> tuple[_T, float]:
        def watch() -> _T | None:
            self._stage.check()
            return look()

        return self._tell.wait(what, watch, within=within, explain=self._how_things_stand)

    def _how_things_stand(self) -> str:
        nodes = self._stage.look.nodes().items()
        each = ", ".join(f"{name} {status.get('health')} ({status.get('reason')})" for name, status in sorted(nodes))
        fleet = self._fleet()
        return f"GPUDiagnostic/fleet is {fleet.get('verdict', 'without status')}; GPUNodes: {each or 'none'}."

    def _expect(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            raise CommandError(f"It is not so that {what}: expected {expected}, found {found}.")
