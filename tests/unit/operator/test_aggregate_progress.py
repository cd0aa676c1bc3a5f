"""Statuses between verdicts, and what a change of a status is worth."""

from typing import Any

import pytest
from tests.unit.operator.crd_schema import problems, status_schema
from tests.unit.operator.fleet import CRITICAL, NOW, finding, node_of, spec_of, with_counts

from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_operator.aggregate import budget
from gpudiag_operator.aggregate.change import next_write, same_meaning, worsened
from gpudiag_operator.aggregate.progress import Phase, Stall, progress, stalled
from gpudiag_operator.aggregate.status import Aggregation, aggregate
from gpudiag_operator.domain import NodeState

SCHEMA = status_schema("gpudiagnostics")


def judged(
    *states: NodeState, now: float = NOW, previous: GPUDiagnosticStatus | None = None, run: str = "run-1", **spec: Any
) -> GPUDiagnosticStatus:
    request = Aggregation(
        spec=spec_of(**spec), generation=1, states=states, run_id=run, started_at=now, now=now, previous=previous
    )
    return aggregate(request)


def reasons(status: GPUDiagnosticStatus) -> dict[str, tuple[str, str]]:
    assert list(problems(budget.dump(status), SCHEMA)) == []
    return {one.type: (one.status, one.reason) for one in status.conditions}


HEALTHY = judged(node_of("a"))
SICK = judged(node_of("a", findings=(finding(),)))


class TestProgress:
    def test_a_new_generation_reconciles(self) -> None:
        status = progress(HEALTHY, spec=spec_of(), generation=2, phase=Phase.PROCESSING, now=NOW)
        found = reasons(status)
        assert found["Ready"] == ("False", "Processing")
        assert found["Reconciling"] == ("True", "Processing")
        assert "Complete" not in found
        assert (status.observed_generation, status.verdict, status.nodes) == (2, "Healthy", HEALTHY.nodes)

    @pytest.mark.parametrize("phase", [Phase.PENDING, Phase.RUNNING])
    def test_a_run_is_not_complete(self, phase: Phase) -> None:
        found = reasons(progress(None, spec=spec_of(mode="Once"), generation=1, phase=phase, now=NOW))
        assert found["Complete"] == ("False", phase)
        assert found["Reconciling"][0] == "True"

    def test_the_verdict_ends_it(self) -> None:
        running = progress(HEALTHY, spec=spec_of(mode="Once"), generation=1, phase=Phase.RUNNING, now=NOW)
        found = reasons(judged(node_of("a"), previous=running, mode="Once"))
        assert "Reconciling" not in found
        assert (found["Ready"], found["Complete"]) == (("True", "Fresh"), ("True", "Succeeded"))

    def test_suspended_keeps_the_result_and_is_ready(self) -> None:
        status = progress(SICK, spec=spec_of(suspend=True), generation=2, phase=Phase.SUSPENDED, now=NOW)
        found = reasons(status)
        assert found["Ready"] == ("True", "Suspended")
        assert "Reconciling" not in found
        assert found["GPUsHealthy"] == ("False", "Failures")
        assert status.verdict == "Unhealthy"

    def test_a_suspended_run_that_was_complete_stays_so(self) -> None:
        done = judged(node_of("a"), mode="Once")
        spec = spec_of(mode="Once", suspend=True)
        assert reasons(progress(done, spec=spec, generation=1, phase=Phase.SUSPENDED, now=NOW))["Complete"][0] == "True"
        assert (
            reasons(progress(None, spec=spec, generation=1, phase=Phase.SUSPENDED, now=NOW))["Complete"][0] == "False"
        )


class TestStalled:
    @pytest.mark.parametrize("reason", list(Stall))
    def test_it_is_not_ready_for_that_reason(self, reason: Stall) -> None:
        status = stalled(HEALTHY, spec=spec_of(), generation=2, reason=reason, message="write X instead", now=NOW)
        found = reasons(status)
        assert (found["Ready"], found["Stalled"]) == (("False", reason), ("True", reason))
        assert set(found) == {"Ready", "Stalled"}
        assert (status.verdict, status.message, status.nodes) == ("Unknown", "write X instead", ())
        assert [line.verdict for line in status.history] == ["Unknown", "Healthy"]

    def test_the_first_verdict_ends_it(self) -> None:
        before = stalled(None, spec=spec_of(), generation=1, reason=Stall.INVALID_TARGET, message="x", now=NOW)
        assert before.history == ()
        assert "Stalled" not in reasons(judged(node_of("a"), previous=before))


class TestChange:
    def test_runs_times_and_sentences_mean_nothing(self) -> None:
        state = node_of("a", findings=(finding(),))
        reworded = with_counts(node_of("a", findings=(finding(message="GPU 0 counts 3 errors."),)), 7)
        assert same_meaning(judged(state), judged(reworded, now=NOW + 60, run="run-2"))

    @pytest.mark.parametrize(
        "other",
        [
            judged(node_of("b")),
            judged(node_of("a", gpus=3)),
            judged(node_of("a", findings=(finding(CRITICAL),))),
            judged(node_of("a"), mode="Once"),
            judged(),
        ],
    )
    def test_everything_else_does(self, other: GPUDiagnosticStatus) -> None:
        assert not same_meaning(HEALTHY, other)

    def test_nothing_is_written_while_nothing_changes(self) -> None:
        again = judged(node_of("a"), previous=HEALTHY, now=NOW + 299, run="run-2")
        assert next_write(HEALTHY, again, now=NOW + 299) is None

    def test_a_change_is(self) -> None:
        assert next_write(HEALTHY, SICK, now=NOW) is SICK
        assert next_write(None, HEALTHY, now=NOW) is HEALTHY

    def test_it_is_confirmed_every_five_minutes_under_the_run_that_changed_it(self) -> None:
        again = judged(node_of("a"), previous=HEALTHY, now=NOW + 300, run="run-2")
        written = next_write(HEALTHY, again, now=NOW + 300)
        assert written is not None
        assert (written.run_id, written.finished_at) == (HEALTHY.run_id, HEALTHY.finished_at)
        assert str(written.last_confirmed_at) > str(HEALTHY.last_confirmed_at)
        assert next_write(written, again, now=NOW + 301) is None

    def test_worse_and_better(self) -> None:
        assert worsened(HEALTHY, SICK)
        assert not worsened(SICK, HEALTHY)
        assert not worsened(HEALTHY, HEALTHY)
        assert worsened(SICK, judged(node_of("a", findings=(finding(), finding(index=1)))))
        assert worsened(None, HEALTHY)
