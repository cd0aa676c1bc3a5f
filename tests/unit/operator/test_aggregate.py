"""Many nodes and one question make one status."""

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.operator.crd_schema import problems, status_schema
from tests.unit.operator.fleet import (
    CRITICAL,
    INFO,
    NOW,
    WARNING,
    finding,
    gap,
    gpu,
    node_of,
    spec_of,
)

from gpudiag_api.kinds import GPUDiagnosticStatus
from gpudiag_api.vocabulary import BreakerState, Capability, Health, NotRead
from gpudiag_operator.aggregate import budget
from gpudiag_operator.aggregate.change import same_meaning
from gpudiag_operator.aggregate.status import Aggregation, aggregate
from gpudiag_operator.aggregate.verdict import within
from gpudiag_operator.domain import BreakerSnapshot, NodeState

SCHEMA = status_schema("gpudiagnostics")


def judged(
    *states: NodeState,
    previous: GPUDiagnosticStatus | None = None,
    now: float = NOW,
    more: dict[str, Any] | None = None,
    **spec: Any,
) -> GPUDiagnosticStatus:
    request = Aggregation(
        spec=spec_of(**spec),
        generation=3,
        states=states,
        run_id="run-1",
        started_at=now - 1,
        now=now,
        previous=previous,
        **(more or {}),
    )
    status = aggregate(request)
    assert list(problems(budget.dump(status), SCHEMA)) == []
    return status


def condition(status: GPUDiagnosticStatus, kind: str) -> tuple[str, str] | None:
    return next(((one.status, one.reason) for one in status.conditions if one.type == kind), None)


def healthy(name: str, **fields: Any) -> NodeState:
    return node_of(name, **fields)


def sick(name: str, severity: Any = CRITICAL, index: int = 0, **fields: Any) -> NodeState:
    return node_of(name, findings=(finding(severity, index, name),), **fields)


def silent(name: str, reason: NotRead = NotRead.TIMEOUT, **fields: Any) -> NodeState:
    return node_of(name, failure=reason, **fields)


def in_maintenance(state: NodeState) -> NodeState:
    return msgspec.structs.replace(state, maintenance=True)


class TestVerdict:
    @pytest.mark.parametrize(
        ("states", "verdict"),
        [
            ([healthy("a"), healthy("b")], "Healthy"),
            ([healthy("a"), sick("b", WARNING)], "Degraded"),
            ([sick("a", WARNING), silent("b")], "Unknown"),
            ([silent("a"), sick("b")], "Unhealthy"),
            ([healthy("a"), sick("b", INFO)], "Healthy"),
            ([], "Unknown"),
        ],
    )
    def test_it_is_the_worst_of_the_parts(self, states: list[NodeState], verdict: str) -> None:
        assert judged(*states).verdict == verdict

    def test_nodes_in_maintenance_do_not_count(self) -> None:
        status = judged(healthy("a"), in_maintenance(sick("b")), in_maintenance(silent("c")))
        assert (status.verdict, status.recommended_action) == ("Healthy", "None")
        assert status.summary.nodes.maintenance == 2
        assert status.summary.findings.critical == 1  # kept

    def test_with_all_in_maintenance_nothing_is_known(self) -> None:
        status = judged(in_maintenance(healthy("a")), in_maintenance(sick("b")))
        assert status.verdict == "Unknown"
        assert "all 2 nodes targeted are under maintenance" in status.message

    def test_the_message_says_what_where_and_what_to_do(self) -> None:
        status = judged(healthy("a", gpus=8), sick("b", index=3, gpus=8))
        assert status.message == (
            "Unhealthy: 1 of 16 GPUs on 1 node Unhealthy; worst: b, GPU 3 counts 2 uncorrectable memory errors;"
            " next: drain the node and reset the GPU."
        )
        assert status.recommended_action == "DrainAndResetGPU"

    def test_a_target_that_matches_nothing_is_said(self) -> None:
        assert "matches no GPU node" in judged().message


