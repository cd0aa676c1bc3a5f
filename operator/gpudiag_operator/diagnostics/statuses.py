"""The statuses that the scheduler hands on, made from a diagnostic, its last status and the time."""

from collections.abc import Sequence

from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_api.times import from_rfc3339
from gpudiag_operator.aggregate.change import SKEW_SECONDS
from gpudiag_operator.aggregate.progress import Phase, Stall, progress, stalled
from gpudiag_operator.aggregate.results import results
from gpudiag_operator.aggregate.status import Aggregation, aggregate
from gpudiag_operator.diagnostics.pacing import CONFIRM_SECONDS
from gpudiag_operator.diagnostics.ports import Surroundings
from gpudiag_operator.diagnostics.registry import Diagnostic
from gpudiag_operator.domain import NodeState

Known = GPUDiagnosticStatus | None
"""The status last submitted, or else the stored one; None: there is none."""


class Statuses:
    """Makes statuses. No state of its own."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    def judged(
        self,
        diagnostic: Diagnostic,
        known: Known,
        *,
        states: Sequence[NodeState],
        missing: Sequence[str],
        run_id: str,
        started_at: float | None = None,
        deadline_exceeded: bool = False,
        filling: str = "",
    ) -> GPUDiagnosticStatus:
        """The verdict on these nodes.

        Args:
            diagnostic: the question.
            known: see ``Known``.
            states: the nodes.
            missing: names asked for that are no GPU nodes.
            run_id: of the run.
            started_at: its start in Unix seconds; default: now.
            deadline_exceeded: it was ended by its deadline.
            filling: see ``Aggregation``.
        """
        now = self._around.wall()
        namespace = diagnostic.key.namespace
        show_pods = namespace == self._around.own_namespace
        return aggregate(
            Aggregation(
                spec=diagnostic.spec,
                generation=diagnostic.generation,
                states=states,
                run_id=run_id,
                started_at=now if started_at is None else started_at,
                now=now,
                missing=missing,
                previous=known,
                show_pods=show_pods,
                deadline_exceeded=deadline_exceeded,
                stale=self._around.stale(),
                filling=filling,
                no_way=self._around.no_way,
                results=results(states, namespace=namespace, show_pods=show_pods),
            )
        )

    def progress(self, diagnostic: Diagnostic, known: Known, phase: Phase, message: str = "") -> GPUDiagnosticStatus:
        """Not judged right now."""
        return progress(
            known,
            spec=diagnostic.spec,
            generation=diagnostic.generation,
            phase=phase,
            now=self._around.wall(),
            message=message,
        )

    def stalled(self, diagnostic: Diagnostic, known: Known, reason: Stall, message: str) -> GPUDiagnosticStatus:
        """Not judged until somebody changes something."""
        return stalled(
            known,
            spec=diagnostic.spec,
            generation=diagnostic.generation,
            reason=reason,
            message=message,
            now=self._around.wall(),
        )

    def confirm_at(self, known: Known) -> float:
        """Monotonic seconds when lastConfirmedAt may move next; a little late, so that it does move."""
        now = self._around.monotonic()
        if known is None or known.last_confirmed_at is None:
            return now + CONFIRM_SECONDS
        age = self._around.wall() - from_rfc3339(known.last_confirmed_at)
        if age < -SKEW_SECONDS:
            return now
        return now + max(0.0, CONFIRM_SECONDS - max(0.0, age)) + 1.0
