"""The tools: name, arguments, and which question each one asks.

Descriptions are short on purpose: they are sent to every model in every session, ``tools/list`` stays below 8 KB.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from gpudiag_mcp.answers.models import (
    AllocationAnswer,
    Answer,
    DiagnosticAnswer,
    DiagnosticsAnswer,
    FailureAnswer,
    HealthAnswer,
    IncidentAnswer,
    InventoryAnswer,
    NodeAnswer,
    NodesAnswer,
    TimelineAnswer,
    TopologyAnswer,
    XIDAnswer,
)
from gpudiag_mcp.answers.refusals import Refusal, not_found
from gpudiag_mcp.objects.diagnostic import GPUDiagnostic
from gpudiag_mcp.questions import describe, diagnostics, explain, freshness, incident, inventory, pods, xids
from gpudiag_mcp.questions import health as judged
from gpudiag_mcp.questions import results as kept
from gpudiag_mcp.server.ask import Ask

LONGEST_WAIT = 300

Node = Annotated[str, Field(description="Absent: the fleet")]
GPU = Annotated[int, Field(ge=-1, le=255, description="Samples of this GPU of the node alone")]
Token = Annotated[str, Field(description="From the answer before")]
Limit = Annotated[int, Field(ge=1, le=100)]
Health = Literal["", "Healthy", "Degraded", "Unhealthy", "Unknown"]
Namespace = Annotated[str, Field(json_schema_extra={"x-mcp-header": "Namespace"})]
WaitSeconds = Annotated[int, Field(ge=0, le=LONGEST_WAIT)]


async def list_gpu_nodes(
    ask: Ask, node: Node = "", health: Health = "", limit: Limit = 20, continue_token: Token = ""
) -> NodesAnswer:
    """GPU nodes, worst first: health, readiness, agent, GPUs, circuit breaker, maintenance."""
    return judged.list_nodes(
        await ask.nodes(node), now=ask.now, health=health, limit=limit, continue_token=continue_token
    )


async def get_gpu_inventory(ask: Ask, node: Node = "") -> InventoryAnswer:
    """GPU models, memory, driver, MIG: groups over the fleet, single GPUs of a node."""
    nodes = await ask.nodes(node)
    return inventory.node_inventory(nodes[0]) if node else inventory.fleet_inventory(nodes)


async def get_gpu_health(ask: Ask, node: Node = "") -> HealthAnswer:
    """Is it fine? Verdict, worst nodes, findings with blame, what to do. Start here."""
    nodes = await ask.nodes(node)
    return judged.node_health(nodes[0], now=ask.now) if node else judged.fleet_health(nodes, now=ask.now)


async def analyze_xid_errors(
    ask: Ask, node: Node = "", code: Annotated[int, Field(ge=0, le=65535, description="0: all")] = 0
) -> XIDAnswer:
    """XID errors by code: severity, whose fault, which GPUs and pods, what to do."""
    return xids.analyze(await ask.nodes(node), node=node, code=code)


async def describe_gpu_node(ask: Ask, node: Node = "") -> NodeAnswer:
    """Everything known of a node: findings, GPUs, pods on them, agent, breaker, conditions."""
    nodes = await ask.nodes(node)
    return describe.node(nodes[0], now=ask.now) if node else describe.fleet(nodes, now=ask.now)


async def get_pod_gpu_allocation(ask: Ask, node: Node = "", namespace: str = "", pod: str = "") -> AllocationAnswer:
    """Which container holds which GPU, those on bad GPUs first."""
    return pods.allocation(await ask.nodes(node), node=node, namespace=namespace, pod=pod)


async def get_nvlink_topology(ask: Ask, node: Node = "") -> TopologyAnswer:
    """Links between the GPUs of a node, and findings about links and fabric."""
    nodes, found = await ask.nodes(node), await ask.reader.full_results()
    return kept.topology(nodes, found, ask.diagnosing, now=ask.now, node=node)


async def get_gpu_timeline(ask: Ask, node: Node = "", gpu: GPU = -1) -> TimelineAnswer:
    """What happened when: errors and changes of state; of a node also temperature, power, utilisation."""
    if gpu >= 0 and not node:
        raise Refusal("Invalid", "gpu is an index on a node: pass node as well, or leave gpu out.")
    nodes, found = await ask.nodes(node), await ask.reader.full_results()
    return kept.timeline(nodes, found, ask.diagnosing, now=ask.now, node=node, gpu=gpu)


async def explain_failure(
    ask: Ask,
    pod: Annotated[str, Field(description="name or namespace/name; absent: pods at risk")] = "",
    namespace: str = "",
    node: Node = "",
) -> FailureAnswer:
    """Why a pod failed: hardware or job? What happened, whose fault, what to do."""
    return explain.explain(await ask.nodes(node), pod=pod, namespace=namespace, node=node)


async def get_incident_report(ask: Ask, node: Node = "") -> IncidentAnswer:
    """A report for a ticket: what, since when, affected pods, evidence, actions in order."""
    return incident.report(await ask.nodes(node), now=ask.now, node=node)


async def list_gpu_diagnostics(
    ask: Ask,
    namespace: Namespace = "",
    node: str = "",
    verdict: Health = "",
    limit: Limit = 20,
    continue_token: Token = "",
) -> DiagnosticsAnswer:
    """GPUDiagnostics, worst first. namespace absent: all."""
    return diagnostics.list_diagnostics(
        await ask.reader.diagnostics(namespace),
        now=ask.now,
        namespace=namespace,
        node=node,
        verdict_is=verdict,
        limit=limit,
        continue_token=continue_token,
    )


async def get_gpu_diagnostic(ask: Ask, namespace: Namespace, name: str) -> DiagnosticAnswer:
    """One GPUDiagnostic: verdict, findings, nodes; of a Full one its results."""
    return with_freshness(ask, await stored(ask, namespace, name))


async def wait_for_gpu_diagnostic(
    ask: Ask, namespace: Namespace, name: str, timeout_s: WaitSeconds = 60
) -> DiagnosticAnswer:
    """Wait until a GPUDiagnostic has ended, then return it; done=false if it has not."""
    one = await ask.until(lambda: stored(ask, namespace, name), diagnostics.done, timeout_s)
    return with_freshness(ask, one)


async def stored(ask: Ask, namespace: str, name: str) -> GPUDiagnostic:
    """One GPUDiagnostic.

    Raises:
        Refusal: there is none; with the nearest names.
    """
    one = await ask.reader.diagnostic(namespace, name)
    if one is None:
        known = [other.metadata.name for other in await ask.reader.diagnostics(namespace)]
        raise not_found(f"GPUDiagnostic in namespace {namespace}", name, known, list_with="list_gpu_diagnostics")
    return one


def with_freshness(
    ask: Ask, one: GPUDiagnostic, *, created: bool | None = None, dry_run: bool = False
) -> DiagnosticAnswer:
    """Its answer, with a warning when it is out of date."""
    answer = diagnostics.diagnostic(one, created=created, dry_run=dry_run)
    fresh = freshness.of_diagnostic(one, ask.freshness(), now=ask.now)
    return answer.model_copy(update={"warnings": (fresh.why,)}) if fresh.state == "Stale" else answer


@dataclass(frozen=True, kw_only=True)
class ToolSpec:
    """A tool, before it is bound to a server."""

    run: Callable[..., Awaitable[Answer]]
    title: str
    answer: type[Answer]
    deadline: Callable[[dict[str, Any]], float] = lambda _: 15.0
    """Seconds a call may take, from its arguments."""

    @property
    def name(self) -> str:
        """Name of the tool: that of its function."""
        return str(getattr(self.run, "__name__", ""))


READ_ONLY = (
    ToolSpec(run=list_gpu_nodes, title="List GPU nodes", answer=NodesAnswer),
    ToolSpec(run=get_gpu_inventory, title="GPU inventory", answer=InventoryAnswer),
    ToolSpec(run=get_gpu_health, title="GPU health", answer=HealthAnswer),
    ToolSpec(run=analyze_xid_errors, title="Analyze XID errors", answer=XIDAnswer),
    ToolSpec(run=describe_gpu_node, title="Describe a GPU node", answer=NodeAnswer),
    ToolSpec(run=get_pod_gpu_allocation, title="Pods and their GPUs", answer=AllocationAnswer),
    ToolSpec(run=get_nvlink_topology, title="NVLink topology", answer=TopologyAnswer),
    ToolSpec(run=get_gpu_timeline, title="GPU timeline", answer=TimelineAnswer),
    ToolSpec(run=explain_failure, title="Explain a pod's failure", answer=FailureAnswer),
    ToolSpec(run=get_incident_report, title="Incident report", answer=IncidentAnswer),
    ToolSpec(run=list_gpu_diagnostics, title="List diagnostics", answer=DiagnosticsAnswer),
    ToolSpec(run=get_gpu_diagnostic, title="Get a diagnostic", answer=DiagnosticAnswer),
    ToolSpec(
        run=wait_for_gpu_diagnostic,
        title="Wait for a diagnostic",
        answer=DiagnosticAnswer,
        deadline=lambda arguments: arguments.get("timeout_s", 60) + 15.0,
    ),
)
