"""One node judged by one diagnostic: its checks, its expectations, its own weight for XIDs.

The GPUNode's health is the default judgement; a diagnostic may filter findings and add its own. Health is then
computed again from what remains. What findings do not explain (a node that was not read, a GPU that could not be
read, an agent that says more than its findings) stays: a filter makes nothing healthy that nobody has seen.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from gpudiag_api.kinds import GPUDiagnosticSpec
from gpudiag_api.vocabulary import Action, Health, NotRead, Severity
from gpudiag_api.wire import Finding, Subject, XIDEvent
from gpudiag_operator.assess import expectations, weigh
from gpudiag_operator.assess.node import ALL_HEALTHY, blinding
from gpudiag_operator.domain import NodeState
from gpudiag_operator.kube import selectors

SKIPPED = frozenset(
    {
        NotRead.NODE_NOT_READY,
        NotRead.AGENT_MISSING,
        NotRead.AGENT_NOT_READY,
        NotRead.AGENT_DUPLICATE,
        NotRead.CIRCUIT_OPEN,
        NotRead.FORCED_OPEN,
    }
)
"""Reasons for which the agent was not called at all; after the others it was called in vain."""


class Row(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One node under one diagnostic."""

    state: NodeState
    health: Health
    """After policy."""
    changed_by_policy: bool = False
    reason: str = ""
    action: Action = Action.NONE
    findings: Sequence[Finding] = ()
    """Those that count, worst first. None of a node that was not read: what is last known is no verdict."""
    gpus: weigh.Counts = weigh.Counts()
    maintenance: bool = False
    burden: int = 0
    """Unhealthy GPUs for ``tolerate``, at least 1 for an Unhealthy node; all of them when the node itself is."""
    blind: bool = False
    """Whether some of the node could not be told."""

    @property
    def top(self) -> Finding | None:
        """The worst finding."""
        return self.findings[0] if self.findings else None


def row(state: NodeState, spec: GPUDiagnosticSpec) -> Row:
    """Judge one node. For many nodes make one :class:`Judge`.

    Raises:
        SelectorError: ``policy.maintenanceSelector`` is no selector.
    """
    return Judge(spec).row(state)


class Judge:
    """A diagnostic's policy, made ready for many nodes.

    Raises:
        SelectorError: ``policy.maintenanceSelector`` is no selector.
    """

    def __init__(self, spec: GPUDiagnosticSpec) -> None:
        policy = spec.policy
        self._policy = policy
        self._counts_check = _check_filter(spec)
        xids = policy.xids
        self._ignored = frozenset((xids.ignore if xids else None) or ())
        self._critical = frozenset((xids.critical if xids else None) or ())
        self._expects = expectations.any_of(policy)
        self._plain = not (spec.checks or self._ignored or self._critical or self._expects)
        chosen = policy.maintenance_selector
        self._maintained = (
            None if chosen is None else selectors.from_object(chosen.model_dump(by_alias=True, exclude_none=True))
        )

    def row(self, state: NodeState) -> Row:
        """Judge one node."""
        maintenance = state.maintenance or (self._maintained is not None and self._maintained.matches(state.labels))
        if state.failure is not None:
            number = len(state.gpus)
            return Row(
                state=state,
                health=Health.UNKNOWN,
                reason=state.reason,
                gpus=weigh.Counts(total=number, unknown=number),
                maintenance=maintenance,
                blind=True,
            )
        if self._plain:
            return _as_assessed(state, maintenance=maintenance)
        # Most nodes have nothing that a policy could weigh; what is left of it is what it expects.
        weighed = state.findings or (self._critical and state.xids)
        findings = weigh.worst_first(self._findings(state) if weighed else expectations.unmet(self._policy, state))
        if not (weighed or findings):
            return _as_assessed(state, maintenance=maintenance)
        missing = expectations.missing(self._policy, state)
        return _judged(state, findings, maintenance=maintenance, missing=missing)

    def _findings(self, state: NodeState) -> Iterable[Finding]:
        """Findings that count here, those of the policy included."""
        covered = set()
        for finding in state.findings:
            if not self._counts_check(finding.check):
                continue
            code = weigh.xid_code(finding)
            if code in self._critical:
                covered.add((code, _place(finding.subject)))
                yield msgspec.structs.replace(finding, severity=Severity.CRITICAL)
            elif code not in self._ignored:
                yield finding
        if self._critical and self._counts_check("XID"):
            for event in state.xids:
                if event.code in self._critical and (event.code, _place(event.subject)) not in covered:
                    yield _raised(event)
        yield from expectations.unmet(self._policy, state)


