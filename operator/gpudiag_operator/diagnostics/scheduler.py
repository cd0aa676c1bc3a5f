"""One task that keeps every GPUDiagnostic's status true.

Level-triggered: whatever happened, the stage of a diagnostic is decided anew from its object and its last status
(:mod:`.stages`), so a restart, a lost event or a change half-way ends in the same state. Time decides only when
(:mod:`.pacing`).
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from gpudiag_api import durations
from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_operator.aggregate import judged
from gpudiag_operator.aggregate.change import next_write, same_meaning, worsened
from gpudiag_operator.aggregate.progress import Phase, Stall
from gpudiag_operator.diagnostics import stages
from gpudiag_operator.diagnostics.once import OnceRuns, Order, Outcome
from gpudiag_operator.diagnostics.pacing import Pacing
from gpudiag_operator.diagnostics.ports import Deleter, Surroundings, Writer
from gpudiag_operator.diagnostics.registry import Diagnostic, DiagnosticRegistry, Key
from gpudiag_operator.diagnostics.stages import Stage
from gpudiag_operator.diagnostics.statuses import Statuses
from gpudiag_operator.diagnostics.targets import TargetIndex, scope_of
from gpudiag_operator.domain import NodeState
from gpudiag_operator.observability.logs import bound

log = logging.getLogger(__name__)

NEVER = float("inf")
WARM_SECONDS = 0.25
"""How often to look whether the fleet is known yet."""
SLICE_SECONDS = 0.1
"""Judging goes on for so long (and to the end of the judgement under way) before others get the loop."""
MAX_FULL_NODES = 10
"""A status has room for so many nodes in full (design, section 4.1)."""
RERUN_SECONDS = 60.0
"""After a run that a bug of ours ended."""


@dataclass
class _Entry:
    """What is remembered of one diagnostic."""

    uid: str
    known: GPUDiagnosticStatus | None
    """The status last submitted, or else the stored one."""
    generation: int = -1
    """That was looked at last."""
    due: float = 0.0
    pacing: Pacing = field(default_factory=lambda: Pacing(interval=0.0, confirm_at=NEVER))


class Scheduler:
    """Judges diagnostics when something changed and hands statuses to the writer. ``run`` it.

    Args:
        registry: the diagnostics; call ``notice`` for each change.
        index: their nodes; call ``node_changed`` for each change.
        writer: takes statuses.
        deleter: takes what has expired.
        runs: a factory of OnceRuns, given what to call when a place is free.
        around: the rest of the operator.
    """

    def __init__(
        self,
        registry: DiagnosticRegistry,
        index: TargetIndex,
        *,
        writer: Writer,
        deleter: Deleter,
        runs: Callable[[Callable[[], None]], OnceRuns],
        around: Surroundings,
    ) -> None:
        self._registry = registry
        self._index = index
        self._writer = writer
        self._deleter = deleter
        self._around = around
        self._statuses = Statuses(around)
        self._runs = runs(self._place_free)
        self._entries: dict[Key, _Entry] = {}
        self._wake = asyncio.Event()
        self._waiting: dict[Key, None] = {}
        """Once diagnostics that wait for a place, the first come first."""
        self._critical: frozenset[int] | None = None
        self._noticed = False

    def notice(self, key: Key) -> None:
        """A diagnostic is new, changed or gone."""
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry(uid="", known=None)
        else:
            entry.due = 0.0
        self._noticed = True
        self._wake.set()

    def node_changed(self, name: str) -> None:
        """A node is new, changed or gone."""
        now = self._around.monotonic()
        for key in self._index.concerned(name):
            entry = self._entries.get(key)
            if entry is not None:
                entry.pacing.touch(now)
                entry.due = min(entry.due, entry.pacing.due())
        self._wake.set()

    async def run(self) -> NoReturn:
        """Schedule until cancelled; runs under way are cancelled then, too."""
        try:
            while True:
                self._wake.clear()
                began = self._around.monotonic()
                delay = self.step()
                # As long as it took, others have the loop: agents are read at the same time.
                await asyncio.sleep(min(self._around.monotonic() - began, SLICE_SECONDS))
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), None if delay == NEVER else delay)
        finally:
            await self._runs.close()

    def step(self) -> float:
        """Do what is due; gives the seconds until something is."""
        began = self._around.monotonic()
        for key, entry in sorted(self._entries.items(), key=lambda item: item[1].due):
            if entry.due > began or self._around.monotonic() - began > SLICE_SECONDS:
                break
            entry.due = self._look(key, entry)
        if self._noticed:
            self._noticed = False
            self._tell_critical()
        earliest = min((entry.due for entry in self._entries.values()), default=NEVER)
        return max(0.0, earliest - self._around.monotonic())

    def _look(self, key: Key, entry: _Entry) -> float:
        """Do what one diagnostic needs now; gives when to look again."""
        diagnostic = self._registry.get(key)
        if diagnostic is None or diagnostic.deleting:
            self._drop(key)
            return NEVER
        if entry.uid != diagnostic.uid:
            self._runs.cancel(key)
            self._writer.forget(key)
            entry.uid, entry.known, entry.generation = diagnostic.uid, stages.stored_status(diagnostic), -1
        halt = stages.stall(diagnostic, self._registry.excess(key))
        if entry.generation != diagnostic.generation:
            self._new_spec(diagnostic, entry, readable=halt is None)
        with bound(diagnostic=str(key)):
            return self._act(diagnostic, entry, halt)

    def _new_spec(self, diagnostic: Diagnostic, entry: _Entry, *, readable: bool) -> None:
        """Start over from what the new spec says; a run of the old one is void."""
        entry.generation = diagnostic.generation
        self._runs.cancel(diagnostic.key)
        if readable:
            self._index.assign(diagnostic.key, scope_of(diagnostic))
        entry.pacing = Pacing(
            interval=durations.parse(diagnostic.spec.interval), confirm_at=self._statuses.confirm_at(entry.known)
        )

    def _act(self, diagnostic: Diagnostic, entry: _Entry, halt: tuple[Stall, str] | None) -> float:
        match stages.stage(diagnostic, entry.known, halt):
            case Stage.STALLED:
                assert halt is not None
                return self._stall(diagnostic, entry, *halt)
            case Stage.SUSPENDED:
                self._runs.cancel(diagnostic.key)
                return self._progress(diagnostic, entry, Phase.SUSPENDED)
            case Stage.CONTINUOUS:
                return self._judge(diagnostic, entry)
            case Stage.ONCE_DUE:
                return self._start(diagnostic, entry)
            case Stage.ONCE_DONE:
                return self._expire(diagnostic, entry)

    # Not judged

    def _stall(self, diagnostic: Diagnostic, entry: _Entry, reason: Stall, message: str) -> float:
        self._runs.cancel(diagnostic.key)
        self._index.remove(diagnostic.key)
        entry.generation = -1  # once it is served, the index must have it again
        self._submit_if_new(diagnostic, entry, self._statuses.stalled(diagnostic, entry.known, reason, message))
        return NEVER

    def _progress(self, diagnostic: Diagnostic, entry: _Entry, phase: Phase, message: str = "") -> float:
        self._submit_if_new(diagnostic, entry, self._statuses.progress(diagnostic, entry.known, phase, message))
        return NEVER

    # Continuous

    def _judge(self, diagnostic: Diagnostic, entry: _Entry) -> float:
        now = self._around.monotonic()
        if not self._around.warm():
            return now + WARM_SECONDS
        if entry.pacing.due() > now:
            return entry.pacing.due()
        states, missing = self._index.states(diagnostic.key)
        filling = self._filling(diagnostic.key, states)
        status = self._statuses.judged(
            diagnostic, entry.known, states=states, missing=missing, run_id=uuid.uuid4().hex, filling=filling
        )
        entry.pacing.judged(now, self._around.monotonic() - now)
        self._move(diagnostic, entry, status, now)
        if filling:
            entry.pacing.repeat(now)
        return entry.pacing.due()

    def _filling(self, key: Key, states: Sequence[NodeState]) -> str:
        """How far the first write of its GPUNodes has come; empty when there is nothing to say."""
        unwritten = self._index.unwritten(key, self._around.unwritten())
        if not unwritten:
            return ""
        wanted = len(unwritten | {state.name for state in states})  # over shards there is no state before the GPUNode
        return judged.filling(wanted - len(unwritten), wanted)

    def _move(self, diagnostic: Diagnostic, entry: _Entry, status: GPUDiagnosticStatus, now: float) -> None:
        """Write what was judged, now or when its time comes, or nothing."""
        write = next_write(entry.known, status, now=self._around.wall())
        if write is None or (entry.known is not None and same_meaning(entry.known, write)):
            if write is not None:
                self._submit(diagnostic, entry, write)
            entry.pacing.confirm_at = self._statuses.confirm_at(entry.known)
            return
        fresh_spec = entry.known is None or entry.known.observed_generation != diagnostic.generation
        if fresh_spec or entry.pacing.allows(now, worse=worsened(entry.known, status)):
            log.info("judged anew: %s", status.message, extra={"runID": status.run_id})
            self._submit(diagnostic, entry, write)
            entry.pacing.wrote(now)

    # Once

    def _start(self, diagnostic: Diagnostic, entry: _Entry) -> float:
        key = diagnostic.key
        if self._runs.running(key):
            return NEVER
        if not self._around.warm():
            return self._around.monotonic() + WARM_SECONDS
        if self._runs.full:
            self._waiting[key] = None
            return self._progress(diagnostic, entry, Phase.PENDING, "waits for other runs to end")
        states, missing = self._index.states(key)
        full = diagnostic.spec.detail == "Full"
        if full and len(states) > MAX_FULL_NODES:
            return self._stall(diagnostic, entry, Stall.TOO_MANY_NODES_FOR_FULL, _too_many(len(states)))
        states.sort(key=lambda state: -state.health.badness)
        self._progress(diagnostic, entry, Phase.RUNNING)
        self._runs.start(
            Order(
                key=key,
                names=[state.name for state in states],
                missing=missing,
                deadline=durations.parse(diagnostic.spec.deadline),
                full=full,
                done=lambda outcome: self._finish(diagnostic, entry, outcome),
            )
        )
        return NEVER

    def _finish(self, diagnostic: Diagnostic, entry: _Entry, outcome: Outcome | None) -> str:
        """A run ended. A run of an older spec was cancelled, so this is the present one's. Gives the verdict."""
        if outcome is None:
            entry.due = self._around.monotonic() + RERUN_SECONDS
            return ""
        status = self._statuses.judged(
            diagnostic,
            entry.known,
            states=self._index.narrowed(diagnostic.key, outcome.states),
            missing=outcome.missing,
            run_id=outcome.run_id,
            started_at=outcome.started_at,
            deadline_exceeded=outcome.deadline_exceeded,
        )
        log.info("run judged: %s", status.message)
        self._submit(diagnostic, entry, status)
        self.notice(diagnostic.key)
        return status.verdict or ""

    def _expire(self, diagnostic: Diagnostic, entry: _Entry) -> float:
        expires_at = stages.expires_at(diagnostic, entry.known)
        if expires_at is None:
            return NEVER
        left = expires_at - self._around.wall()
        now = self._around.monotonic()
        if left > 0:
            return now + left
        # The stored object says so, too: a status that is not written yet must not be lost with its object.
        if stages.is_complete(diagnostic, stages.stored_status(diagnostic)):
            self._deleter.delete(diagnostic)
        return now + 5.0

    def _place_free(self) -> None:
        """A run ended: look at those that wait."""
        first = next(iter(self._waiting), None)
        if first is not None:
            del self._waiting[first]
            if first in self._entries:
                self._entries[first].due = 0.0
        self._wake.set()

    # All

    def _submit_if_new(self, diagnostic: Diagnostic, entry: _Entry, status: GPUDiagnosticStatus) -> None:
        if entry.known is None or not same_meaning(entry.known, status):
            self._submit(diagnostic, entry, status)

    def _submit(self, diagnostic: Diagnostic, entry: _Entry, status: GPUDiagnosticStatus) -> None:
        self._writer.submit(diagnostic.key, diagnostic.uid, previous=entry.known, status=status)
        entry.known = status

    def _drop(self, key: Key) -> None:
        self._runs.cancel(key)
        self._index.remove(key)
        self._writer.forget(key)
        self._entries.pop(key, None)

    def _tell_critical(self) -> None:
        critical = frozenset(_critical(map(self._registry.get, self._registry.all_keys())))
        if critical != self._critical:
            self._critical = critical
            self._around.critical_xids(critical)


def _too_many(count: int) -> str:
    return (
        f"detail: Full is for at most {MAX_FULL_NODES} nodes and the target has {count}; name fewer in "
        "spec.target.nodeNames, or use detail: Summary"
    )


def _critical(diagnostics: Iterable[Diagnostic | None]) -> Iterable[int]:
    for diagnostic in diagnostics:
        if diagnostic is not None and diagnostic.spec.policy.xids is not None:
            yield from diagnostic.spec.policy.xids.critical or ()
