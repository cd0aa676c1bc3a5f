"""Fresh reads for ``Once`` runs: every target sampled and read now, all within one deadline.

Over short-lived connections beside the polls, under the same limit. A run looks at breakers and never changes them:
it must not use up the one probe, and a run that somebody starts every minute must not keep breakers open or closed.
"""

import asyncio
from collections.abc import Callable, Mapping

from gpudiag_api.vocabulary import BreakerState, NotRead
from gpudiag_operator.collect.limiter import Slot
from gpudiag_operator.collect.outcome import Answer, FetchError
from gpudiag_operator.collect.poller import Caller
from gpudiag_operator.collect.record import NodeRecord
from gpudiag_operator.collect.shared import Shared
from gpudiag_operator.domain import Failure, NodeDetails, Reading, Target

Fresh = tuple[Answer, NodeDetails | None]
"""What a fresh read of one node gives."""
OnProgress = Callable[[int, int], None]
"""Called with (nodes done, nodes in all) after each node."""


async def fetch_fresh(
    records: Mapping[str, NodeRecord | None],
    caller: Caller,
    shared: Shared[Fresh],
    *,
    deadline: float,
    run_id: str,
    wall: Callable[[], float],
    full: bool = False,
    on_progress: OnProgress | None = None,
) -> dict[str, Reading]:
    """Read nodes afresh.

    Args:
        records: by node name; None for a name that is no target.
        caller: makes the calls.
        shared: those under way: runs at the same time ask a node once.
        deadline: seconds from now, by which this returns with what there is.
        run_id: sent along as correlation id.
        wall: Unix seconds.
        full: ask for flight recorder, topology and processes as well.
        on_progress: see there.

    Returns:
        A reading for every name, with a failure for those that could not be read: the reason the target is blocked,
        the reason its breaker opened (else CircuitOpen), ForcedOpen, NodeGone, Timeout for what was not back in time,
        or what the call gave. Any failure counts at once here.
    """
    done: dict[str, Reading] = {}

    async def read(node: str, record: NodeRecord) -> None:
        done[node] = await _read(record, caller, shared, run_id, wall, full=full)
        if on_progress is not None:
            on_progress(len(done), len(records))

    try:
        async with asyncio.timeout(deadline), asyncio.TaskGroup() as group:
            for node, record in records.items():
                if record is None:
                    done[node] = _gone(node, wall())
                elif (refused := _refusal(record)) is not None:
                    done[node] = _failed(record, *refused, wall())
                else:
                    group.create_task(read(node, record))
            if on_progress is not None:
                on_progress(len(done), len(records))
    except TimeoutError:
        message = f"not back within the run's deadline of {deadline:g}s"
        for node, record in records.items():
            if node not in done and record is not None:
                done[node] = _failed(record, NotRead.TIMEOUT, message, wall())
    return done


async def _ask(record: NodeRecord, caller: Caller, run_id: str, *, full: bool) -> Fresh:
    slot = Slot(caller.limiter, urgent=True)
    await slot.hold()
    try:
        answer = await caller.fresh(record, slot, run_id)
        return answer, await caller.details(record, slot, run_id) if full else None
    finally:
        slot.drop()


async def _read(
    record: NodeRecord, caller: Caller, shared: Shared[Fresh], run_id: str, wall: Callable[[], float], *, full: bool
) -> Reading:
    try:
        # By Pod, not by node: one that was replaced meanwhile is another to be asked.
        answer, details = await shared.do((record.target.pod, full), lambda: _ask(record, caller, run_id, full=full))
    except FetchError as error:
        return _failed(record, error.reason, error.message, wall())
    return Reading(
        target=record.target,
        report=answer.report,
        etag=answer.etag,
        breaker=record.breaker.snapshot(),
        read_at=wall(),
        details=details,
    )


def _refusal(record: NodeRecord) -> tuple[NotRead, str] | None:
    """Why a target is not called at all."""
    if record.target.blocked is not None:
        return record.target.blocked, record.target.message
    if record.breaker.state is BreakerState.FORCED_OPEN:
        return NotRead.FORCED_OPEN, "not called: spec.circuitBreaker of its GPUNode is ForceOpen"
    if record.breaker.admits_bystanders:
        return None
    reason, message = record.cause or (NotRead.CIRCUIT_OPEN, "the circuit breaker is being probed")
    delay = record.breaker.delay()
    when = f"; next probe in {delay:.0f}s" if delay else ""
    return reason, f"not called, the circuit breaker is {record.breaker.state}{when}: {message}"


def _failed(record: NodeRecord, reason: NotRead, message: str, now: float) -> Reading:
    since = record.since if record.cause is not None else now
    return Reading(
        target=record.target,
        report=record.report,
        etag=record.etag,
        failure=Failure(reason=reason, message=message, since=since),
        breaker=record.breaker.snapshot(),
        read_at=record.read_at,
    )


def _gone(node: str, now: float) -> Reading:
    message = "there is no such node, or nothing on it shows that it has NVIDIA GPUs"
    return Reading(target=Target(node=node), failure=Failure(reason=NotRead.NODE_GONE, message=message, since=now))
