"""Why did this pod fail: what happened, whose fault, what to do.

Evidence in this order: an XID error that names the pod; a fault of a GPU that the pod holds; a fault of its whole
node. Without any of them nothing is guessed: the answer says where else to look.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gpudiag_api.vocabulary import Blame
from gpudiag_mcp.answers import untrusted
from gpudiag_mcp.answers.models import FailureAnswer, Next
from gpudiag_mcp.answers.refusals import Refusal, nearest
from gpudiag_mcp.answers.rows import AllocationRow
from gpudiag_mcp.objects.node import GPUNode
from gpudiag_mcp.objects.parts import Finding, XIDEvent
from gpudiag_mcp.questions import advice, pods, xids
from gpudiag_mcp.questions.fleet import grouped, listed, plural, unread, weight, why_unread

ROWS = 30
_LOOK = "Look at the pod itself: kubectl logs --previous, kubectl describe pod (OOMKilled, evicted, image, exit code)."


@dataclass(frozen=True)
class _Evidence:
    nodes: tuple[GPUNode, ...]
    """Where the pod is, or where an error names it."""
    named: tuple[tuple[str, XIDEvent], ...]
    on_gpus: tuple[tuple[str, Finding], ...]
    on_node: tuple[tuple[str, Finding], ...]


def explain(nodes: Sequence[GPUNode], *, pod: str = "", namespace: str = "", node: str = "") -> FailureAnswer:
    """``explain_failure``.

    Args:
        nodes: the fleet, or the one node.
        pod: name, or ``namespace/name``; empty: pods that have reason to fail.
        namespace: of the pod; empty: any.
        node: the node's name, where the question names one.

    Raises:
        Refusal: no resource knows the pod.
    """
    space, _, name = pod.rpartition("/")
    space = space or namespace
    if not name:
        return _candidates(nodes, namespace=space)
    held = pods.rows(pods.find(nodes, namespace=space, pod=name), ROWS)
    evidence = _gather(nodes, space=space, name=name)
    if not held and not evidence.named:
        raise _unknown_pod(nodes, space=space, name=name, node=node)
    named = {untrusted.object_name((event.pod or "").partition("/")[0]) for _, event in evidence.named}
    spaces = {row.namespace for row in held} | named
    if len(spaces) > 1:
        raise Refusal("Ambiguous", f"there is a pod {name!r} in {listed(sorted(spaces))}. Pass namespace.")
    return _judge(f"{next(iter(spaces))}/{name}", held, evidence)


def _gather(nodes: Sequence[GPUNode], *, space: str, name: str) -> _Evidence:
    found, named, on_gpus, on_node = [], [], [], []
    for node in nodes:
        known = pods.gpus_by_uuid(node)
        mine = {
            known[held.gpu_uuid].uuid
            for held in node.status.allocations
            if held.pod == name and (not space or held.namespace == space) and held.gpu_uuid in known
        }
        indexes = {gpu.index for gpu in node.status.gpus if gpu.uuid in mine}
        here = [(node.name, event) for event in node.status.xids if _names(event, space, name)]
        if not mine and not here:
            continue
        found.append(node)
        named += here
        for finding in node.status.findings:
            subject = finding.subject
            if subject.uuid in mine or (subject.gpu is not None and subject.gpu in indexes):
                on_gpus.append((node.name, finding))
            elif subject.uuid is None and subject.gpu is None:
                on_node.append((node.name, finding))
    return _Evidence(tuple(found), tuple(named), tuple(on_gpus), tuple(on_node))


def _names(event: XIDEvent, space: str, name: str) -> bool:
    where, _, who = (event.pod or "").partition("/")
    return who == name and (not space or where == space)


def _judge(pod: str, held: Sequence[AllocationRow], evidence: _Evidence) -> FailureAnswer:
    rows = xids.rows_of(evidence.named, words=True)
    findings = grouped([*evidence.on_gpus, *evidence.on_node], of_one_node=len(evidence.nodes) == 1)
    faults = [finding for _, finding in (*evidence.on_gpus, *evidence.on_node) if weight(finding.severity) > 0]
    serious = [event for _, event in evidence.named if weight(event.severity) > 0]
    away = [node.name for node in evidence.nodes if node.status.health == "Unknown"]
    nodes = listed([node.name for node in evidence.nodes])
    if serious:
        worst = max(serious, key=lambda event: weight(event.severity))
        blame, confidence, verdict = worst.blame, "High", _verdict(worst.severity)
        said = f"XID {worst.code} ({rows[0].name}) on {nodes} names this pod."
        actions = [event.recommended_action for event in serious]
    elif faults:
        worst_fault = max(faults, key=lambda finding: weight(finding.severity))
        own = any(finding is worst_fault for _, finding in evidence.on_gpus)
        blame, confidence, verdict = worst_fault.blame, "Medium", _verdict(worst_fault.severity)
        said = f"{findings[0].check}/{findings[0].reason} on {'a GPU it holds' if own else 'its node'} ({nodes})."
        actions = [finding.recommended_action for finding in faults]
    elif evidence.named:
        blame, confidence, verdict = evidence.named[0][1].blame, "High", "Healthy"
        said = f"XID {rows[0].code} ({rows[0].name}) on {nodes} names this pod; its GPUs show no fault."
        actions = [event.recommended_action for _, event in evidence.named]
    elif away:
        blame, confidence, verdict = "Unknown", "Low", "Unknown"
        said = f"{listed(away)} cannot be read at present, so its GPUs could not be judged."
        actions = []
    else:
        blame, confidence, verdict = "Unknown", "Low", "Healthy"
        said = f"Its GPUs on {nodes} show no fault and no error names it: probably not the GPU."
        actions = []
    blame = blame if blame in set(Blame) else "Unknown"
    if actions:
        step = advice.next_step(advice.covering(actions))
    elif verdict == "Unknown":
        step = advice.next_step("None", unread=why_unread(evidence.nodes))
    else:
        step = Next(action="None", do=_LOOK)
    return FailureAnswer(
        verdict=verdict,
        summary=f"Pod {pod}: {said} Blame: {blame} (confidence {confidence}).",
        pod=pod,
        blame=blame,
        confidence=confidence,
        findings=findings[:ROWS],
        xids=rows[:ROWS],
        rows=tuple(held),
        next=step,
        warnings=unread(evidence.nodes),
    )


def _verdict(severity: str) -> str:
    return "Unhealthy" if severity == "Critical" else "Degraded"


def _candidates(nodes: Sequence[GPUNode], *, namespace: str) -> FailureAnswer:
    """Pods that have reason to fail: on GPUs that are not Healthy, or named by an XID error."""
    bad = [held for held in pods.find(nodes, namespace=namespace) if held.on_bad_gpu]
    worst = pods.rows(bad, ROWS)
    named = [
        (node.name, event)
        for node in nodes
        for event in node.status.xids
        if event.pod and (not namespace or event.pod.startswith(f"{namespace}/"))
    ]
    rows = xids.rows_of(named)
    who = list(dict.fromkeys(pods.pod_names(bad) + [pod for row in rows for pod in row.pods]))
    summary = (
        f"{plural(len(who), 'pod')} with reason to fail: {listed(who)}. Pass pod for one of them."
        if who
        else "No pod holds a GPU that is not Healthy, and no XID error names a pod."
    )
    return FailureAnswer(
        verdict="Healthy" if not who else "Unknown" if not worst else worst[0].gpu_health,
        summary=summary,
        rows=worst,
        xids=rows[:ROWS],
        truncated=len(bad) > ROWS or len(rows) > ROWS,
        narrow="Pass pod, namespace or node." if len(bad) > ROWS or len(rows) > ROWS else "",
    )


def _unknown_pod(nodes: Sequence[GPUNode], *, space: str, name: str, node: str) -> Refusal:
    known = {held.pod for one in nodes for held in one.status.allocations}
    near = nearest(name, sorted(known))
    where = f"{f' in namespace {space}' if space else ''}{f' on {node}' if node else ''}"
    hint = f" Nearest names: {', '.join(near)}." if near else ""
    return Refusal(
        "NotFound",
        f"no GPU is held by a pod {name[:253]!r}{where} and no XID error names it.{hint} A pod that has ended holds "
        f"nothing any more: pass the node it ran on to get_incident_report. If it never got a GPU, see "
        f"kubectl describe pod.",
    )
