"""GPUDiagnostics: which there are, and what one of them says."""

from collections.abc import Iterable, Sequence

from gpudiag_api.times import from_rfc3339
from gpudiag_mcp.answers import untrusted
from gpudiag_mcp.answers.models import DiagnosticAnswer, DiagnosticsAnswer
from gpudiag_mcp.answers.rows import (
    ConditionRow,
    Counts,
    DiagnosticRow,
    EventRow,
    FindingRow,
    HistoryRow,
    LinkRow,
    NodeRow,
    ProcessRow,
    SampleRow,
)
from gpudiag_mcp.objects.diagnostic import FindingGroup, GPUDiagnostic
from gpudiag_mcp.objects.diagnostic import NodeRow as StoredRow
from gpudiag_mcp.questions import advice, events, pages, results
from gpudiag_mcp.questions.fleet import badness, count_gpus, health_word, listed, plural, verdict

WORST, FINDINGS, HISTORY, SAMPLES, EVENTS, LINKS, PROCESSES = 20, 20, 10, 120, 20, 60, 32


def done(one: GPUDiagnostic) -> bool:
    """Whether waiting longer is pointless: the run has ended, or cannot begin; for Continuous: it was judged."""
    generation = one.metadata.generation
    stalled = one.condition("Stalled")
    if stalled is not None and stalled.status == "True":
        return True
    ended = one.condition("Complete" if one.spec.mode == "Once" else "Ready")
    if ended is None or (ended.observed_generation or one.status.observed_generation or generation) < generation:
        return False
    return ended.status == "True" or (one.spec.mode != "Once" and ended.reason != "Processing")


def phase(one: GPUDiagnostic) -> str:
    """One word for the state of the run."""
    for kind in ("Stalled", "Complete", "Ready"):
        condition = one.condition(kind)
        if condition is not None and (kind != "Stalled" or condition.status == "True"):
            return untrusted.word(condition.reason)
    return "NotProcessed"


def target(one: GPUDiagnostic) -> str:
    """What it asks about, in words."""
    asked = one.spec.target
    if asked is not None and asked.node_names:
        return f"nodes {listed(list(asked.node_names))}"
    if asked is not None and asked.pod_ref:
        return f"pod {asked.pod_ref.name}"
    return "nodes by label" if asked is not None and asked.node_selector is not None else "every GPU node"


def asks_about(one: GPUDiagnostic, node: str) -> bool:
    """Whether its verdict shows a node, or its target names it."""
    named = one.spec.target.node_names if one.spec.target else None
    return node in (named or ()) or any(row.name == node for row in one.status.nodes)


def order(one: GPUDiagnostic) -> tuple[int, str]:
    """Worst first, then by namespace and name."""
    return (-badness(one.status.verdict), one.key)


def list_diagnostics(
    found: Sequence[GPUDiagnostic],
    *,
    now: float,
    namespace: str = "",
    node: str = "",
    verdict_is: str = "",
    limit: int = 20,
    continue_token: str = "",
) -> DiagnosticsAnswer:
    """``list_gpu_diagnostics``."""
    chosen = [
        one
        for one in found
        if (not node or asks_about(one, node)) and (not verdict_is or health_word(one.status.verdict) == verdict_is)
    ]
    chosen.sort(key=order)
    of = f"diagnostics/{namespace}/{node}/{verdict_is}"
    page = pages.cut(chosen, key=order, limit=limit, token=continue_token, of=of)
    result = verdict(one.status.verdict for one in chosen) if chosen else ""
    where = f" in namespace {namespace}" if namespace else ""
    bad = [one.key for one in chosen if one.status.verdict != "Healthy"]
    summary = f"{plural(len(chosen), 'GPUDiagnostic')}{where}"
    summary += f"; not Healthy: {listed(bad)}." if bad else "; all Healthy." if chosen else "."
    return DiagnosticsAnswer(
        verdict=result,
        summary=summary,
        total=len(chosen),
        rows=tuple(_row(one, now) for one in page.items),
        continue_token=page.token,
        truncated=bool(page.token),
        narrow="Pass continue_token, or namespace, node, verdict to filter." if page.token else "",
    )


def _row(one: GPUDiagnostic, now: float) -> DiagnosticRow:
    try:
        age = now - from_rfc3339(one.metadata.creation_timestamp)
    except ValueError:
        age = 0.0
    return DiagnosticRow(
        namespace=one.metadata.namespace,
        name=one.metadata.name,
        mode=one.spec.mode,
        verdict=health_word(one.status.verdict),
        phase=phase(one),
        action=untrusted.word(one.status.recommended_action),
        target=target(one),
        finished_at=one.status.finished_at or "",
        age_s=round(max(0.0, age)),
    )


