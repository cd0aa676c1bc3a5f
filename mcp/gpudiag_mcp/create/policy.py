"""What may be created: pure rules over a request, what runs already, and a clock."""

import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from gpudiag_api import durations
from gpudiag_api.kinds.base import API_VERSION
from gpudiag_api.vocabulary import Check
from gpudiag_mcp.answers.refusals import Refusal, nearest
from gpudiag_mcp.kube.api import JSONObject
from gpudiag_mcp.objects.diagnostic import GPUDiagnostic
from gpudiag_mcp.questions.diagnostics import done

MANAGED_BY = ("app.kubernetes.io/managed-by", "gpudiag-mcp")
ANNOTATIONS = "mcp.gpudiag.dev/"
RETRY_SECONDS = 120
"""The same request within this time is a retry, and finds what the first one created."""
MOST_FULL = 10
"""Nodes of a Full diagnostic; the operator refuses more (TooManyNodesForFull)."""
MOST_PRINCIPALS = 1024


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the assistant wants."""

    namespace: str = ""
    node: str = ""
    pod: str = ""
    detail: str = "Summary"
    checks: tuple[str, ...] = ()
    deadline_s: int = 30
    ttl_s: int = 900
    reason: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Who asked, for the object's annotations. All of it is what the client says of itself, except the principal."""

    principal: str
    client: str
    correlation_id: str


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The limits of one server."""

    namespaces: tuple[str, ...] = ()
    max_active: int = 5
    per_minute: int = 6

    def namespace(self, wanted: str, default: str) -> str:
        """Where to create.

        Raises:
            Refusal: the server does not allow that namespace.
        """
        allowed = self.namespaces or (default,)
        chosen = wanted or allowed[0]
        if chosen not in allowed:
            raise Refusal(
                "NotAllowed",
                f"this server creates diagnostics in {', '.join(allowed)} only, not in {chosen[:63]!r}. Pass one of "
                "them, or have it started with --create-namespaces.",
            )
        return chosen

    def room(self, present: Iterable[GPUDiagnostic]) -> None:
        """Refuse while too many diagnostics of this facade run.

        Raises:
            Refusal: naming those that run.
        """
        key, value = MANAGED_BY
        running = [one.key for one in present if one.metadata.labels.get(key) == value and not done(one)]
        if len(running) >= self.max_active:
            raise Refusal(
                "TooMany",
                f"{len(running)} diagnostics run already ({', '.join(running[:5])}), the limit is {self.max_active}. "
                "Wait for one with wait_for_gpu_diagnostic, then repeat.",
            )


def check(request: Request, nodes: Iterable[str]) -> None:
    """Refuse what the operator would not run.

    Args:
        request: what is wanted.
        nodes: names of all GPU nodes.

    Raises:
        Refusal: naming the argument and what to pass instead.
    """
    known = list(nodes)
    if request.node and request.pod:
        raise Refusal("Invalid", "node and pod exclude each other. Pass one of them, or neither for every GPU node.")
    if request.node and request.node not in known:
        near = nearest(request.node, known)
        hint = f"nearest names: {', '.join(near)}" if near else "list_gpu_nodes shows them"
        raise Refusal("NotFound", f"there is no GPU node {request.node[:253]!r}; {hint}.")
    if request.detail == "Full" and not request.node and not request.pod and len(known) > MOST_FULL:
        raise Refusal(
            "Invalid", f"detail Full is for at most {MOST_FULL} nodes and there are {len(known)}. Pass node or pod."
        )
    if unknown := [one for one in request.checks if one not in set(Check)]:
        near = nearest(unknown[0], list(Check))
        raise Refusal("Invalid", f"there is no check {unknown[0][:63]!r}; nearest: {', '.join(near) or 'none'}.")
    for name, value, low, high in (("deadline_s", request.deadline_s, 1, 600), ("ttl_s", request.ttl_s, 60, 86400)):
        if not low <= value <= high:
            raise Refusal("Invalid", f"{name} must be from {low} to {high}, not {value}.")


def names(request: Request, namespace: str, principal: str, now: float) -> tuple[str, str]:
    """The name of the object, and the one that the same request had up to ``RETRY_SECONDS`` ago.

    Deterministic, so that a retry finds what exists instead of running twice, over the boundary of two spans as well.
    """
    if request.name:
        return request.name, request.name
    facts = [
        principal,
        namespace,
        request.node,
        request.pod,
        request.detail,
        sorted(request.checks),
        request.deadline_s,
    ]
    digest = hashlib.blake2b(msgspec.json.encode(facts), digest_size=5).hexdigest()
    span = int(now // RETRY_SECONDS)
    return f"mcp-{digest}-{span:x}", f"mcp-{digest}-{span - 1:x}"


def manifest(request: Request, *, namespace: str, name: str, provenance: Provenance) -> JSONObject:
    """The object to create: Once, with a TTL, with the facts of its origin."""
    target: JSONObject | None = None
    if request.node:
        target = {"nodeNames": [request.node]}
    elif request.pod:
        target = {"podRef": {"name": request.pod}}
    spec: JSONObject = {
        "mode": "Once",
        "detail": request.detail,
        "deadline": durations.format(request.deadline_s),
        "ttlAfterFinished": durations.format(request.ttl_s),
    }
    if target is not None:
        spec["target"] = target
    if request.checks:
        spec["checks"] = {"include": sorted(set(request.checks))}
    origin = {
        "requested-by": provenance.principal,
        "reason": request.reason,
        "client": provenance.client,
        "correlation-id": provenance.correlation_id,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "GPUDiagnostic",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {MANAGED_BY[0]: MANAGED_BY[1]},
            "annotations": {f"{ANNOTATIONS}{key}": value[:256] for key, value in origin.items() if value},
        },
        "spec": spec,
    }


class Rate:
    """Creations per minute and principal, at most ``per_minute``; bounded in principals, the longest idle go first.

    Args:
        per_minute: creations of one principal within 60 s.
        monotonic: seconds of a clock that does not jump.
    """

    def __init__(self, per_minute: int, monotonic: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._monotonic = monotonic
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, principal: str) -> None:
        """Count one.

        Raises:
            Refusal: with the seconds to wait.
        """
        now = self._monotonic()
        times = self._times.setdefault(principal, deque())
        self._times.move_to_end(principal)
        while len(self._times) > MOST_PRINCIPALS:
            self._times.popitem(last=False)
        while times and now - times[0] >= 60.0:
            times.popleft()
        if len(times) >= self._per_minute:
            wait = 60.0 - (now - times[0])
            raise Refusal(
                "TooManyRequests",
                f"{self._per_minute} diagnostics were created within a minute. Repeat in {wait:.0f} s.",
            )
        times.append(now)
