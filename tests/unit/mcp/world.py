"""A small world for tests of the facade: GPUNodes and GPUDiagnostics as JSON, and an API server in memory."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from gpudiag_api.times import to_rfc3339
from gpudiag_mcp.cache.fleet import FleetCopy, Place
from gpudiag_mcp.cache.pool import Caches
from gpudiag_mcp.create.creating import Creator
from gpudiag_mcp.create.policy import Policy
from gpudiag_mcp.kube.api import GPUDIAGNOSTICS, GPUNODES, LEASES, Headers, JSONObject, Page, Resource, WatchEvent
from gpudiag_mcp.kube.errors import ApiError
from gpudiag_mcp.metrics import Metrics
from gpudiag_mcp.objects.diagnostic import GPUDiagnostic, diagnostic_from_json
from gpudiag_mcp.objects.node import GPUNode, node_from_json
from gpudiag_mcp.service import Service

NOW = 1_800_000_000.0
MODEL = "NVIDIA H100 80GB HBM3"


def ago(seconds: float) -> str:
    return to_rfc3339(NOW - seconds)


def finding(**changes: Any) -> dict[str, Any]:
    return {
        "check": "ECCUncorrectable",
        "reason": "VolatileUncorrectableErrors",
        "severity": "Critical",
        "blame": "Hardware",
        "recommendedAction": "DrainAndResetGPU",
        "message": "2 uncorrectable errors since the driver was loaded",
        "subject": {"gpu": 0},
        "evidence": [{"name": "volatileUncorrectable", "value": "2", "threshold": "0"}],
        "firstSeen": ago(600),
        "count": 2,
        **changes,
    }


def xid(code: int = 79, **changes: Any) -> dict[str, Any]:
    return {
        "code": code,
        "name": "GPU_HAS_FALLEN_OFF_THE_BUS",
        "severity": "Critical",
        "blame": "Hardware",
        "recommendedAction": "RebootNode",
        "message": f"NVRM: Xid (PCI:0000:10:00): {code}, GPU has fallen off the bus.",
        "subject": {"gpu": 0},
        "id": f"boot:{code}",
        "firstSeen": ago(500),
        "lastSeen": ago(400),
        "count": 3,
        **changes,
    }


def gpu(node: str, index: int, **changes: Any) -> dict[str, Any]:
    return {
        "index": index,
        "uuid": f"GPU-{node}-{index}",
        "pci": f"0000:{index + 16:02x}:00.0",
        "model": MODEL,
        "memoryBytes": 80 << 30,
        "health": "Healthy",
        **changes,
    }


def allocation(node: str, index: int, pod: str, namespace: str = "team-a") -> dict[str, Any]:
    return {"gpuUUID": f"GPU-{node}-{index}", "namespace": namespace, "pod": pod, "container": "main"}


def node(name: str, *, health: str = "Healthy", gpus: int = 2, spec: Any = None, **status: Any) -> dict[str, Any]:
    """A GPUNode as the API server gives it. Not Healthy: its GPU 0 has that health."""
    listed = status.pop("gpu_list", None) or [gpu(name, index) for index in range(gpus)]
    if health != "Healthy" and listed and listed[0]["health"] == "Healthy":
        listed[0] |= {"health": health, "reason": status.get("reason", "Unspecified")}
    bad = sum(one["health"] != "Healthy" for one in listed)
    read = health != "Unknown"
    return {
        "apiVersion": "gpudiag.dev/v1alpha1",
        "kind": "GPUNode",
        "metadata": {"name": name, "resourceVersion": "1"},
        "spec": spec or {},
        "status": {
            "conditions": [
                condition("Ready", read, "Fresh" if read else "NotRead"),
                condition("AgentReachable", read, "Reachable" if read else status.get("reason", "Timeout")),
            ],
            "health": health,
            "reason": "" if health == "Healthy" else "Unspecified",
            "recommendedAction": "None",
            "driverVersion": "570.133.20",
            "cudaVersion": "12.8",
            "model": MODEL,
            "gpuCounts": {"total": len(listed), "healthy": len(listed) - bad, health.lower(): bad}
            if bad
            else {"total": len(listed), "healthy": len(listed)},
            "gpus": listed,
            "agent": {"podName": f"agent-{name}", "ready": read, "reachable": read, "version": "0.1.0"},
            "breaker": {"state": "Closed"},
            "sampledAt": ago(20),
            **status,
        },
    }


def condition(kind: str, holds: bool, reason: str, message: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if holds else "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": ago(300),
        "observedGeneration": 1,
    }


def diagnostic(
    name: str = "fleet", namespace: str = "gpudiag-system", *, spec: Any = None, **status: Any
) -> dict[str, Any]:
    """A GPUDiagnostic as the API server gives it; Continuous and judged unless changed."""
    spec = spec if spec is not None else {}
    once = spec.get("mode") == "Once"
    return {
        "apiVersion": "gpudiag.dev/v1alpha1",
        "kind": "GPUDiagnostic",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": ago(120),
        },
        "spec": spec,
        "status": {
            "observedGeneration": 1,
            "conditions": [condition("Complete", True, "Succeeded") if once else condition("Ready", True, "Fresh")],
            "verdict": "Healthy",
            "recommendedAction": "None",
            "startedAt": ago(62),
            "finishedAt": ago(60),
            "lastConfirmedAt": ago(60),
            "summary": {"nodes": {"targeted": 2, "reporting": 2}, "gpus": {"total": 4, "healthy": 4}},
            **status,
        },
    }


def full(name: str, of: str, **changes: Any) -> dict[str, Any]:
    """A finished Full diagnostic of one node."""
    points = [
        {"at": ago(600 - 10 * at), "temperatureCelsius": 60 + at, "powerWatts": 300.0, "utilizationPercent": 90.0}
        for at in range(6)
    ]
    result = {
        "node": of,
        "timeline": [{"gpu": 0, "points": points}, {"gpu": 1, "points": points}],
        "topology": {
            "links": [{"gpu": 0, "peer": 1, "kind": "NVLink", "links": 18}],
            "placement": [{"gpu": 0, "numaNode": 0, "pcieGeneration": 5, "pcieWidth": 16}],
        },
        "processes": [{"gpu": 0, "pid": 4711, "name": "python train.py", "memoryBytes": 1 << 30}],
        **changes,
    }
    spec = {"mode": "Once", "detail": "Full", "target": {"nodeNames": [of]}}
    return diagnostic(name, spec=spec, results=[result])


def nodes(*objects: dict[str, Any]) -> list[GPUNode]:
    return [node_from_json(json.dumps(one).encode()) for one in objects]


def diagnostics(*objects: dict[str, Any]) -> list[GPUDiagnostic]:
    return [diagnostic_from_json(json.dumps(one).encode()) for one in objects]


class FakeAPI:
    """Behaves like the API server as far as the facade asks it; ``refuse`` maps (verb, plural) to an error status."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.stored: dict[str, dict[str, dict[str, Any]]] = {"gpunodes": {}, "gpudiagnostics": {}, "leases": {}}
        self.refuse: dict[tuple[str, str], ApiError | Exception] = {}
        self.created: list[tuple[JSONObject, bool, Headers]] = []
        self.lists = 0
        self.closed = False
        self.finish_created = False
        self._log: list[tuple[str, WatchEvent]] = []
        self._changed = asyncio.Event()
        self._broken: dict[str, Exception] = {}
        for one in (*objects, lease()):
            self.put(one, "ADDED")

    def put(self, one: dict[str, Any], kind: str = "MODIFIED") -> None:
        plural = {"GPUNode": "gpunodes", "GPUDiagnostic": "gpudiagnostics", "Lease": "leases"}[one["kind"]]
        self.stored[plural][_key(one)] = one
        self._tell(plural, kind, one)

    def remove(self, plural: str, key: str) -> None:
        self._tell(plural, "DELETED", self.stored[plural].pop(key))

    def fail_watches(self, plural: str, error: Exception) -> None:
        self.refuse["list", plural] = self.refuse["watch", plural] = error
        self._broken[plural] = error
        self._wake()

    def _tell(self, plural: str, kind: str, one: dict[str, Any]) -> None:
        version = {"metadata": {**one["metadata"], "resourceVersion": str(len(self._log) + 1)}}
        self._log.append((plural, WatchEvent(kind, msgspec.Raw(json.dumps({**one, **version}).encode()))))
        self._wake()

    def _wake(self) -> None:
        self._changed, changed = asyncio.Event(), self._changed
        changed.set()

    def _check(self, verb: str, resource: Resource, namespace: str = "", name: str = "") -> None:
        refused = self.refuse.get((verb, resource.plural))
        if isinstance(refused, ApiError):
            raise ApiError(
                refused.status,
                refused.reason,
                refused.message,
                verb=verb,
                resource=resource.plural,
                group=resource.group,
                namespace=namespace,
                name=name,
            )
        if refused is not None:
            raise refused

    async def pages(self, resource: Resource, *, namespace: str = "", limit: int = 500) -> AsyncGenerator[Page, None]:
        self.lists += 1
        self._check("list", resource, namespace)
        found = [
            msgspec.Raw(json.dumps(one).encode())
            for one in self.stored[resource.plural].values()
            if not namespace or one["metadata"]["namespace"] == namespace
        ]
        yield Page(found, str(len(self._log)), final=True)

    async def watch(
        self, resource: Resource, *, resource_version: str, timeout_seconds: int
    ) -> AsyncGenerator[WatchEvent | None, None]:
        self._check("watch", resource)
        yield None
        at = int(resource_version or 0)
        while True:
            changed = self._changed
            for plural, event in self._log[at:]:
                if plural == resource.plural:
                    yield event
            at = len(self._log)
            if broken := self._broken.get(resource.plural):
                self._check("watch", resource)
                raise broken
            await changed.wait()

    async def get(self, resource: Resource, name: str, *, namespace: str = "") -> bytes:
        self._check("get", resource, namespace, name)
        one = self.stored[resource.plural].get(f"{namespace}/{name}" if namespace else name)
        if one is None:
            raise ApiError(404, "NotFound", "", verb="get", resource=resource.plural, namespace=namespace, name=name)
        return json.dumps(one).encode()

    async def create(
        self,
        resource: Resource,
        body: JSONObject,
        *,
        namespace: str = "",
        dry_run: bool = False,
        headers: Headers = (),
    ) -> bytes:
        self._check("create", resource, namespace, body.get("metadata", {}).get("name", ""))
        if resource not in (GPUDIAGNOSTICS, GPUNODES, LEASES):
            return b'{"status": {"userInfo": {"username": "tester"}}}'
        if _key(body) in self.stored[resource.plural]:
            raise ApiError(409, "AlreadyExists", "", verb="create", resource=resource.plural, namespace=namespace)
        self.created.append((body, dry_run, headers))
        made = {**body, "metadata": {**body["metadata"], "generation": 1, "creationTimestamp": ago(0)}}
        if not dry_run:
            if self.finish_created:
                done = full(body["metadata"]["name"], body["spec"].get("target", {}).get("nodeNames", ["n0"])[0])
                made = {**made, "status": done["status"]}
            self.put(made, "ADDED")
        return json.dumps(made).encode()

    async def close(self) -> None:
        self.closed = True