def _place(subject: Subject) -> str:
    return subject.gpu_uuid or subject.pci or ""


def _check_filter(spec: GPUDiagnosticSpec) -> Callable[[str], bool]:
    checks = spec.checks
    include = frozenset(map(str, checks.include)) if checks and checks.include else None
    exclude = frozenset(map(str, checks.exclude or ())) if checks else frozenset()
    return lambda check: check not in exclude and (include is None or check in include)


def _raised(event: XIDEvent) -> Finding:
    return Finding(
        check="XID",
        reason=f"XID{event.code}",
        severity=Severity.CRITICAL,
        blame=event.blame,
        action=event.action,
        message=event.message or f"XID {event.code} is in the kernel log.",
        subject=event.subject,
        first_seen=event.first_seen,
        last_seen=event.last_seen,
        count=event.count,
    )


def _as_assessed(state: NodeState, *, maintenance: bool) -> Row:
    """The default judgement, which ``assess`` has made already."""
    number = len(state.gpus)
    of_node: tuple[Finding, ...] = ()
    if state.health is Health.HEALTHY:
        gpus = weigh.Counts(total=number, healthy=number)
    else:
        of_node = weigh.critical_beyond(state.gpus, state.findings)
        gpus = weigh.count((gpu.health for gpu in state.gpus), of_node)
    return Row(
        state=state,
        health=state.health,
        reason=state.reason,
        action=state.action,
        findings=state.findings,
        gpus=gpus,
        maintenance=maintenance,
        burden=_burden(state.health, gpus, of_node, 0),
        blind=gpus.unknown > 0 or state.health is Health.UNKNOWN or blinding(state.capabilities) is not None,
    )


def _judged(state: NodeState, findings: Sequence[Finding], *, maintenance: bool, missing: int) -> Row:
    """Health from the findings that count, on top of what the node's own findings do not explain."""
    blind = blinding(state.capabilities) is not None
    floor = Health.UNKNOWN if blind else Health.HEALTHY
    own, here = weigh.by_gpu(state.gpus, state.findings), weigh.by_gpu(state.gpus, findings)
    healths = [
        weigh.health_from(here.get(at, ()), Health.worst((floor, _unexplained(gpu.health, own.get(at, ())))))
        for at, gpu in enumerate(state.gpus)
    ]
    explained = weigh.health_from(state.findings, Health.worst([gpu.health for gpu in state.gpus] or [Health.HEALTHY]))
    rest = state.health if state.health.badness > explained.badness else floor
    health = weigh.health_from(findings, Health.worst([rest, *healths]))
    of_node = here.get(weigh.NODE, [])
    gpus = weigh.count(healths, of_node)
    return Row(
        state=state,
        health=health,
        changed_by_policy=health is not state.health,
        reason=_reason(health, state, findings),
        action=Action.covering(finding.action for finding in findings),
        findings=findings,
        gpus=gpus,
        maintenance=maintenance,
        burden=_burden(health, gpus, of_node, missing),
        blind=blind or gpus.unknown > 0 or Health.UNKNOWN in (health, rest),
    )


def _unexplained(health: Health, findings: Iterable[Finding]) -> Health:
    return health if health.badness > weigh.health_from(findings).badness else Health.HEALTHY


def _burden(health: Health, gpus: weigh.Counts, of_node: Iterable[Finding], missing: int) -> int:
    if health is not Health.UNHEALTHY:
        return 0
    if any(_is_about_all(finding) for finding in of_node):
        return max(1, gpus.total)
    return max(1, gpus.unhealthy + missing)


def _is_about_all(finding: Finding) -> bool:
    named = finding.subject.pci or finding.subject.gpu_uuid
    return finding.severity is Severity.CRITICAL and not named and finding.check != expectations.CHECK


def _reason(health: Health, state: NodeState, findings: Iterable[Finding]) -> str:
    if health is Health.HEALTHY:
        return ALL_HEALTHY
    for finding in findings:
        if finding.severity.health is health:
            return finding.reason
    gap = blinding(state.capabilities)
    if gap is not None and health is Health.UNKNOWN:
        return str(gap.reason)
    return state.reason if health is state.health else "ReportedByAgent"
