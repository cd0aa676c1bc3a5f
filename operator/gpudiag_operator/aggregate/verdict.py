"""From numbers to one word and one sentence: the worst of the parts, subject to ``tolerate``."""

import msgspec

from gpudiag_api.kinds.gpudiagnostic import Tolerate
from gpudiag_api.vocabulary import Health
from gpudiag_operator.aggregate.tally import Tally
from gpudiag_operator.assess.policy import Row
from gpudiag_operator.assess.words import NOT_READ, public_message, subject_name
from gpudiag_operator.conditions import clip

TEXT_LIMIT = 300
"""Characters of a finding's or a failure's text where it is one of many."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict, and what was tolerated on the way to it."""

    health: Health
    tolerated_gpus: int = 0
    tolerated_nodes: int = 0


def within(number: int, total: int, limit: int | str) -> bool:
    """Whether ``number`` of ``total`` is tolerated by ``limit``: a number, or a percentage such as ``5%``.

    Raises:
        ValueError: text that is no percentage (the CRD refuses it).
    """
    if isinstance(limit, str):
        return number * 100 <= int(limit.removesuffix("%")) * total
    return number <= limit


def verdict(sums: Tally, tolerate: Tolerate) -> Verdict:
    """Judge all nodes that count. Of none at all: Unknown, since no data is not healthy."""
    if not sums.counted_nodes:
        return Verdict(health=Health.UNKNOWN)
    gpus_ok = within(sums.burden, sums.counted_gpus, tolerate.unhealthy_gpus)
    nodes_ok = within(sums.blind_nodes, sums.counted_nodes, tolerate.unknown_nodes)
    parts = [Health.HEALTHY]
    if sums.burden:
        parts.append(Health.DEGRADED if gpus_ok else Health.UNHEALTHY)
    if sums.blind_nodes:
        parts.append(Health.DEGRADED if nodes_ok else Health.UNKNOWN)
    if sums.degraded_nodes:
        parts.append(Health.DEGRADED)
    return Verdict(
        health=Health.worst(parts),
        tolerated_gpus=sums.burden if gpus_ok else 0,
        tolerated_nodes=sums.blind_nodes if nodes_ok else 0,
    )


def plural(number: int, one: str) -> str:
    """``1 node``, ``3 nodes``."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


NO_NODE = "the target matches no GPU node; correct spec.target, or label the nodes it should match"


def message(result: Verdict, sums: Tally, worst: Row | None, *, show_pods: bool, nobody: str = NO_NODE) -> str:
    """The verdict in one sentence: what is wrong, where, what to do.

    Args:
        result: the verdict.
        sums: its numbers.
        worst: the worst row that counts; None when none does.
        show_pods: whether the reader may see Pods and processes.
        nobody: why there may be no node, and what to do.
    """
    if worst is None:
        if sums.maintenance:
            return f"Unknown: all {plural(sums.maintenance, 'node')} targeted are under maintenance."
        return clip(f"Unknown: {nobody}.", 1024)
    if result.health is Health.HEALTHY:
        return f"Healthy: {plural(sums.counted_gpus, 'GPU')} on {plural(sums.counted_nodes, 'node')} work."
    parts = [*_numbers(sums), *_tolerated(result)]
    text = f"{result.health}: {', '.join(parts)}; worst: {worst.state.name}, {evidence(worst, show_pods=show_pods)}"
    advice = worst.action.advice
    return clip(f"{text.rstrip('. ')}; next: {advice}." if advice else f"{text.rstrip('. ')}.", 1024)


def evidence(row: Row, *, show_pods: bool) -> str:
    """What shows a row's health: its worst finding, or why the node was not read."""
    failure = row.state.failure
    if failure is not None:
        return clip(f"{failure.reason}: {failure.message if show_pods else NOT_READ[failure.reason]}", TEXT_LIMIT)
    top = row.top
    if top is not None and top.severity.health is row.health:
        return clip((top.message if show_pods else public_message(top)) or top.reason, TEXT_LIMIT)
    return row.reason


def remembered(row: Row) -> str:
    """The worst finding from before a node fell silent; empty when there was none."""
    known = row.state.findings
    if row.state.failure is None or not known or known[0].severity.health is Health.HEALTHY:
        return ""
    return f"; last known: {known[0].severity} {known[0].reason} on {subject_name(known[0].subject)}"


def _numbers(sums: Tally) -> list[str]:
    found = []
    if sums.burden:
        where = plural(sums.unhealthy_nodes, "node")
        found.append(f"{sums.burden} of {plural(sums.counted_gpus, 'GPU')} on {where} Unhealthy")
    for number, word in ((sums.blind_nodes, Health.UNKNOWN), (sums.degraded_nodes, Health.DEGRADED)):
        if number:
            found.append(f"{number} of {plural(sums.counted_nodes, 'node')} {word}")
    return found


def _tolerated(result: Verdict) -> list[str]:
    found = []
    if result.tolerated_gpus:
        found.append(f"{plural(result.tolerated_gpus, 'Unhealthy GPU')} tolerated by policy")
    if result.tolerated_nodes:
        found.append(f"{plural(result.tolerated_nodes, 'Unknown node')} tolerated by policy")
    return found
