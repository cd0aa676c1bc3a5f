"""A simulated fleet on the shared control plane, and what the real operator process makes of it.

The rig of ``tests/cluster/operator`` starts the operator; here agents are the simulator's, because it knows every way
in which an agent can misbehave. Nothing waits blindly: ``until`` polls, and its failure says what was seen last.
"""

import json
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.cluster.operator.conftest import OperatorProcess, Rig

from gpudiag_cli import kubeconfig
from gpudiag_cli.kubeapi import APIError, KubeAPI
from gpudiag_cli.simulator import MACHINES, Cluster, Fleet, Member, NodeSpec

T = TypeVar("T")
Said = dict[str, tuple[str, str]]
"""(health, reason) by node."""

_GROUP = "/apis/gpudiag.dev/v1alpha1"
_TIMES = {
    "lastTransitionTime",
    "sampledAt",
    "openedAt",
    "startedAt",
    "finishedAt",
    "lastConfirmedAt",
    "at",
    "runID",
    "openFor",
    "failures",
    "lastSeen",
}
_CLOCK = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z|\d+(\.\d+)? ?s\b|after \d+ failures")


def t4(*names: str, **labels: str) -> list[NodeSpec]:
    """Small nodes: one GPU each."""
    return [NodeSpec(name=name, machine=MACHINES["t4-1"], labels=labels) for name in names]