class TestTolerance:
    @pytest.mark.parametrize(
        ("limit", "verdict"),
        [(0, "Unhealthy"), (1, "Unhealthy"), (2, "Degraded"), ("9%", "Unhealthy"), ("10%", "Degraded")],
    )
    def test_unhealthy_gpus_as_a_number_or_a_percentage(self, limit: int | str, verdict: str) -> None:
        states = [healthy("a", gpus=8), healthy("b", gpus=8), sick("c"), sick("d")]  # 2 of 20
        status = judged(*states, policy={"tolerate": {"unhealthyGPUs": limit}})
        assert status.verdict == verdict
        assert ("2 Unhealthy GPUs tolerated by policy" in status.message) is (verdict == "Degraded")
        assert condition(status, "GPUsHealthy") == ("False", "Failures")  # facts, not the verdict

    @pytest.mark.parametrize(
        ("limit", "verdict"), [(0, "Unknown"), (1, "Degraded"), ("49%", "Unknown"), ("50%", "Degraded")]
    )
    def test_unknown_nodes(self, limit: int | str, verdict: str) -> None:
        status = judged(healthy("a"), silent("b"), policy={"tolerate": {"unknownNodes": limit}})
        assert status.verdict == verdict

    def test_what_hides_behind_a_tolerated_gpu_still_counts(self) -> None:
        blind = node_of("a", findings=(finding(CRITICAL, 0, "a"),), capabilities=(gap(Capability.DRIVER_HUNG),))
        assert judged(blind, policy={"tolerate": {"unhealthyGPUs": 1}}).verdict == "Unknown"

    @given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 100))
    def test_a_percentage_is_exact(self, number: int, total: int, percent: int) -> None:
        assert within(number, total, f"{percent}%") is (100 * number <= percent * total)


class TestNumbers:
    def test_nodes_are_reporting_skipped_or_failed(self) -> None:
        states = [healthy("a"), silent("b", NotRead.AGENT_MISSING), silent("c", NotRead.BAD_RESPONSE)]
        status = judged(*states, more={"missing": ("ghost",)})
        nodes = status.summary.nodes
        assert (nodes.targeted, nodes.reporting, nodes.skipped, nodes.failed) == (4, 1, 1, 2)
        rows = {row.name: row for row in status.nodes}
        assert rows["b"].skipped is not None
        assert rows["b"].failed is None
        assert rows["c"].failed is not None
        assert rows["ghost"].reason == "NodeGone"
        assert "no Node of that name" in str(rows["ghost"].failed)

    def test_gpus_by_health(self) -> None:
        gpus = judged(healthy("a", gpus=4), sick("b"), silent("c")).summary.gpus
        assert (gpus.total, gpus.healthy, gpus.degraded, gpus.unhealthy, gpus.unknown) == (8, 5, 0, 1, 2)

    def test_inventory_is_grouped(self) -> None:
        mixed = msgspec.structs.replace(
            healthy("b"), gpus=(gpu(0, "b"), gpu(1, "b", mig_enabled=True), gpu(2, "b"), gpu(3, "b", model="A100"))
        )
        groups = [(one.model[:11], one.mig, one.gpus, one.nodes) for one in judged(healthy("a"), mixed).inventory]
        assert groups == [
            ("NVIDIA H100", "Unsupported", 4, 2),
            ("A100", "Unsupported", 1, 1),
            ("NVIDIA H100", "Enabled", 1, 1),
        ]

    def test_findings_are_grouped_with_examples(self) -> None:
        states = [sick(f"n{index}") for index in range(8)] + [sick("w", WARNING)]
        (group,) = judged(*states).findings
        assert (group.count, group.severity, len(group.nodes)) == (9, "Critical", 5)
        assert group.gpus[0] == "n0/0"

    def test_last_known_findings_of_a_silent_node_do_not_count(self) -> None:
        status = judged(silent("a", findings=(finding(),)))
        assert status.findings == ()
        assert "last known: Critical UncorrectableErrors on GPU 0" in str(status.nodes[0].failed)


class TestRows:
    def test_worst_first(self) -> None:
        states = [healthy("a"), sick("b", WARNING), silent("c"), sick("d")]
        assert [row.name for row in judged(*states).nodes] == ["d", "c", "b", "a"]

    def test_at_most_fifty_and_it_says_so(self) -> None:
        status = judged(*(healthy(f"n{index:03}") for index in range(51)), sick("z"))
        assert (len(status.nodes), status.nodes_truncated, status.nodes[0].name) == (50, True, "z")
        assert judged(*(healthy(f"n{index:03}") for index in range(50))).nodes_truncated is False

    def test_more_than_32_groups_are_cut(self) -> None:
        findings = tuple(finding(WARNING, reason=f"R{index}") for index in range(33))
        status = judged(node_of(findings=findings))
        assert (len(status.findings), status.findings_truncated) == (32, True)

    def test_a_breaker_that_is_not_closed_shows(self) -> None:
        status = judged(silent("a", NotRead.CIRCUIT_OPEN, breaker=BreakerSnapshot(state=BreakerState.OPEN)))
        assert status.nodes[0].breaker == "Open"
        assert condition(status, "CircuitBreakersClosed") == ("False", "SomeOpen")

    def test_changed_by_policy(self) -> None:
        (row,) = judged(sick("a"), checks={"include": ["Temperature"]}).nodes
        assert (row.health, row.changed_by_policy) == ("Healthy", True)


