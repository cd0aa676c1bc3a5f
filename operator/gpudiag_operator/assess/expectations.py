"""What a diagnostic expects of every node, as findings of the check ``Policy``.

A GPU that is missing weighs like a GPU that is broken. Another driver or model than expected is worth a look, but the
GPUs work: Warning.
"""

from collections.abc import Iterator

from gpudiag_api.kinds.gpudiagnostic import Policy
from gpudiag_api.times import to_rfc3339
from gpudiag_api.vocabulary import Action, Blame, Severity
from gpudiag_api.wire import Evidence, Finding
from gpudiag_operator.domain import NodeState

CHECK = "Policy"
"""Not a check of the agent: ``spec.checks`` does not filter what ``spec.policy`` asks for."""

_TIMELESS = to_rfc3339(0)
"""An expectation has no first sight; these findings live in rows only, which carry no times."""


def any_of(policy: Policy) -> bool:
    """Whether the policy expects anything of a node."""
    return bool(policy.expected_gpus_per_node or policy.expected_driver_version or policy.expected_model)


def missing(policy: Policy, state: NodeState) -> int:
    """GPUs that a node lacks."""
    return max((policy.expected_gpus_per_node or 0) - len(state.gpus), 0)


def unmet(policy: Policy, state: NodeState) -> Iterator[Finding]:
    """Expectations that a node that was read does not meet. What is unknown is not held against it."""
    want, have = policy.expected_gpus_per_node, len(state.gpus)
    if want is not None and have != want:
        yield _finding(
            "UnexpectedGPUCount",
            Severity.CRITICAL if have < want else Severity.WARNING,
            Action.RUN_DIAGNOSTICS if have < want else Action.NONE,
            f"{have} {'GPU' if have == 1 else 'GPUs'} instead of {want}.",
            Evidence(name="gpus", value=str(have), threshold=str(want)),
        )
    driver, wanted = state.driver.version, policy.expected_driver_version
    if wanted is not None and driver is not None and driver != wanted:
        yield _finding(
            "UnexpectedDriverVersion",
            Severity.WARNING,
            Action.UPDATE_DRIVER,
            f"driver {driver} instead of {wanted}.",
            Evidence(name="driverVersion", value=driver, threshold=wanted),
        )
    model = policy.expected_model
    others = sorted({gpu.model for gpu in state.gpus if gpu.model and gpu.model != model}) if model else []
    if model is not None and others:
        yield _finding(
            "UnexpectedModel",
            Severity.WARNING,
            Action.NONE,
            f"{', '.join(others)} instead of {model}; correct the node's pool or spec.policy.expectedModel.",
            Evidence(name="model", value=others[0], threshold=model),
        )


def _finding(reason: str, severity: Severity, action: Action, message: str, evidence: Evidence) -> Finding:
    return Finding(
        check=CHECK,
        reason=reason,
        severity=severity,
        blame=Blame.UNKNOWN,
        action=action,
        message=message,
        evidence=(evidence,),
        first_seen=_TIMELESS,
        last_seen=_TIMELESS,
    )