def until(
    look: Callable[[], T], wanted: Callable[[T], object], *, seconds: float, what: str, log: Callable[[], str]
) -> T:
    """Poll until what is seen is as wanted, and give it; a time-out says what was seen last."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if wanted(seen):
            return seen
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}\nlast seen: {seen!r}\n{log()}"
        time.sleep(0.1)


def normalised(value: Any) -> Any:
    """A status without what may differ between two processes that know the same: times and counters."""
    if isinstance(value, dict):
        return {key: normalised(each) for key, each in value.items() if key not in _TIMES}
    if isinstance(value, list):
        return [normalised(each) for each in value]
    return _CLOCK.sub("…", value) if isinstance(value, str) else value


class World:
    """Fleet, Nodes, Pods and operator of one test module."""

    def __init__(
        self, rig: Rig, specs: Sequence[NodeSpec], *, front: Callable[[Member], Awaitable[Member]] | None = None
    ) -> None:
        """``front`` puts something in front of an agent and gives it as the operator shall find it."""
        self.rig = rig
        self.fleet = Fleet(specs)
        self._api = KubeAPI(kubeconfig.load(rig.plane.kubeconfig))
        self.cluster = Cluster(self._api, rig.namespace)
        self.members: dict[str, Member] = {}
        self.do(self.fleet.start())
        self.do(self._api.__aenter__())
        members = [Member.of(node) for node in self.fleet.nodes.values()]
        self.join(members if front is None else [self.do(front(member)) for member in members])

    def close(self) -> None:
        for one in self.rig.operators:
            if one.process.poll() is None:
                one.stop()
        self.do(self.fleet.stop())
        self.do(self.cluster.remove(self.members.values()))
        self.forget()
        self.do(self._api.__aexit__(None, None, None))
        self.rig.close()

    def forget(self) -> None:
        """Delete every GPUNode."""
        for name in self.members:
            self.do(self._api.delete(f"{_GROUP}/gpunodes/{name}"))

    def do(self, work: Any) -> Any:
        return self.rig.thread.do(work)

    # What happens ------------------------------------------------------------------------------------------------

    def start(self, *flags: str, ready: bool = True, environment: Mapping[str, str] | None = None) -> OperatorProcess:
        """The operator, its calls long enough for a busy machine."""
        calls = ("--node-timeout", "2s", "--unreachable-after", "2s")
        return self.rig.start(*calls, *flags, ready=ready, environment=environment)

    def join(self, members: Iterable[Member]) -> None:
        """Nodes and Pods for agents, whoever serves them."""
        new = {member.name: member for member in members}
        self.members |= new
        self.do(self.cluster.add(new.values()))

    def fault(self, node: str, fault: str) -> None:
        self.do(self.fleet.set_fault(node, fault))

    def heal(self, *nodes: str) -> None:
        for node in nodes:
            self.do(self.fleet.clear(node))

    def remove_node(self, name: str) -> None:
        """The Node first, then its Pod, as when a machine is scaled away."""
        self.do(self._api.delete(f"/api/v1/nodes/{name}"))
        self.do(self.cluster.remove_pod(self.members[name]))

    # What is seen ------------------------------------------------------------------------------------------------

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """An object or a list; empty when there is none."""
        try:
            found: dict[str, Any] = self.do(self._api.get(path, **query))
        except APIError as error:
            if error.status != 404:
                raise
            return {}
        return found

    def apply(self, path: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Apply an object; raises APIError."""
        found: dict[str, Any] = self.do(self._api.apply(path, manifest))
        return found

    def gpunodes(self) -> dict[str, dict[str, Any]]:
        """Every GPUNode of this world, by name."""
        items = self.get(f"{_GROUP}/gpunodes")["items"]
        return {item["metadata"]["name"]: item for item in items if item["metadata"]["name"] in self.members}

    def said(self) -> Said:
        """(health, reason) of every GPUNode that has a status."""
        found = {name: item.get("status") for name, item in self.gpunodes().items()}
        return {name: (status["health"], status["reason"]) for name, status in found.items() if status}

    def diagnostic(self, name: str) -> dict[str, Any]:
        """The status of a GPUDiagnostic."""
        path = f"{_GROUP}/namespaces/{self.rig.namespace}/gpudiagnostics/{name}"
        status: dict[str, Any] = self.get(path).get("status", {})
        return status

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        return next((one for one in self.diagnostic(name).get("conditions", []) if one["type"] == kind), {})

    def events(self, node: str) -> list[dict[str, Any]]:
        """Events about the present GPUNode of that name."""
        uid = self.get(f"{_GROUP}/gpunodes/{node}").get("metadata", {}).get("uid", "")
        found: list[dict[str, Any]] = self.get(
            "/api/v1/namespaces/default/events", fieldSelector=f"involvedObject.uid={uid}"
        )["items"]
        return found

    def statuses(self, *diagnostics: str) -> dict[str, Any]:
        """All that the operator has to say, comparable between two of its lives."""
        nodes = {name: normalised(item.get("status")) for name, item in self.gpunodes().items()}
        return nodes | {f"diagnostic {name}": normalised(self.diagnostic(name)) for name in diagnostics}

    def versions(self, *diagnostics: str) -> dict[str, str]:
        """Resource versions: they move with every write."""
        found = {name: item["metadata"]["resourceVersion"] for name, item in self.gpunodes().items()}
        for name in diagnostics:
            path = f"{_GROUP}/namespaces/{self.rig.namespace}/gpudiagnostics/{name}"
            found[f"diagnostic {name}"] = self.get(path)["metadata"]["resourceVersion"]
        return found

    # Waiting -----------------------------------------------------------------------------------------------------

    def log(self) -> str:
        return f"the operator said:\n{self.rig.tail()}"

    def until(self, look: Callable[[], T], wanted: Callable[[T], object], *, seconds: float = 20, what: str) -> T:
        return until(look, wanted, seconds=seconds, what=what, log=self.log)

    def until_said(self, wanted: Said, *, seconds: float = 30) -> None:
        """Wait until these nodes have these healths and reasons; says which have not."""

        def missing() -> dict[str, Any]:
            said = self.said()
            return {name: said.get(name) for name, each in wanted.items() if said.get(name) != each}

        self.until(missing, lambda left: not left, seconds=seconds, what=f"{json.dumps(wanted)}; shown are those amiss")

    def until_verdict(self, name: str, verdict: str, *, seconds: float = 30) -> dict[str, Any]:
        return self.until(
            lambda: self.diagnostic(name),
            lambda status: status.get("verdict") == verdict and status.get("summary"),
            seconds=seconds,
            what=f"verdict {verdict} of {name}",
        )

    def until_complete(self, name: str, *, seconds: float) -> dict[str, Any]:
        self.until(
            lambda: self.condition(name, "Complete"),
            lambda complete: complete.get("status") == "True",
            seconds=seconds,
            what=f"{name} is Complete",
        )
        return self.diagnostic(name)

    def until_quiet(self, operator: OperatorProcess) -> None:
        """Nothing waits to be written."""
        self.until(
            lambda: operator.metric("gpudiag_operator_queue_depth"),
            lambda depth: depth == 0,
            seconds=30,
            what="the operator has written everything",
        )


def memory(pid: int, field: str) -> int:
    """VmRSS or VmHWM of a process, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise AssertionError(f"/proc/{pid}/status has no {field}")
