"""A scheduler with a clock of the test's own, for the tests of when a status moves and what Once promises."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_api.times import to_rfc3339
from gpudiag_api.vocabulary import Action, Blame, Health, NotRead, Severity
from gpudiag_api.wire import GPU, Finding, Subject
from gpudiag_operator.diagnostics.once import OnceRuns
from gpudiag_operator.diagnostics.ports import Surroundings
from gpudiag_operator.diagnostics.registry import Diagnostic, DiagnosticRegistry, Key
from gpudiag_operator.diagnostics.scheduler import Scheduler
from gpudiag_operator.diagnostics.targets import TargetIndex
from gpudiag_operator.domain import Failure, NodeState
from gpudiag_operator.store import MemoryNodeStore

START = 1_800_000_000.0


def node(name: str, health: Health = Health.HEALTHY, **labels: str) -> NodeState:
    gpu = GPU(index=0, uuid=f"GPU-{name}", pci="0000:01:00.0", model="H100", health=health)
    findings: tuple[Finding, ...] = ()
    if health is Health.UNHEALTHY:
        findings = (
            Finding(
                check="GPULost",
                reason="FallenOffBus",
                severity=Severity.CRITICAL,
                blame=Blame.HARDWARE,
                action=Action.REBOOT_NODE,
                message="GPU 0 has fallen off the bus",
                subject=Subject(gpu_index=0, gpu_uuid=gpu.uuid),
                first_seen=to_rfc3339(START),
                last_seen=to_rfc3339(START),
            ),
        )
    reason = "FallenOffBus" if findings else "AllHealthy"
    return NodeState(name=name, health=health, reason=reason, gpus=(gpu,), findings=findings, labels=labels)


def unread(name: str, reason: NotRead) -> NodeState:
    failure = Failure(reason=reason, message="no answer", since=START)
    return NodeState(name=name, health=Health.UNKNOWN, reason=str(reason), failure=failure)


def body(name: str = "d", *, generation: int = 1, uid: str = "", status: Any = None, **spec: Any) -> dict[str, Any]:
    body.version += 1  # type: ignore[attr-defined]
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": uid or f"uid-{name}",
            "generation": generation,
            "resourceVersion": str(body.version),  # type: ignore[attr-defined]
            "creationTimestamp": to_rfc3339(START),
        },
        "spec": spec,
        **({"status": status} if status else {}),
    }


body.version = 0  # type: ignore[attr-defined]


@dataclass
class Written:
    """The writer's and the deleter's place: remembers, and stores as the API server would."""

    submitted: list[tuple[str, GPUDiagnosticStatus]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def submit(self, key: Key, uid: str, *, previous: GPUDiagnosticStatus | None, status: GPUDiagnosticStatus) -> None:
        self.submitted.append((key.name, status))

    def forget(self, key: Key) -> None:
        pass

    def delete(self, diagnostic: Diagnostic) -> None:
        self.deleted.append(diagnostic.key.name)

    def take(self) -> list[GPUDiagnosticStatus]:
        taken = [status for _, status in self.submitted]
        self.submitted.clear()
        return taken


class Rig:
    """A scheduler whose time passes by ``pass_time`` and whose fresh reads end by ``answer``."""

    def __init__(self, *, runs: int = 1, most: int = 100) -> None:
        self.now = 0.0
        self.is_warm = True
        self.stale = ""
        self.unwritten: dict[str, Mapping[str, str]] = {}
        self.critical: list[frozenset[int]] = []
        self.store = MemoryNodeStore()
        self.written = Written()
        self.reads: list[tuple[Sequence[str], str, asyncio.Future[None]]] = []
        self.fresh: dict[str, NodeState] = {}
        self.fulls: list[bool] = []
        self.registry = DiagnosticRegistry(self.notice, most=most, most_per_namespace=most)
        self.scheduler = Scheduler(
            self.registry,
            TargetIndex(self.store),
            writer=self.written,
            deleter=self.written,
            runs=lambda freed: OnceRuns(
                self.read, most=runs, wall=lambda: START + self.now, monotonic=lambda: self.now, freed=freed
            ),
            around=Surroundings(
                warm=lambda: self.is_warm,
                stale=lambda: self.stale,
                critical_xids=self.critical.append,
                monotonic=lambda: self.now,
                wall=lambda: START + self.now,
                own_namespace="gpudiag-system",
                unwritten=lambda: self.unwritten,
            ),
        )
        self.store.subscribe(self.scheduler.node_changed)

    def notice(self, key: Key) -> None:
        self.scheduler.notice(key)

    async def read(self, names: Sequence[str], deadline: float, run_id: str, *, full: bool) -> Mapping[str, NodeState]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.fulls.append(full)
        self.reads.append((names, run_id, future))
        await future
        return {name: self.fresh.get(name) or node(name) for name in names}

    async def answer(self) -> None:
        """The oldest read comes back."""
        self.reads.pop(0)[2].set_result(None)
        await self.settle()

    async def settle(self) -> list[GPUDiagnosticStatus]:
        for _ in range(5):
            await asyncio.sleep(0)
            self.scheduler.step()
        return self.written.take()

    def pass_time(self, seconds: float) -> list[GPUDiagnosticStatus]:
        """Let time pass, step by step as the scheduler asks for it; gives what was written."""
        end = self.now + seconds
        while True:
            delay = self.scheduler.step()
            if self.now + delay > end or delay == float("inf"):
                break
            self.now += max(delay, 0.001)
        self.now = end
        self.scheduler.step()
        return self.written.take()


def conditions(status: GPUDiagnosticStatus) -> dict[str, tuple[str, str]]:
    return {one.type: (one.status, one.reason) for one in status.conditions}


def stored(status: GPUDiagnosticStatus) -> dict[str, Any]:
    return status.model_dump(by_alias=True, exclude_none=True, mode="json")
