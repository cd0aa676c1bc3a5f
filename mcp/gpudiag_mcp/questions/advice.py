"""Recommended actions in sentences, what to do about a node that is not read, and in which order."""

from collections.abc import Iterable

from gpudiag_api.vocabulary import Action, Capability, NotRead
from gpudiag_mcp.answers.models import Next

_SENTENCES = {
    Action.NONE: "Nothing to do.",
    Action.CHECK_APPLICATION: "Look at the application: its code, its last change, its input; the GPU is fine.",
    Action.UPDATE_DRIVER: "Plan an update of the NVIDIA driver; the node may stay in use until then.",
    Action.RESTART_FABRIC_MANAGER: "Restart the Fabric Manager on the node, then look again.",
    Action.CHECK_COOLING: "Check fans, airflow and inlet temperature of the server.",
    Action.CHECK_POWER: "Check power supplies, cables and power limits of the server.",
    Action.RESET_GPU_WHEN_IDLE: "Reset the GPU (nvidia-smi --gpu-reset) when no job uses it; no hurry.",
    Action.DRAIN_AND_RESET_GPU: "Drain the node (kubectl drain), reset the GPU (nvidia-smi --gpu-reset), look again.",
    Action.REBOOT_NODE: "Drain the node (kubectl drain) and reboot it, then look again.",
    Action.RESEAT_OR_CHECK_LINK: "Drain the node; have somebody reseat the board or check the link and its cables.",
    Action.RUN_DIAGNOSTICS: "Drain the node and run the vendor's diagnostics (dcgmi diag -r 3).",
    Action.REPLACE_GPU: "Drain the node and have the GPU replaced.",
    Action.CONTACT_SUPPORT: "Drain the node and open a case with the vendor; attach the incident report.",
}
_POD = "the agent's Pod on the node (app.kubernetes.io/name=gpudiag-agent)"
_NETWORK = "the Pod network between operator and node, and NetworkPolicies"
_UNREAD: dict[str, str] = {
    NotRead.NODE_NOT_READY: "Look at the node first (kubectl describe node): its kubelet does not report.",
    NotRead.NODE_GONE: "Bring the node back, or take its name out of the diagnostic's target.",
    NotRead.AGENT_MISSING: "Find out why no agent runs there: affinity and tolerations of DaemonSet gpudiag-agent.",
    NotRead.AGENT_NOT_READY: f"Look at {_POD}: kubectl describe pod, then its log.",
    NotRead.AGENT_DUPLICATE: f"Delete all but one of {_POD}.",
    NotRead.CONNECTION_REFUSED: f"See whether it runs and listens: logs of {_POD}.",
    NotRead.TIMEOUT: f"Check the node's load, {_NETWORK}.",
    NotRead.BODY_TIMEOUT: f"Check {_NETWORK} (MTU), then the log of {_POD}.",
    NotRead.CONNECTION_CLOSED: f"See whether it restarts: kubectl logs --previous of {_POD}.",
    NotRead.SERVER_ERROR: f"Read the log of {_POD}.",
    NotRead.NOT_JSON: "Find out what answers on the agent's port; it is not the agent.",
    NotRead.BAD_RESPONSE: "Bring agent and operator to the same release; then read the agent's log.",
    NotRead.RESPONSE_TOO_LARGE: "Find out what answers on the agent's port; it is not the agent.",
    NotRead.IDENTITY_MISMATCH: "Check GPUDIAG_NODE_NAME of the agent, and for Pods that share an address.",
    NotRead.AGENT_VERSION_SKEW: "Bring agent and operator to the same minor version.",
    NotRead.UNAUTHORIZED: "Check the audience of the operator's token and the service accounts that the agent allows.",
    NotRead.AUTH_UNAVAILABLE: "Check that the agent reaches the API server for TokenReviews.",
    NotRead.STALE_SAMPLE: f"Restart {_POD}: its sampler is stuck.",
    NotRead.CIRCUIT_OPEN: "Wait for the next probe, or look at the reason of its condition AgentReachable.",
    NotRead.FORCED_OPEN: "Somebody forced its circuit breaker open (spec.circuitBreaker of the GPUNode): ask them.",
    Capability.NO_LIBRARY: "Give the agent NVML: runtimeClassName nvidia, or a mount of the driver's libraries.",
    Capability.NO_DRIVER: "Load the NVIDIA driver on the node (nvidia-smi there), then look again.",
    Capability.DRIVER_MISMATCH: "Drain and reboot the node: kernel module and library of the driver differ.",
    Capability.PERMISSION_DENIED: "Give the agent the rights its manifest asks for: privileged, or the GPU devices.",
    Capability.NO_GPUS: "Check that the node has GPUs (lspci), or take its GPU label away.",
    Capability.DRIVER_HUNG: "Drain and reboot the node: its driver does not answer.",
}
_NOT_READ_YET = "Look at the node's condition AgentReachable (describe_gpu_node), then at the operator's log."
_RANKS = {str(action): action.disruption for action in Action}


def covering(actions: Iterable[str]) -> str:
    """The most disruptive of the actions; words that are not known do not count."""
    return max((action for action in actions if action in _RANKS), key=_RANKS.__getitem__, default="None")


def next_step(action: str, *, unread: str | None = None) -> Next:
    """An action and what it means.

    Args:
        action: a word of the vocabulary; one that is not known counts as None.
        unread: why the worst of the nodes could not be read; None: all were. Where no finding asks for more, seeing
            again is the next step.
    """
    known = Action(action) if action in _RANKS else Action.NONE
    if known is Action.NONE and unread is not None:
        return Next(action=str(known), do=_UNREAD.get(unread, _NOT_READ_YET))
    return Next(action=str(known), do=_SENTENCES[known])


def in_order(actions: Iterable[str]) -> list[str]:
    """Distinct known actions that ask for something, the least disruptive first."""
    wanted = {action for action in actions if action in _RANKS and action != "None"}
    return sorted(wanted, key=_RANKS.__getitem__)
