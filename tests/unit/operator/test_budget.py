"""64 KiB, whatever the fleet, whatever its strings."""

import time
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.operator.crd_schema import problems, status_schema
from tests.unit.operator.fleet import CRITICAL, NOW, WARNING, finding, gpu, node_of, spec_of

from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_api.kinds.verdict import HistoryEntry, NodeResult, NodeRow, Process, Timeline, TimelinePoint
from gpudiag_api.vocabulary import NotRead
from gpudiag_api.wire import Driver
from gpudiag_operator.aggregate import budget
from gpudiag_operator.aggregate.status import Aggregation, aggregate
from gpudiag_operator.domain import NodeState

AT = "2026-11-21T03:00:00.000Z"
WIDE = "\U0001f525"
"""One character, four bytes."""
SCHEMA = status_schema("gpudiagnostics")


def worst_node(number: int) -> NodeState:
    """A node whose every string is as long as the wire allows, in four-byte characters."""
    name = f"{number:05}" + "n" * 248
    findings = tuple(
        finding(
            CRITICAL if index else WARNING,
            index,
            name,
            check=f"{number % 40:02}" + WIDE * 61,
            reason=f"{index}" + WIDE * 62,
            message=WIDE * 1024,
        )
        for index in range(8)
    )
    gpus = tuple(gpu(index, name[:40], model=f"{number % 50}{index}" + WIDE * 250) for index in range(8))
    state = node_of("x", findings=findings, driver=Driver(version=WIDE * 63))
    return msgspec.structs.replace(state, name=name, gpus=gpus, findings=findings, reason=WIDE * 63)


def status_of(states: Sequence[NodeState], results: Sequence[NodeResult] = ()) -> GPUDiagnosticStatus:
    history = tuple(HistoryEntry(at=AT, verdict="Healthy", message=WIDE * 1024, run_id="r" * 63) for _ in range(50))
    return aggregate(
        Aggregation(
            spec=spec_of(historyLimit=50, trigger=WIDE * 256, mode="Once"),
            generation=1,
            states=states,
            run_id="r" * 63,
            started_at=NOW,
            now=NOW,
            previous=GPUDiagnosticStatus(history=history),
            show_pods=True,
            results=results,
        )
    )


@pytest.fixture(scope="module")
def fleet() -> list[NodeState]:
    return [worst_node(number) for number in range(5000)]


def test_5000_nodes_with_the_longest_strings_fit(fleet: list[NodeState]) -> None:
    status = status_of(fleet)
    text = msgspec.json.encode(budget.dump(status))
    assert len(text) <= 64 * 1024
    assert status.summary.nodes.targeted == 5000
    assert status.summary.gpus.total == 40_000
    assert status.nodes
    assert (status.nodes_truncated, status.findings_truncated, status.inventory_truncated) == (True, True, True)
    assert list(problems(budget.dump(status), SCHEMA)) == []


def test_5000_silent_nodes_fit(fleet: list[NodeState]) -> None:
    failure = node_of(failure=NotRead.TIMEOUT).failure
    silent = [msgspec.structs.replace(state, failure=failure) for state in fleet]
    assert budget.size(status_of(silent)) <= 64 * 1024


def test_an_ordinary_fleet_of_5000_loses_nothing_to_the_budget() -> None:
    healthy = node_of("n", gpus=8)
    sick = node_of("n", gpus=8, findings=tuple(finding(CRITICAL, index, "n") for index in range(8)))
    states = [msgspec.structs.replace(sick if at % 10 else healthy, name=f"node-{at:05}") for at in range(5000)]
    began = time.process_time()
    status = aggregate(Aggregation(spec=spec_of(), generation=1, states=states, run_id="r", started_at=NOW, now=NOW))
    took = time.process_time() - began
    assert len(status.nodes) == 50
    assert budget.size(status) < 32 * 1024
    assert took < 1.0  # about 0.08 s on an idle core; the bound is for noisy ones


def full(points: int, processes: int, nodes: int = 10, gpus: int = 8) -> tuple[NodeResult, ...]:
    line = tuple(
        TimelinePoint(at=AT, temperature_celsius=61.5, power_watts=float(at), utilization_percent=99.0)
        for at in range(points)
    )
    held = tuple(Process(gpu=0, pid=pid, name="p" * 60) for pid in range(processes))
    return tuple(
        NodeResult(
            node=f"n{at}", timeline=tuple(Timeline(gpu=index, points=line) for index in range(gpus)), processes=held
        )
        for at in range(nodes)
    )


class TestOrder:
    ROWS = tuple(NodeRow(name=f"n{at}", health="Healthy") for at in range(50))

    def fitted(self, results: tuple[NodeResult, ...]) -> GPUDiagnosticStatus:
        status = budget.fit(GPUDiagnosticStatus(nodes=self.ROWS, results=results))
        assert budget.size(status) <= 64 * 1024
        return status

    def test_what_fits_is_left_alone(self) -> None:
        status = self.fitted(full(points=2, processes=4))
        assert status.results == full(points=2, processes=4)

    def test_timeline_points_go_first_and_the_newest_stay(self) -> None:
        status = self.fitted(full(points=60, processes=4))
        assert all(result.timeline_truncated for result in status.results)
        assert not any(result.processes_truncated for result in status.results)
        line = status.results[0].timeline[0].points
        assert 0 < len(line) < 60
        assert line[-1].power_watts == 59
        assert (len(status.results), len(status.nodes)) == (10, 50)

    def test_then_processes(self) -> None:
        status = self.fitted(full(points=60, processes=64, nodes=20))
        assert not any(line.points for result in status.results for line in result.timeline)
        assert any(result.processes_truncated for result in status.results)
        assert (len(status.results), len(status.nodes), status.results_truncated) == (20, 50, False)

    def test_then_results_and_rows(self) -> None:
        status = self.fitted(full(points=60, processes=64, nodes=300))
        assert 0 < len(status.results) < 300
        assert status.results_truncated
        assert len(status.nodes) == 50


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 40), st.integers(0, 30), st.integers(0, 64), st.integers(0, 50), st.sampled_from(["a", WIDE, "\x00"])
)
def test_it_always_fits_and_says_what_it_left_out(
    nodes: int, points: int, processes: int, lines: int, letter: str
) -> None:
    before = GPUDiagnosticStatus(
        nodes=tuple(NodeRow(name=f"n{at}", health="Healthy", finding=letter * 1024) for at in range(50)),
        results=full(points, processes, nodes, gpus=2),
        history=tuple(HistoryEntry(at=AT, verdict="Healthy", message=letter * 1024) for _ in range(lines)),
    )
    after = budget.fit(before)
    assert budget.size(after) <= 64 * 1024
    assert after.nodes == before.nodes[: len(after.nodes)]  # worst first: the tail goes
    assert after.nodes_truncated is (len(after.nodes) < len(before.nodes))
    assert after.results_truncated is (len(after.results) < len(before.results))
    assert budget.fit(after) == after