def diagnostic(one: GPUDiagnostic, *, created: bool | None = None, dry_run: bool = False) -> DiagnosticAnswer:
    """What one of them says, the results of a Full one included."""
    status = one.status
    ended = done(one)
    return DiagnosticAnswer(
        verdict=health_word(status.verdict) if ended else "",
        summary=_summary(one, ended),
        namespace=one.metadata.namespace,
        name=one.metadata.name,
        done=ended,
        created=created,
        dry_run=dry_run,
        phase=phase(one),
        mode=one.spec.mode,
        target=target(one),
        started_at=status.started_at or "",
        finished_at=status.finished_at or "",
        run_id=untrusted.name(status.run_id),
        nodes=_nodes(one),
        gpus=count_gpus([status.summary.gpus]),
        findings=tuple(map(_finding, status.findings[:FINDINGS])),
        worst=tuple(_node(row) for row in status.nodes[:WORST] if row.health != "Healthy"),
        conditions=_conditions(one),
        history=tuple(
            HistoryRow(at=entry.at, verdict=health_word(entry.verdict), untrusted_message=untrusted.text(entry.message))
            for entry in status.history[:HISTORY]
        ),
        next=advice.next_step(status.recommended_action, unread=_why_unread(status.nodes)) if ended else None,
        truncated=status.nodes_truncated or status.findings_truncated or status.results_truncated,
        narrow="Create one for fewer nodes." if status.results_truncated else "",
        links=_links(one),
        processes=_processes(one),
        samples=_samples(one),
        events=_events(one),
    )


def _why_unread(rows: Iterable[StoredRow]) -> str | None:
    """The reason of the first node that is Unknown; None: none is."""
    return next((row.reason for row in rows if health_word(row.health) == "Unknown"), None)


def _summary(one: GPUDiagnostic, ended: bool) -> str:  # noqa: FBT001  (private, named by its only caller)
    status, counts = one.status, one.status.summary
    said = f"{one.key} ({one.spec.mode}, {target(one)})"
    stalled = one.condition("Stalled")
    if stalled is not None and stalled.status == "True":
        return f"{said} cannot run: {untrusted.word(stalled.reason)}. See its conditions."
    if not ended:
        return f"{said} has not ended: {phase(one)}. wait_for_gpu_diagnostic waits for it."
    nodes, gpus = counts.nodes, counts.gpus
    return (
        f"{said}: {health_word(status.verdict)}; {nodes.reporting} of {plural(nodes.targeted, 'node')} answered, "
        f"{gpus.total - gpus.healthy} of {gpus.total} GPUs not Healthy. "
        f"Action: {untrusted.word(status.recommended_action)}."
    )


def _nodes(one: GPUDiagnostic) -> Counts | None:
    """Nodes by health, from the rows; None where not all of them are stored."""
    if one.status.nodes_truncated:
        return None
    rows, total = one.status.nodes, one.status.summary.nodes.targeted
    bad = {word: sum(health_word(row.health) == word for row in rows) for word in ("Degraded", "Unhealthy", "Unknown")}
    return Counts(
        total=total,
        healthy=max(0, total - sum(bad.values())),
        degraded=bad["Degraded"],
        unhealthy=bad["Unhealthy"],
        unknown=bad["Unknown"],
    )


def _node(row: StoredRow) -> NodeRow:
    return NodeRow(
        node=row.name,
        health=health_word(row.health),
        reason=untrusted.word(row.reason),
        action=untrusted.word(row.recommended_action),
        gpus=row.gpus.total,
        bad_gpus=row.gpus.total - row.gpus.healthy,
        ready=not (row.skipped or row.failed),
        breaker=untrusted.word(row.breaker),
        maintenance=row.maintenance,
    )


def _finding(group: FindingGroup) -> FindingRow:
    return FindingRow(
        check=untrusted.word(group.check),
        reason=untrusted.word(group.reason),
        severity=untrusted.word(group.severity),
        blame=untrusted.word(group.blame),
        action=untrusted.word(group.recommended_action),
        count=group.count,
        nodes=group.nodes,
        untrusted_message=untrusted.text(group.message),
    )


def _conditions(one: GPUDiagnostic) -> tuple[ConditionRow, ...]:
    return tuple(
        ConditionRow(
            type=untrusted.word(condition.type),
            status=untrusted.word(condition.status),
            reason=untrusted.word(condition.reason),
            since=condition.last_transition_time,
            untrusted_message=untrusted.text(condition.message),
        )
        for condition in one.status.conditions
    )


def _links(one: GPUDiagnostic) -> tuple[LinkRow, ...]:
    single = one.status.results[:1] if len(one.status.results) == 1 else ()
    return tuple(link for result in single for link in results.links(result))[:LINKS]


def _processes(one: GPUDiagnostic) -> tuple[ProcessRow, ...]:
    return tuple(row for result in one.status.results for row in results.processes(result))[:PROCESSES]


def _samples(one: GPUDiagnostic) -> tuple[SampleRow, ...]:
    single = one.status.results[:1] if len(one.status.results) == 1 else ()
    return tuple(row for result in single for row in results.samples(result))[:SAMPLES]


def _events(one: GPUDiagnostic) -> tuple[EventRow, ...]:
    found = [(result.node, event) for result in one.status.results for event in result.events]
    return events.xids_newest_first(found, EVENTS)
