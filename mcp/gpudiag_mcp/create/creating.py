"""The order in which a creation is checked and done: policy, what exists, dry run on the server, create.

Consent of a person comes between dry run and create; asking for it is the server's business (:mod:`..server`).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from gpudiag_mcp.answers.refusals import Refusal
from gpudiag_mcp.cache.reader import Reader
from gpudiag_mcp.create.policy import Policy, Provenance, Rate, Request, check, manifest, names
from gpudiag_mcp.kube.api import GPUDIAGNOSTICS, JSONObject
from gpudiag_mcp.kube.errors import ApiError
from gpudiag_mcp.objects.diagnostic import GPUDiagnostic

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What would be created, and what the same request has created already."""

    namespace: str
    name: str
    body: JSONObject
    existing: GPUDiagnostic | None


class Creator:
    """Creates diagnostics within a policy.

    Args:
        policy: the limits.
        clock: Unix seconds.
        monotonic: seconds of a clock that does not jump.
    """

    def __init__(self, policy: Policy, *, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.policy = policy
        self._clock = clock
        self._rate = Rate(policy.per_minute, monotonic)

    async def plan(self, reader: Reader, request: Request, provenance: Provenance) -> Plan:
        """Check a request against the rules; creates nothing.

        Raises:
            Refusal: a rule forbids it; the message says what to pass instead.
            ApiError: the API server refuses what had to be read.
        """
        namespace = self.policy.namespace(request.namespace, reader.place.namespace)
        who = provenance.principal
        name, before = names(request, namespace, who, self._clock())
        for one in dict.fromkeys((name, before)):
            existing = await reader.stored_diagnostic(namespace, one)
            if existing is not None:
                return Plan(namespace, one, {}, existing)
        check(request, [node.name for node in await reader.nodes()])
        self.policy.room(await reader.diagnostics("" if reader.sees_all_diagnostics else namespace))
        return Plan(namespace, name, manifest(request, namespace=namespace, name=name, provenance=provenance), None)

    async def rehearse(self, reader: Reader, plan: Plan) -> None:
        """Let the API server check rights and the object, storing nothing.

        Raises:
            ApiError: as a real creation would.
        """
        await reader.caller.require(reader.api, "create", GPUDIAGNOSTICS, namespace=plan.namespace)
        await reader.create_diagnostic(plan.body, namespace=plan.namespace, dry_run=True)

    async def create(self, reader: Reader, plan: Plan) -> tuple[GPUDiagnostic, bool]:
        """Create what was planned; gives the object and whether it is new.

        Raises:
            Refusal: too many within a minute.
            ApiError: the API server refuses it.
        """
        await reader.caller.require(reader.api, "create", GPUDIAGNOSTICS, namespace=plan.namespace)
        self._rate.take(reader.caller.name)
        try:
            made = await reader.create_diagnostic(plan.body, namespace=plan.namespace, dry_run=False)
        except ApiError as error:
            if not error.already_exists:
                raise
            existing = await reader.stored_diagnostic(plan.namespace, plan.name)
            if existing is None:
                raise Refusal("Conflict", "it was deleted while it was created. Repeat the call.") from error
            return existing, False
        log.info("created GPUDiagnostic %s as %s", made.key, reader.caller.name or reader.place.identity)
        return made, True
