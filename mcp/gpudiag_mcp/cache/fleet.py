"""One cluster as one identity sees it: watched copies of GPUNodes and GPUDiagnostics, and the operator's Lease."""

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from gpudiag_api.times import from_rfc3339
from gpudiag_mcp.kube.api import GPUDIAGNOSTICS, GPUNODES, LEASES, KubeAPI
from gpudiag_mcp.kube.copy import Copy
from gpudiag_mcp.kube.errors import AccessError, ApiError, ApiUnavailable
from gpudiag_mcp.objects.diagnostic import GPUDiagnostic, diagnostic_from_json
from gpudiag_mcp.objects.lease import lease_from_json
from gpudiag_mcp.objects.node import GPUNode, GPUNodeStatus, node_from_json
from gpudiag_mcp.objects.parts import Metadata
from gpudiag_mcp.questions.freshness import OperatorSign

log = logging.getLogger(__name__)

OPERATOR_LEASE = "gpudiag-operator"
LEASE_SECONDS = 10.0
"""Between two looks at the Lease. It is polled: the viewer's role may get it by name, not watch it."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The cluster and the identity behind an answer, as told in it."""

    context: str
    cluster: str
    identity: str
    namespace: str
    """Default namespace of the context."""


class FleetCopy:
    """The copies of one context. ``start`` it inside a running loop, ``close`` it.

    Args:
        api: where to read, as the process's own identity.
        place: what it is, for answers and logs.
        operator_namespace: where the operator's Lease is.
        monotonic: seconds of a clock that does not jump.
    """

    def __init__(
        self,
        api: KubeAPI,
        place: Place,
        *,
        operator_namespace: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.api = api
        self.place = place
        self.last_used = monotonic()
        self.sign = OperatorSign()
        """What is known of the operator's Lease."""
        self.operator_namespace = operator_namespace
        self._monotonic = monotonic
        self._signed = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.nodes: Copy[GPUNode] = Copy(api, GPUNODES, _node, monotonic=monotonic)
        self.diagnostics: Copy[GPUDiagnostic] = Copy(api, GPUDIAGNOSTICS, diagnostic_from_json, monotonic=monotonic)

    def start(self) -> None:
        """Begin to read."""
        self._run("lease", self._look_at_lease())
        self._run("nodes", self.nodes.run())
        self._run("diagnostics", self.diagnostics.run())

    def restart_refused(self) -> None:
        """Ask again for what was refused: rights and CRDs may have come meanwhile."""
        if self.nodes.refused is not None:
            self.nodes = Copy(self.api, GPUNODES, _node, monotonic=self._monotonic)
            self._run("nodes", self.nodes.run())
        if self.diagnostics.refused is not None:
            self.diagnostics = Copy(self.api, GPUDIAGNOSTICS, diagnostic_from_json, monotonic=self._monotonic)
            self._run("diagnostics", self.diagnostics.run())

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        # A context of its own: the copy outlives the call that opened it, and must not log or trace as a part of it.
        self._tasks[name] = asyncio.create_task(work, context=contextvars.Context())

    @property
    def locked_out(self) -> bool:
        """The identity itself is not accepted any more (401, or no credential): nothing here may be used."""
        for refused in (self.nodes.refused, self.diagnostics.refused):
            if isinstance(refused, AccessError) or (refused is not None and refused.status == 401):
                return True
        return False

    @property
    def age_seconds(self) -> float | None:
        """Age of the older copy of those that are kept; None when none is complete."""
        ages = [copy.age_seconds for copy in (self.nodes, self.diagnostics) if copy.refused is None]
        known = [age for age in ages if age is not None]
        return max(known) if known else None

    async def settled(self) -> None:
        """Wait until both copies are complete or refused, and the Lease was looked at."""
        await asyncio.gather(self.nodes.settled(), self.diagnostics.settled(), self._signed.wait())

    async def close(self) -> None:
        """Stop reading and forget everything."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self.api.close()

    async def _look_at_lease(self) -> None:
        while True:
            with contextlib.suppress(ApiUnavailable):  # the copies tell of an API server that is away
                self.sign = await self._sign()
            self._signed.set()
            await asyncio.sleep(LEASE_SECONDS)

    async def _sign(self) -> OperatorSign:
        namespace = self.operator_namespace
        try:
            body = await self.api.get(LEASES, OPERATOR_LEASE, namespace=namespace)
            spec = lease_from_json(body).spec
            renewed = from_rfc3339(spec.renew_time)
        except (ApiError, AccessError) as error:
            missing = isinstance(error, ApiError) and error.status == 404
            why = (
                f"there is no Lease {OPERATOR_LEASE} in namespace {namespace}"
                if missing
                else f"the Lease {OPERATOR_LEASE} in namespace {namespace} may not be read (get leases)"
            )
            return OperatorSign(problem=why)
        except (msgspec.DecodeError, ValueError):
            return OperatorSign(problem=f"the Lease {OPERATOR_LEASE} in namespace {namespace} names no time")
        seen_at = self._monotonic()
        before = self.sign
        moved = before.renewed is not None and before.renewed != renewed
        return OperatorSign(
            renewed=renewed,
            duration_seconds=float(spec.lease_duration_seconds),
            moved_at=seen_at if moved else before.moved_at,
        )


def _node(raw: msgspec.Raw) -> GPUNode:
    """A GPUNode; one that cannot be read is Unknown rather than missing."""
    try:
        return node_from_json(raw)
    except msgspec.DecodeError as error:
        head: Mapping[str, Any] = msgspec.json.decode(raw, type=dict[str, Any]).get("metadata", {})
        log.warning("gpunodes %s: %s", head.get("name"), error)
        return GPUNode(
            metadata=Metadata(name=str(head.get("name", ""))),
            status=GPUNodeStatus(health="Unknown", reason="Unreadable", message="Its status has an unknown form."),
        )
