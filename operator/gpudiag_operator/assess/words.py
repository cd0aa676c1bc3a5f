"""How the operator says things to people: subjects as names, verdicts as sentences."""

from gpudiag_api.vocabulary import Action, NotRead
from gpudiag_api.wire import Finding, Subject


def subject_name(subject: Subject) -> str:
    """``GPU 3``, ``GPU 3 MIG gi1/ci0``, ``GPU 0000:3b:00.0``, or ``the node``."""
    mig = "" if subject.mig_gpu_instance is None else f" MIG gi{subject.mig_gpu_instance}"
    if mig and subject.mig_compute_instance is not None:
        mig += f"/ci{subject.mig_compute_instance}"
    if subject.gpu_index is not None:
        return f"GPU {subject.gpu_index}{mig}"
    name = subject.pci or subject.gpu_uuid
    return f"GPU {name}{mig}" if name else "the node"


def public_message(finding: Finding) -> str:
    """A finding's sentence for readers who may not see processes: the driver's own words on an XID name them."""
    if finding.check != "XID":
        return finding.message
    return f"{subject_name(finding.subject)}: {finding.reason} in the kernel log."


def sentence(verdict: str, evidence: str, action: Action, *, more: int = 0) -> str:
    """Verdict, evidence, next action in one sentence.

    Args:
        verdict: a word of Health.
        evidence: what shows it.
        action: the recommended action.
        more: number of further findings.
    """
    text = f"{verdict}: {evidence.rstrip('. ')}"
    if more:
        text += f" (and {more} more {'finding' if more == 1 else 'findings'})"
    advice = action.advice
    return f"{text}; next: {advice}." if advice else f"{text}."


NOT_READ: dict[NotRead, str] = {
    NotRead.NODE_NOT_READY: "the Node is not Ready; see its conditions",
    NotRead.NODE_GONE: "there is no Node of that name; correct spec.target.nodeNames or bring the node back",
    NotRead.AGENT_MISSING: "no agent runs on the node; check the DaemonSet's node selector and tolerations",
    NotRead.AGENT_NOT_READY: "the node's agent is not ready; see its Pod and log",
    NotRead.AGENT_DUPLICATE: "more than one agent runs on the node; leave one DaemonSet",
    NotRead.CONNECTION_REFUSED: "nothing listens at the agent's address; see the agent's Pod and log",
    NotRead.TIMEOUT: "the agent does not answer in time; check the network path and the agent's log",
    NotRead.BODY_TIMEOUT: "the agent's answer stops half way; check the network path and the agent's log",
    NotRead.CONNECTION_CLOSED: "the connection to the agent breaks; check the network path and the agent's log",
    NotRead.SERVER_ERROR: "the agent answers with an error; see its log",
    NotRead.NOT_JSON: "what answers at the agent's address is no agent; check its port and the network path",
    NotRead.BAD_RESPONSE: "the agent's answer is no report; see its log and version",
    NotRead.RESPONSE_TOO_LARGE: "the agent's answer is too large; see its log and version",
    NotRead.IDENTITY_MISMATCH: "an agent of another node answers; check for reused Pod addresses",
    NotRead.AGENT_VERSION_SKEW: "the agent's version is too far from the operator's; upgrade the older one",
    NotRead.UNAUTHORIZED: "the agent refuses the operator's token; check its audience and the agent's settings",
    NotRead.AUTH_UNAVAILABLE: "the agent cannot check tokens; check its way to the API server",
    NotRead.STALE_SAMPLE: "the agent answers and its samples are old; see its log, the driver may hang",
    NotRead.CIRCUIT_OPEN: "the agent failed too often and is left alone for now; see the GPUNode's circuit breaker",
    NotRead.FORCED_OPEN: "people switched reading off; see spec.circuitBreaker of the GPUNode",
}
"""Why a node is not read and what to do, without names: for readers who may not see the agents' Pods."""
