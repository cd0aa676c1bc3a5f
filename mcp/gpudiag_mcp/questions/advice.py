"""Recommended actions in sentences, and the order in which to take them."""

from collections.abc import Iterable

from gpudiag_api.vocabulary import Action
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
_RANKS = {str(action): action.disruption for action in Action}


def covering(actions: Iterable[str]) -> str:
    """The most disruptive of the actions; words that are not known do not count."""
    return max((action for action in actions if action in _RANKS), key=_RANKS.__getitem__, default="None")


def next_step(action: str) -> Next:
    """An action and what it means."""
    known = Action(action) if action in _RANKS else Action.NONE
    return Next(action=str(known), do=_SENTENCES[known])


def in_order(actions: Iterable[str]) -> list[str]:
    """Distinct known actions that ask for something, the least disruptive first."""
    wanted = {action for action in actions if action in _RANKS and action != "None"}
    return sorted(wanted, key=_RANKS.__getitem__)