class TestPrivacy:
    STATES = (
        node_of("a", findings=(finding(check="XID", reason="XID48", message="XID 48 (process python, pid 7)"),)),
        silent("b"),
    )

    def test_pods_and_processes_are_hidden_from_tenants(self) -> None:
        text = judged(*self.STATES).model_dump_json()
        assert "python" not in text
        assert "secret-7" not in text
        assert "XID48" in text

    def test_and_shown_in_the_operators_namespace(self) -> None:
        text = judged(*self.STATES, more={"show_pods": True}).model_dump_json()
        assert "python" in text
        assert "secret-7" in text


class TestConditions:
    @pytest.mark.parametrize(
        ("states", "ready", "gpus", "agents"),
        [
            ([healthy("a")], ("True", "Fresh"), ("True", "AllHealthy"), ("True", "AllReachable")),
            ([sick("a")], ("True", "Fresh"), ("False", "Failures"), ("True", "AllReachable")),
            ([sick("a", WARNING)], ("True", "Fresh"), ("False", "Warnings"), ("True", "AllReachable")),
            ([healthy("a"), silent("b")], ("True", "Fresh"), ("Unknown", "NotAllKnown"), ("False", "SomeUnreachable")),
            ([silent("a")], ("False", "NoNodeAnswered"), ("Unknown", "NotAllKnown"), ("False", "NoneReachable")),
            (
                [silent("a", NotRead.STALE_SAMPLE)],
                ("False", "Stale"),
                ("Unknown", "NotAllKnown"),
                ("False", "NoneReachable"),
            ),
            ([], ("True", "NoTargets"), ("Unknown", "NotAllKnown"), ("Unknown", "NoTargets")),
        ],
    )
    def test_reasons(self, states: list[NodeState], ready: Any, gpus: Any, agents: Any) -> None:
        status = judged(*states)
        assert condition(status, "Ready") == ready
        assert condition(status, "GPUsHealthy") == gpus
        assert condition(status, "AgentsReachable") == agents
        assert condition(status, "CircuitBreakersClosed") == ("True", "AllClosed")
        assert condition(status, "Reconciling") is condition(status, "Stalled") is condition(status, "Complete") is None

    def test_data_that_is_not_fresh(self) -> None:
        status = judged(healthy("a"), more={"stale": "the watch is 3 minutes behind"})
        assert condition(status, "Ready") == ("False", "Stale")

    @pytest.mark.parametrize(
        ("states", "late", "reason"),
        [
            ([healthy("a")], False, "Succeeded"),
            ([healthy("a"), silent("b")], True, "DeadlineExceeded"),
            ([silent("a")], True, "NoNodeAnswered"),
            ([], False, "Succeeded"),
        ],
    )
    def test_a_run_that_ended_is_complete(self, states: list[NodeState], reason: str, *, late: bool) -> None:
        status = judged(*states, mode="Once", trigger="again", more={"deadline_exceeded": late})
        assert condition(status, "Complete") == ("True", reason)
        assert status.last_handled_trigger == "again"

    def test_the_commonest_cause_is_named(self) -> None:
        states = [healthy("z"), silent("a"), silent("b", NotRead.AGENT_MISSING), silent("c", NotRead.AGENT_MISSING)]
        message = next(one.message for one in judged(*states).conditions if one.type == "AgentsReachable")
        assert message.startswith("3 of 4 nodes not read: 2 AgentMissing, 1 Timeout; for example b: no agent runs")

    @pytest.mark.parametrize(
        ("states", "told"),
        [
            ([silent("a"), silent("b", NotRead.CONNECTION_REFUSED)], True),
            ([silent("a"), silent("b", NotRead.AGENT_MISSING), silent("c", NotRead.NODE_NOT_READY)], True),
            ([silent("a"), silent("b", NotRead.SERVER_ERROR)], False),  # somebody answered
            ([silent("a"), healthy("b")], False),
            ([silent("b", NotRead.AGENT_NOT_READY)], False),  # nobody was called
        ],
    )
    def test_when_every_ready_agent_is_out_of_reach_the_way_is_to_blame(
        self, states: list[NodeState], *, told: bool
    ) -> None:
        status = judged(*states, more={"no_way": "a NetworkPolicy, say"})
        message = next(one.message for one in status.conditions if one.type == "AgentsReachable")
        assert message.endswith(" a NetworkPolicy, say") is told

    def test_a_transition_is_a_flip_of_status(self) -> None:
        first = judged(healthy("a"))
        degraded = judged(sick("a", WARNING), previous=first, now=NOW + 60)
        unhealthy = judged(sick("a"), previous=degraded, now=NOW + 120)
        times = [
            next(one.last_transition_time for one in status.conditions if one.type == "GPUsHealthy")
            for status in (first, degraded, unhealthy)
        ]
        assert times[0] < times[1] == times[2]
        assert {one.observed_generation for one in unhealthy.conditions} == {unhealthy.observed_generation} == {3}


