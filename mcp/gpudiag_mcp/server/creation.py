"""``create_gpu_diagnostic``: the one tool that writes, and the consent of a person that it asks for."""

from typing import Annotated, Any, Literal

from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resolve import Elicit
from pydantic import BaseModel, Field

from gpudiag_mcp.answers.models import DiagnosticAnswer
from gpudiag_mcp.answers.refusals import Refusal
from gpudiag_mcp.create.creating import Creator, Plan
from gpudiag_mcp.create.policy import Request
from gpudiag_mcp.questions import diagnostics
from gpudiag_mcp.server.ask import Ask
from gpudiag_mcp.server.tools import Namespace, ToolSpec, WaitSeconds, with_freshness


class Approval(BaseModel):
    """What a person answers."""

    approve: Annotated[bool, Field(description="Create this diagnostic?")] = False


async def create_gpu_diagnostic(
    ask: Ask,
    node: Annotated[str, Field(description="Absent, and no pod: every GPU node")] = "",
    pod: Annotated[str, Field(description="Pod of the namespace: its node and GPUs")] = "",
    namespace: Namespace = "",
    detail: Annotated[Literal["Summary", "Full"], Field(description="Full: timeline, topology, processes")] = "Summary",
    checks: Annotated[list[str], Field(max_length=64, description="Only these")] = [],  # noqa: B006  (never changed)
    reason: Annotated[str, Field(max_length=256, description="Why, for the record")] = "",
    name: Annotated[str, Field(max_length=63)] = "",
    deadline_s: Annotated[int, Field(ge=1, le=600)] = 30,
    ttl_s: Annotated[int, Field(ge=60, le=86400)] = 900,
    wait_s: WaitSeconds = 60,
    *,
    dry_run: bool = False,
    approval: ElicitationResult[Approval],
) -> DiagnosticAnswer:
    """Take fresh samples now (runs once, deletes itself) and return the result after at most wait_s."""
    request = Request(
        namespace=namespace,
        node=node,
        pod=pod,
        detail=detail,
        checks=tuple(checks),
        deadline_s=deadline_s,
        ttl_s=ttl_s,
        reason=reason,
        name=name,
    )
    creator = creator_of(ask)
    plan = await creator.plan(ask.reader, request, ask.provenance)
    if plan.existing is None:
        await creator.rehearse(ask.reader, plan)
        if dry_run:
            return rehearsed(plan, request)
        if not isinstance(approval, AcceptedElicitation) or not approval.data.approve:
            raise Refusal("Declined", "the user did not approve; nothing was created. Do not ask again unprompted.")
        one, created = await creator.create(ask.reader, plan)
    else:
        one, created = plan.existing, False

    async def look() -> Any:
        return await ask.reader.diagnostic(plan.namespace, one.metadata.name) or one

    ended = await ask.until(look, diagnostics.done, wait_s)
    return with_freshness(ask, ended, created=created)


def rehearsed(plan: Plan, request: Request) -> DiagnosticAnswer:
    """What a dry run says."""
    return DiagnosticAnswer(
        summary=f"The API server would accept {plan.namespace}/{plan.name}; nothing was created (dry_run).",
        namespace=plan.namespace,
        name=plan.name,
        done=False,
        created=False,
        dry_run=True,
        mode="Once",
        target=request.node or request.pod or "every GPU node",
    )


def creator_of(ask: Ask) -> Creator:
    """The creator; the tool does not exist without one."""
    assert ask.service.creator is not None
    return ask.service.creator


async def ask_user(ask: Ask, ctx: Context[Any, Any], arguments: dict[str, Any]) -> Approval | Elicit[Approval]:
    """Whether a person must be asked, after everything that would refuse the creation anyway.

    Raises:
        Refusal: it is refused, or nobody can be asked.
    """
    known = {key: value for key, value in arguments.items() if key in Request.__dataclass_fields__}
    request = Request(**{**known, "checks": tuple(known.get("checks") or ())})
    creator = creator_of(ask)
    plan = await creator.plan(ask.reader, request, ask.provenance)
    if plan.existing is not None or arguments.get("dry_run"):
        return Approval(approve=True)  # nothing will be created
    await creator.rehearse(ask.reader, plan)
    capabilities = ctx.client_capabilities
    if capabilities is not None and capabilities.elicitation is not None:
        what = request.node or (f"pod {request.pod}" if request.pod else "every GPU node")
        where = f"{plan.namespace}/{plan.name} in cluster {ask.reader.place.cluster} as {ask.source().identity}"
        return Elicit(f"Create GPUDiagnostic {where}: fresh samples of {what}, detail {request.detail}?", Approval)
    if ask.service.unattended:
        return Approval(approve=True)
    raise Refusal(
        "NeedsConsent",
        "this client cannot ask its user, so nothing is created. The server's owner can allow that with "
        "--allow-unattended-create; or a person applies a GPUDiagnostic with kubectl.",
    )


CREATE = ToolSpec(
    run=create_gpu_diagnostic,
    title="Create a diagnostic",
    answer=DiagnosticAnswer,
    deadline=lambda arguments: arguments.get("wait_s", 60) + 30.0,
)
