"""The conditions of a judged diagnostic, from its numbers.

``Ready`` says that this generation was processed and the data is fresh, nothing about GPUs: a sick GPU must not
block a rollout. Messages name the commonest cause and an example.
"""

from gpudiag_api.vocabulary import NotRead
from gpudiag_operator.aggregate.tally import Tally
from gpudiag_operator.aggregate.verdict import plural
from gpudiag_operator.assess.words import NOT_READ
from gpudiag_operator.conditions import ConditionSet

_WRITTEN = " written."


def filling(written: int, wanted: int) -> str:
    """How far the first write of GPUNodes has come, for the message of ``Ready``."""
    return f"{written} of {plural(wanted, 'node')}{_WRITTEN}"


def says_filling(message: str) -> bool:
    """Whether a message of ``Ready`` says so."""
    return message.endswith(_WRITTEN)


def ready(conditions: ConditionSet, sums: Tally, *, stale: str, filling: str = "") -> None:
    """Set ``Ready``: Fresh, NoTargets, Stale or NoNodeAnswered."""
    if stale:
        conditions.set("Ready", "False", "Stale", stale)
    elif not sums.targeted:
        conditions.set("Ready", "True", "NoTargets", "The target matches no GPU node.")
    elif sums.reporting:
        text = f"{sums.reporting} of {plural(sums.targeted, 'node')} answered. {filling}".rstrip()
        conditions.set("Ready", "True", "Fresh", text)
    elif set(sums.not_read) == {NotRead.STALE_SAMPLE}:
        conditions.set("Ready", "False", "Stale", _cause(sums))
    else:
        conditions.set("Ready", "False", "NoNodeAnswered", _cause(sums))


def complete(conditions: ConditionSet, sums: Tally, *, deadline_exceeded: bool) -> None:
    """Set ``Complete`` of a Once run that ended: Succeeded, DeadlineExceeded or NoNodeAnswered."""
    if sums.targeted and not sums.reporting:
        conditions.set("Complete", "True", "NoNodeAnswered", _cause(sums))
    elif deadline_exceeded:
        conditions.set(
            "Complete", "True", "DeadlineExceeded", f"The run ended by spec.deadline with what it had. {_cause(sums)}"
        )
    else:
        conditions.set("Complete", "True", "Succeeded", f"{plural(sums.targeted, 'node')} asked.")


def gpus_healthy(conditions: ConditionSet, sums: Tally) -> None:
    """Set ``GPUsHealthy``: the facts of nodes that count, before anything is tolerated."""
    if sums.burden:
        message = f"{plural(sums.burden, 'GPU')} Unhealthy on {plural(sums.unhealthy_nodes, 'node')}."
        conditions.set("GPUsHealthy", "False", "Failures", message)
    elif sums.blind_nodes or not sums.counted_nodes:
        message = f"{plural(sums.blind_nodes, 'node')} could not be told." if sums.blind_nodes else "No node counts."
        conditions.set("GPUsHealthy", "Unknown", "NotAllKnown", message)
    elif sums.degraded_nodes:
        message = f"{plural(sums.degraded_nodes, 'node')} Degraded."
        conditions.set("GPUsHealthy", "False", "Warnings", message)
    else:
        conditions.set("GPUsHealthy", "True", "AllHealthy", f"{plural(sums.counted_gpus, 'GPU')} Healthy.")


_NO_WAY = frozenset({NotRead.TIMEOUT, NotRead.CONNECTION_REFUSED})
"""Of all agents at once, while their Pods are Ready: it is the way to them."""
_NOT_CALLED = frozenset(
    {
        NotRead.NODE_NOT_READY,
        NotRead.NODE_GONE,
        NotRead.AGENT_MISSING,
        NotRead.AGENT_NOT_READY,
        NotRead.AGENT_DUPLICATE,
        NotRead.FORCED_OPEN,
    }
)
"""Nobody tried the way: these neither show that it is broken nor that it is not."""


def agents_reachable(conditions: ConditionSet, sums: Tally, *, no_way: str = "") -> None:
    """Set ``AgentsReachable``, maintenance or not.

    Args:
        conditions: they are set here.
        sums: the numbers.
        no_way: what to say when no Ready agent at all can be connected to.
    """
    if not sums.targeted:
        conditions.set("AgentsReachable", "Unknown", "NoTargets", "The target matches no GPU node.")
    elif not sums.not_read:
        conditions.set("AgentsReachable", "True", "AllReachable", f"{plural(sums.reporting, 'agent')} answered.")
    else:
        reason = "SomeUnreachable" if sums.reporting else "NoneReachable"
        called = sums.not_read.keys() - _NOT_CALLED
        blocked = not sums.reporting and called and called <= _NO_WAY
        conditions.set("AgentsReachable", "False", reason, f"{_cause(sums)} {no_way if blocked else ''}".rstrip())


def breakers_closed(conditions: ConditionSet, sums: Tally) -> None:
    """Set ``CircuitBreakersClosed``."""
    if sums.breakers_open:
        number = plural(len(sums.breakers_open), "circuit breaker")
        message = f"{number} not closed, for example that of {min(sums.breakers_open)}."
        conditions.set("CircuitBreakersClosed", "False", "SomeOpen", message)
    else:
        conditions.set("CircuitBreakersClosed", "True", "AllClosed", "No node is being spared.")


def _cause(sums: Tally) -> str:
    """Nodes that were not read, the commonest reason first."""
    if not sums.not_read:
        return "All nodes answered."
    reasons = sorted(sums.not_read.items(), key=lambda item: (-item[1], item[0]))
    top = reasons[0][0]
    numbers = ", ".join(f"{number} {reason}" for reason, number in reasons[:5])
    not_read = sum(sums.not_read.values())
    return (
        f"{not_read} of {plural(sums.targeted, 'node')} not read: {numbers};"
        f" for example {sums.not_read_nodes[top]}: {NOT_READ[top]}."
    )