class TestHistory:
    def test_one_line_per_change_of_verdict_newest_first(self) -> None:
        status = judged(healthy("a"))
        status = judged(healthy("a"), healthy("b"), previous=status, now=NOW + 1)
        status = judged(sick("a"), previous=status, now=NOW + 2)
        status = judged(healthy("a"), previous=status, now=NOW + 3)
        assert [line.verdict for line in status.history] == ["Healthy", "Unhealthy", "Healthy"]
        assert status.history[0].at > status.history[1].at

    @pytest.mark.parametrize("limit", [0, 1, 3])
    def test_it_is_bounded(self, limit: int) -> None:
        status = None
        for turn in range(6):
            status = judged(sick("a") if turn % 2 else healthy("a"), previous=status, historyLimit=limit)
        assert status is not None
        assert len(status.history) == limit


kinds = st.sampled_from(["healthy", "info", "warning", "critical", "silent", "skipped", "blind", "maintenance"])


def state_of(name: str, kind: str) -> NodeState:
    match kind:
        case "info" | "warning" | "critical":
            return sick(name, {"info": INFO, "warning": WARNING, "critical": CRITICAL}[kind])
        case "silent":
            return silent(name)
        case "skipped":
            return silent(name, NotRead.NODE_NOT_READY)
        case "blind":
            return node_of(name, capabilities=(gap(Capability.NO_DRIVER),))
        case "maintenance":
            return in_maintenance(sick(name))
    return healthy(name)


fleets = st.lists(
    st.tuples(st.text("abc0", min_size=1, max_size=6), kinds), max_size=12, unique_by=lambda pair: pair[0]
).map(lambda pairs: [state_of(*pair) for pair in pairs])
limits = st.one_of(st.integers(0, 5), st.integers(0, 100).map(lambda number: f"{number}%"))


@settings(max_examples=60, deadline=None)
@given(fleets)
def test_without_tolerance_the_verdict_is_the_worst_row_that_counts(fleet: Sequence[NodeState]) -> None:
    status = judged(*fleet)
    assert status.verdict == Health.worst(Health(row.health) for row in status.nodes if not row.maintenance)


@settings(max_examples=60, deadline=None)
@given(fleets, limits, limits)
def test_tolerance_makes_nothing_worse_and_nothing_healthy(
    fleet: Sequence[NodeState], gpus: int | str, nodes: int | str
) -> None:
    strict = Health(judged(*fleet).verdict)
    tolerant = Health(judged(*fleet, policy={"tolerate": {"unhealthyGPUs": gpus, "unknownNodes": nodes}}).verdict)
    assert tolerant.badness <= strict.badness
    assert (tolerant is Health.HEALTHY) is (strict is Health.HEALTHY)


@settings(max_examples=60, deadline=None)
@given(fleets, st.randoms())
def test_the_order_of_nodes_does_not_matter(fleet: list[NodeState], shuffler: random.Random) -> None:
    shuffled = list(fleet)
    shuffler.shuffle(shuffled)
    assert judged(*fleet) == judged(*shuffled)


@settings(max_examples=60, deadline=None)
@given(fleets)
def test_doing_it_again_means_the_same(fleet: list[NodeState]) -> None:
    first = judged(*fleet)
    again = judged(*fleet, previous=GPUDiagnosticStatus.model_validate(budget.dump(first)), now=NOW + 3600)
    assert same_meaning(first, again)
    assert again.history == first.history
    assert again.conditions == first.conditions