def lease(seconds_ago: float = 3.0) -> dict[str, Any]:
    return {
        "kind": "Lease",
        "metadata": {"name": "gpudiag-operator", "namespace": "gpudiag-system"},
        "spec": {"renewTime": ago(seconds_ago), "leaseDurationSeconds": 15},
    }


def _key(one: dict[str, Any]) -> str:
    meta = one["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


async def settle() -> None:
    """Let all tasks that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)


class Clock:
    """A clock that stands until a test moves it."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def service(
    api: FakeAPI, *, contexts: tuple[str, ...] = ("test",), allow_create: bool = False, unattended: bool = False
) -> Service:
    """A service over the API server in memory; its clock stands at NOW."""
    clock = Clock()

    async def open_fleet(context: str) -> FleetCopy:
        place = Place(context=context or "test", cluster="cluster-1", identity="tester", namespace="team-a")
        return FleetCopy(api, place, operator_namespace="gpudiag-system", monotonic=clock)

    metrics = Metrics()
    policy = Policy(namespaces=("team-a", "gpudiag-system"), max_active=2, per_minute=3)
    return Service(
        contexts=contexts,
        caches=Caches(open_fleet, metrics=metrics, monotonic=clock),
        creator=Creator(policy, clock=clock, monotonic=clock) if allow_create else None,
        unattended=unattended,
        metrics=metrics,
        clock=clock,
        monotonic=clock,
    )


@asynccontextmanager
async def reading(*objects: dict[str, Any]) -> AsyncGenerator[Service, None]:
    one = service(FakeAPI(*objects))
    async with one.running():
        yield one
